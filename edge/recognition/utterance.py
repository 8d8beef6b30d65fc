"""Utterances: speech flags and window posteriors to `Speech` and `Utterance` events."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.events import Event, Speech, Utterance
from edge.features.vad import VadConfig
from edge.labels import EMOTIONS, UNSURE
from edge.recognition.decision import Decision, DecisionRule


class UtteranceTracker:
    """Follows the utterances of one stream.

    Remembers when the current utterance began, and its `Decision`; `reset` forgets both.
    """

    def __init__(self, rule: DecisionRule, vad: VadConfig, step_s: float) -> None:
        """Prepare a stream.

        Args:
            rule: turns posteriors into a label.
            vad: how late the speech flag follows the beginning and the end of speech.
            step_s: seconds from one window to the next.
        """
        self._vad = vad
        self._decision = Decision(rule, step_s)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._decision.reset()
        self._began_s: float | None = None

    @property
    def active(self) -> bool:
        """Whether an utterance is under way."""
        return self._began_s is not None

    @property
    def judged(self) -> bool:
        """Whether the current utterance has had a window with speech."""
        return self._decision.windows > 0

    def changes(self, flags: NDArray[np.bool_]) -> list[int]:
        """Return after how many of the next (T,) flags speech has just begun or ended."""
        before = np.concatenate([[self.active], flags[:-1]])
        return [int(offset) + 1 for offset in np.flatnonzero(flags != before)]

    def begin(self, time_s: float) -> list[Event]:
        """Begin an utterance where the speech flag rises; it started up to `memory_ms` earlier."""
        self._began_s = max(0.0, time_s - self._vad.memory_ms / 1000.0)
        self._decision.reset()
        return [Speech(time_s=time_s, active=True)]

    def end(self, time_s: float) -> list[Event]:
        """End the utterance where the speech flag falls, `leave_ms` after the last voice."""
        return self._end(time_s, time_s - self._vad.leave_ms / 1000.0)

    def flush(self, time_s: float) -> list[Event]:
        """End the utterance under way, if any, with the stream."""
        return self._end(time_s, time_s) if self.active else []

    def decide(self, probs: Array, *, speech: bool, full: bool = True) -> tuple[Array, str]:
        """Take the (C,) posterior of the next window and return the smoothed one and the label.

        A window without speech does not count: its own posterior is returned, and "unsure".

        Args:
            probs: of the window.
            speech: whether it has enough speech.
            full: whether it has its full length.
        """
        if not speech:
            return probs, UNSURE
        label = self._decision.update(probs, full=full)
        return self._decision.smoothed if self._decision.smoothed is not None else probs, label

    def _end(self, time_s: float, end_s: float) -> list[Event]:
        events: list[Event] = [Speech(time_s=time_s, active=False)]
        if self.judged and self._began_s is not None:
            average, label = self._decision.average()
            events.append(
                Utterance(
                    start_s=self._began_s,
                    end_s=max(end_s, self._began_s),
                    probs=by_emotion(average),
                    label=label,
                    windows=self._decision.windows,
                )
            )
        self._began_s = None
        return events


def by_emotion(probs: Array) -> dict[str, float]:
    """Name (C,) probabilities."""
    return {emotion: float(prob) for emotion, prob in zip(EMOTIONS, probs, strict=True)}
