"""From the posteriors of windows to a label that people can follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.arrays import Array
from edge.labels import EMOTIONS, UNSURE


@dataclass(frozen=True)
class DecisionRule:
    """How readily the label changes, and when none is claimed.

    What a change of emotion takes, apart from computing: its sound has to fill most of the window of
    3 s; the smoothing follows a step to 63 % within `smoothing_s` and to 90 % within 2.3 times that
    (1.4 s and 3.2 s); and a lead has to last `switch_windows` steps (0.48 s at 240 ms). The first label
    of an utterance takes none of them. Only windows with speech count, so pauses do not advance time.
    """

    smoothing_s: float = 1.4
    """Time constant of the exponential smoothing of posteriors; 0 for none."""
    unsure_below: float = 0.4
    """No emotion is claimed while its smoothed probability is lower, in [0, 1) ..."""
    unsure_margin: float = 0.05
    """... by more than this, once one is claimed; and after "unsure" it has to be higher by this."""
    switch_margin: float = 0.1
    """Another emotion takes over when it leads by so much ..."""
    switch_windows: int = 2
    """... in so many windows in a row, the same emotion each time."""


class Decision:
    """Follows one utterance.

    Remembers the smoothed posterior, the label, whether it is claimed and who challenges it, and the
    sum of posteriors since the utterance began; `reset` forgets them all.
    """

    def __init__(self, rule: DecisionRule, step_s: float) -> None:
        self._rule = rule
        self._keep = math.exp(-step_s / rule.smoothing_s) if rule.smoothing_s > 0 else 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the utterance."""
        self.smoothed: Array | None = None
        self.windows = 0
        self._sum = np.zeros(len(EMOTIONS), np.float64)
        self._held: int | None = None
        self._challenger: int | None = None
        self._challenges = 0
        self._claims: bool | None = None

    def update(self, probs: Array) -> str:
        """Take the posterior of a window with speech, (C,), and return the label."""
        self._sum += probs
        self.windows += 1
        if self.smoothed is None:
            self.smoothed = probs.copy()
        else:
            self.smoothed = self._keep * self.smoothed + (1.0 - self._keep) * probs
        return self._label(self.smoothed)

    def average(self) -> tuple[Array, str]:
        """Return the average posterior of the utterance, (C,), and its label.

        Only to be asked once there was a window.
        """
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
        self._claims = bool(probs[self._held] >= self._least())
        return EMOTIONS[self._held] if self._claims else UNSURE

    def _least(self) -> float:
        """Return the probability that a claim takes now: the first window's is the limit itself."""
        if self._claims is None:
            return self._rule.unsure_below
        return self._rule.unsure_below + self._rule.unsure_margin * (-1 if self._claims else 1)
