"""Does it still sound like the calibration session? Slow averages of the stream against the session's own.

Figures are taken of full windows that are half speech or more: the level, the entropy of the posterior,
the embedding and, where the speaker's head reads it, the long-term spectrum. None costs more than a few
vector operations, for all of them are there already.

A departure is measured in the session's own spread: who was lively in it may be lively after it. The
bounds come from `python benchmarks/drift.py`: five validation speakers with the default bundle, half of
their clips (8 to 40) as the session, two minutes of the rest as the stream. Largest departures of the
averages, in spreads (lowest, median, highest of the streams), and streams that raised an event:

    stream             level               features            spectrum            entropy           events
    the other half     -0.45  0.16  0.23    0.30  0.36  0.44    0.29  0.41  0.54    0.15  0.51  0.57   0 of 5
    pauses of 1.5 s    -0.73  0.16  0.20    0.27  0.31  0.95    0.27  0.35  0.56    0.15  0.44  0.85   0 of 5
    one emotion of it  -1.37 -0.04  0.91    0.41  0.66  1.14    0.34  0.64  1.32    0.00  0.47  1.15   1 of 20
    12 dB louder        0.68  2.49  2.99    0.30  0.38  0.46    0.28  0.46  0.56    0.17  0.59  0.80   3 of 5
    12 dB softer       -3.17 -2.82 -1.12    0.30  0.36  0.43    0.29  0.41  0.54    0.15  0.51  0.56   3 of 5
    noise at 10 dB     -0.83 -0.29  0.19    0.74  0.97  1.88    1.55  2.55  3.18    0.48  0.67  1.16   5 of 5
    another microphone -0.45  0.20  0.67    0.34  0.50  0.80    0.41  0.65  1.42    0.15  0.47  0.85   0 of 15
    another speaker    -5.02 -0.25  1.99    0.67  1.49 12.60    0.58  1.68  4.44    0.00  0.69  1.89  18 of 20

So an event means something, but none is no promise: two of the five sessions go from quiet to very loud
themselves, which hides 12 dB, and another microphone's curve, smooth and within 6 dB, is no further away than
one emotion is from all four. The entropy tells little; one first event of 30 was about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edge.arrays import Array
from edge.events import Drift
from edge.features.long_term_spectrum import near_loudest
from edge.model.profile import Reference

LEAST_SPEECH: Final = 0.5
"""Share of speech in a window that is looked at: pauses have features too, which are no speaker's."""

FEWEST_WINDOWS: Final = 20
"""A session of fewer is no measure: 5 s at the default step."""

_SPREADS: Final = (4.0, 0.3, 1e-3)
"""Smallest spread of the level (dB), the entropy (nats) and a feature: an even session is no strict one."""


@dataclass(frozen=True)
class Bounds:
    """When the stream counts as adrift. Departures are in spreads of the session."""

    level: float = 2.0
    """Of the level, up or down."""
    features: float = 1.0
    """Root mean square over the embedding."""
    spectrum: float = 1.5
    """Root mean square over the long-term spectrum."""
    entropy: float = 1.25
    """Of the entropy, upwards only: more certain than in the session is no complaint."""
    average_s: float = 30.0
    """Time constant of the averages, in speech."""
    patience_s: float = 10.0
    """Speech that an average has to be beyond its bound for."""
    cooldown_s: float = 600.0
    """Time of the stream from one event to the next."""


def figures(level_dbfs: float, inputs: Array, probs: Array) -> Array:
    """Lay out what is watched of a window: (2 + X,) float32.

    Args:
        level_dbfs: its `spoken_level`.
        inputs: (X,) what the head reads: the embedding, and the spectrum or not.
        probs: (C,).
    """
    entropy = -float(probs @ np.log(np.maximum(probs, 1e-12)))
    return np.concatenate([np.array([level_dbfs, entropy], np.float32), inputs])


def spoken_level(levels: Array) -> float:
    """Average the (T,) frame levels of a window, in dB, over the frames that are spoken."""
    return float(levels[near_loudest(levels)].mean())


def summed_up(seen: Sequence[Array]) -> Reference | None:
    """Sum up the `figures` of a session's windows; None where there are too few to be a measure."""
    if len(seen) < FEWEST_WINDOWS:
        return None
    windows = np.stack(seen)
    least = np.full(windows.shape[1], _SPREADS[2], np.float32)
    least[:2] = _SPREADS[:2]
    return Reference(windows.mean(axis=0), np.maximum(windows.std(axis=0), least))


class WindowObserver(Protocol):
    """Sees the full windows of speech of a recogniser."""

    def reset(self) -> None:
        """Forget the stream."""

    def feed(self, time_s: float, seen: Array) -> Drift | None:
        """Take the `figures` of the window that ends at a time of the stream; may return an event."""


class DriftWatch:
    """Says when a stream has moved away from the session that its profile was made in.

    Remembers one average of the figures, for how long each departure has lasted, and when it last
    spoke; `reset` forgets them. The average starts where the session was: a new stream has to move.
    """

    def __init__(
        self, reference: Reference, step_s: float, bounds: Bounds | None = None, *, spectrum: int = 0
    ) -> None:
        """Prepare a stream.

        Args:
            reference: of the session.
            step_s: from one window to the next.
            bounds: what is too far.
            spectrum: how many figures, the last ones, are of the long-term spectrum.
        """
        self._reference = reference
        self._embedding_end = len(reference.mean) - spectrum
        self._bounds = bounds or Bounds()
        self._step_s = step_s
        self._share = np.float32(1.0 - math.exp(-step_s / self._bounds.average_s))
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._average = self._reference.mean.copy()
        self._beyond_s = dict.fromkeys(("level", "features", "spectrum", "entropy"), 0.0)
        self._quiet_until_s = -math.inf

    def feed(self, time_s: float, seen: Array) -> Drift | None:
        """Take the `figures` of the window that ends at a time of the stream."""
        self._average += self._share * (seen - self._average)
        bounds, away = self._bounds, self.departures()
        excess = {
            "level": abs(away["level"]) / bounds.level,
            "features": away["features"] / bounds.features,
            "spectrum": away["spectrum"] / bounds.spectrum,
            "entropy": away["entropy"] / bounds.entropy,
        }
        for what, times in excess.items():
            self._beyond_s[what] = self._beyond_s[what] + self._step_s if times > 1.0 else 0.0
        due = [what for what, lasted_s in self._beyond_s.items() if lasted_s >= bounds.patience_s]
        if not due or time_s < self._quiet_until_s:
            return None
        self._quiet_until_s = time_s + bounds.cooldown_s
        return self._news(time_s, max(due, key=excess.__getitem__), excess)

    def departures(self) -> dict[str, float]:
        """Return how far the averages are from the session, in its spreads; two of them have no sign."""
        away = (self._average - self._reference.mean) / self._reference.spread
        return {
            "level": float(away[0]),
            "features": _root_mean_square(away[2 : self._embedding_end]),
            "spectrum": _root_mean_square(away[self._embedding_end :]),
            "entropy": float(away[1]),
        }

    def _news(self, time_s: float, what: str, excess: Mapping[str, float]) -> Drift:
        """Say what has moved, in its own unit."""
        change = self._average[:2] - self._reference.mean[:2]
        if what == "level":
            bound = self._bounds.level * float(self._reference.spread[0])
            advice = _CLOSER if change[0] < 0 else _FURTHER
            return Drift(time_s, what, float(change[0]), bound, "dB", advice)
        if what == "entropy":
            bound = self._bounds.entropy * float(self._reference.spread[1])
            return Drift(time_s, what, float(change[1]), bound, "nats", _UNCERTAIN)
        bound = self._bounds.features if what == "features" else self._bounds.spectrum
        return Drift(time_s, what, excess[what] * bound, bound, "spreads", _STRANGE)


def _root_mean_square(away: Array) -> float:
    return math.sqrt(float(away @ away) / max(1, len(away)))


_CLOSER: Final = "speak closer to the microphone, or calibrate again"
_FURTHER: Final = "move away from the microphone, or calibrate again"
_STRANGE: Final = "new speaker, room or noise? calibrate again"
_UNCERTAIN: Final = "answers grow less certain; calibrate again"
