"""Posteriors of windows to a steady label: smoothing, hysteresis and a minimum duration of changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.arrays import Array
from edge.labels import EMOTIONS, UNSURE


@dataclass(frozen=True)
class DecisionRule:
    """When the label changes, and when it is "unsure".

    A change of emotion takes, in addition to compute time: the time until the new sound fills most of the
    window of 3 s; the smoothing, which reaches 63 % of a step after `smoothing_s` and 90 % after 2.3 times
    that (1.4 s and 3.2 s); and `switch_windows` steps (0.48 s at 240 ms). The first label of an utterance is
    immediate. Only windows with speech count, so pauses do not advance time.
    """

    smoothing_s: float = 1.4
    """Time constant of the exponential smoothing of posteriors; 0 for none."""
    unsure_below: float = 0.4
    """The label is "unsure" while the smoothed probability of the emotion is below this, in [0, 1) ..."""
    unsure_margin: float = 0.05
    """... with hysteresis: an emotion is kept down to this much below, and returns this much above."""
    switch_margin: float = 0.1
    """Another emotion takes over when its smoothed probability is higher by this ..."""
    switch_windows: int = 2
    """... in this many consecutive windows."""


class Decision:
    """Decides on the label of one utterance, window by window.

    Remembers the smoothed posterior, the emotion, whether the label is "unsure", the emotion that may take
    over, and the sum of the posteriors that the average of the utterance is of; `reset` forgets them all.
    """

    def __init__(self, rule: DecisionRule, step_s: float) -> None:
        self._rule = rule
        self._keep = math.exp(-step_s / rule.smoothing_s) if rule.smoothing_s > 0 else 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the utterance."""
        self.smoothed: Array | None = None
        self.windows = 0
        self._full = False
        self._sum = np.zeros(len(EMOTIONS), np.float64)
        self._held: int | None = None
        self._challenger: int | None = None
        self._challenges = 0
        self._claims: bool | None = None

    def update(self, probs: Array, *, full: bool = True) -> str:
        """Take the (C,) posterior of a window with speech and return the label.

        Args:
            probs: of the window.
            full: whether it has its full length. Once one has, the average leaves shorter ones out.
        """
        if full and not self._full:
            self._full, self.windows = True, 0
            self._sum[:] = 0.0
        if full or not self._full:
            self._sum += probs
            self.windows += 1
        if self.smoothed is None:
            self.smoothed = probs.copy()
        else:
            self.smoothed = self._keep * self.smoothed + (1.0 - self._keep) * probs
        return self._label(self.smoothed)

    def average(self) -> tuple[Array, str]:
        """Return the (C,) average posterior of the utterance, which has a window, and its label."""
        average = (self._sum / self.windows).astype(np.float32)
        best = int(average.argmax())
        return average, EMOTIONS[best] if average[best] >= self._rule.unsure_below else UNSURE

    def _label(self, probs: Array) -> str:
        best = int(probs.argmax())
        if self._held is None:
            self._held = best
        leads = best != self._held and probs[best] - probs[self._held] >= self._rule.switch_margin
        again = leads and best == self._challenger
        self._challenges = self._challenges + 1 if again else int(leads)
        self._challenger = best
        if self._challenges >= self._rule.switch_windows:
            self._held, self._challenges = best, 0
        self._claims = bool(probs[self._held] >= self._unsure_below())
        return EMOTIONS[self._held] if self._claims else UNSURE

    def _unsure_below(self) -> float:
        """Return the current limit of "unsure": without the margin for the first window."""
        if self._claims is None:
            return self._rule.unsure_below
        return self._rule.unsure_below + self._rule.unsure_margin * (-1 if self._claims else 1)
