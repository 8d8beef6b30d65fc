"""Drift: slow averages of a stream compared with the session in which its profile was made.

Each full window with at least half speech gives an observation: its level, the entropy of the posterior,
the embedding and, where the speaker's head reads it, the long-term spectrum. All are computed already.

Departures are in spreads (standard deviations) of the session, so that a session with more variation allows
more. `docs/drift.md` has the measurements behind the default limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, get_args

import numpy as np

from edge.arrays import Array
from edge.events import Drift, DriftSubject
from edge.features.long_term_spectrum import near_loudest
from edge.model.profile import Reference

LEAST_SPEECH: Final = 0.5
"""Smallest share of speech in an observed window: features of pauses do not depend on the speaker."""

FEWEST_WINDOWS: Final = 20
"""Fewest windows of a reference: 5 s at the default step."""

ENTROPY: Final = 1
"""Place of the entropy in an observation."""

_SPREADS: Final = (4.0, 0.3, 1e-3)
"""Smallest spread of the level (dB), the entropy (nats) and a feature, for sessions with little variation."""


@dataclass(frozen=True)
class DriftLimits:
    """Largest departures from the session, in its spreads, and the times after which they are reported."""

    level: float = 2.0
    """Of the level, up or down."""
    features: float = 1.0
    """Root mean square over the embedding."""
    spectrum: float = 1.5
    """Root mean square over the long-term spectrum."""
    entropy: float = 1.25
    """Of the entropy, upwards only: answers may be more certain than in the session."""
    average_s: float = 30.0
    """Time constant of the averages, seconds of speech."""
    patience_s: float = 10.0
    """Seconds of speech for which an average is beyond its limit before an event."""
    cooldown_s: float = 600.0
    """Shortest time of the stream from one event to the next."""


def observe(level_dbfs: float, inputs: Array, probs: Array) -> Array:
    """Return the observation of a window: (2 + X,) float32, level in dBFS, entropy in nats, inputs.

    Args:
        level_dbfs: its `spoken_level`.
        inputs: (X,) what the head reads: the embedding, and the long-term spectrum for some profiles.
        probs: (C,).
    """
    return np.concatenate([np.array([level_dbfs, posterior_entropy(probs)], np.float32), inputs])


def posterior_entropy(probs: Array) -> float:
    """Return the entropy, in nats, of posteriors, (C,) or (W, C): averaged over the windows."""
    return float(-(probs * np.log(np.maximum(probs, 1e-12))).sum(axis=-1).mean())


def spoken_level(levels: Array) -> float:
    """Average the (T,) frame levels of a window, in dB, over its spoken frames."""
    return float(levels[near_loudest(levels)].mean())


def summarise(observations: Sequence[Array]) -> Reference | None:
    """Return mean and spread of a session's observations; None for fewer than `FEWEST_WINDOWS`."""
    if len(observations) < FEWEST_WINDOWS:
        return None
    windows = np.stack(observations)
    least = np.full(windows.shape[1], _SPREADS[2], np.float32)
    least[:2] = _SPREADS[:2]
    return Reference(windows.mean(axis=0), np.maximum(windows.std(axis=0), least))


class WindowObserver(Protocol):
    """Sees the full windows of speech of a recogniser."""

    def reset(self) -> None:
        """Forget the stream."""

    def feed(self, time_s: float, observation: Array) -> Drift | None:
        """Take the observation of the window that ends at a time of the stream; may return an event."""


class DriftWatch:
    """Reports when a stream has moved away from the session in which its profile was made.

    Remembers the average observation, for how long each departure has lasted, and the time of the last
    event; `reset` forgets them. The average starts from the session's mean.
    """

    def __init__(
        self, reference: Reference, step_s: float, limits: DriftLimits | None = None, *, spectrum: int = 0
    ) -> None:
        """Prepare a stream.

        Args:
            reference: of the session.
            step_s: seconds from one window to the next.
            limits: largest departures.
            spectrum: number of values of the long-term spectrum at the end of an observation.
        """
        self._reference = reference
        self._embedding_end = len(reference.mean) - spectrum
        self._limits = limits or DriftLimits()
        self._step_s = step_s
        self._share = np.float32(1.0 - math.exp(-step_s / self._limits.average_s))
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._average = self._reference.mean.copy()
        self._beyond_s = dict.fromkeys(get_args(DriftSubject), 0.0)
        self._quiet_until_s = -math.inf

    def feed(self, time_s: float, observation: Array) -> Drift | None:
        """Take the observation of the window that ends at a time of the stream."""
        self._average += self._share * (observation - self._average)
        limits, away = self._limits, self.departures()
        excess: dict[DriftSubject, float] = {
            "level": abs(away["level"]) / limits.level,
            "features": away["features"] / limits.features,
            "spectrum": away["spectrum"] / limits.spectrum,
            "entropy": away["entropy"] / limits.entropy,
        }
        for what, times in excess.items():
            self._beyond_s[what] = self._beyond_s[what] + self._step_s if times > 1.0 else 0.0
        due = [what for what in excess if self._beyond_s[what] >= limits.patience_s]
        if not due or time_s < self._quiet_until_s:
            return None
        self._quiet_until_s = time_s + limits.cooldown_s
        return self._event(time_s, max(due, key=excess.__getitem__), excess)

    def departures(self) -> dict[DriftSubject, float]:
        """Return the departures of the averages, in spreads; those of features and spectrum have no sign."""
        away = (self._average - self._reference.mean) / self._reference.spread
        return {
            "level": float(away[0]),
            "features": _root_mean_square(away[2 : self._embedding_end]),
            "spectrum": _root_mean_square(away[self._embedding_end :]),
            "entropy": float(away[ENTROPY]),
        }

    def _event(self, time_s: float, what: DriftSubject, excess: Mapping[DriftSubject, float]) -> Drift:
        """Describe the largest departure, in its own unit."""
        change = self._average[:2] - self._reference.mean[:2]
        if what == "level":
            bound = self._limits.level * float(self._reference.spread[0])
            advice = _CLOSER if change[0] < 0 else _FURTHER
            return Drift(time_s, what, float(change[0]), bound, "dB", advice)
        if what == "entropy":
            bound = self._limits.entropy * float(self._reference.spread[ENTROPY])
            return Drift(time_s, what, float(change[ENTROPY]), bound, "nats", _UNCERTAIN)
        bound = self._limits.features if what == "features" else self._limits.spectrum
        return Drift(time_s, what, excess[what] * bound, bound, "spreads", _STRANGE)


def _root_mean_square(away: Array) -> float:
    return math.sqrt(float(away @ away) / max(1, len(away)))


_CLOSER: Final = "speak closer to the microphone, or calibrate again"
_FURTHER: Final = "move away from the microphone, or calibrate again"
_STRANGE: Final = "new speaker, room or noise? calibrate again"
_UNCERTAIN: Final = "answers grow less certain; calibrate again"
