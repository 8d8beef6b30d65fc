"""Cutting one take out of the stream: from the first voice to the pause after the last."""

from __future__ import annotations

from enum import Enum
from typing import Final

import numpy as np

from calibrate.session.quality import LONGEST_S
from edge.arrays import SAMPLE_RATE, Array
from edge.features.frontend import FrontEnd
from edge.features.silero_vad import VoiceActivityModel
from edge.features.vad import SpeechDetector, VadConfig

GATE: Final = VadConfig(leave_ms=1200)
"""A pause inside a sentence is shorter than the one that ends a take."""

MARGIN_S: Final = 0.3
"""Of the room before and after the voice: the quality gate measures the background there."""

PATIENCE_S: Final = 8.0
"""Without voice for so long, the take ends by itself."""

FRONT_END: Final = FrontEnd()
"""Defines the frames for which speech is detected; not the bundle's, since takes belong to no bundle."""


class Progress(Enum):
    """How far a take has come."""

    WAITING = "waiting"
    """Nobody has spoken yet."""
    SPEAKING = "speaking"
    DONE = "done"


class Recorder:
    """Takes blocks of one take until it is done; what comes after that is ignored.

    Remembers the whole take, at most `PATIENCE_S` and `LONGEST_S` of sound. One take each.
    """

    def __init__(self, voice: VoiceActivityModel | None = None) -> None:
        """Prepare to record.

        Args:
            voice: what judges the sound; Silero if None.
        """
        self.progress = Progress.WAITING
        self._detector = SpeechDetector(GATE, FRONT_END, voice=voice)
        self._filter = FRONT_END.input_filter()
        self._pieces: list[Array] = []
        self._heard = self._frames = self._start = 0
        self._end: int | None = None

    @property
    def seconds(self) -> float:
        """How long somebody has been speaking."""
        return 0.0 if self.progress is Progress.WAITING else (self._heard - self._start) / SAMPLE_RATE

    @property
    def sound(self) -> Array:
        """The take so far, (N,) samples; all that was heard while nobody has spoken."""
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])[self._start : self._end]

    def feed(self, samples: Array) -> Progress:
        """Take the next (N,) samples at 16 kHz."""
        if self.progress is Progress.DONE:
            return self.progress
        self._pieces.append(samples)
        self._heard += len(samples)
        for speaks in self._detector.feed(self._filter.feed(samples)).tolist():
            self._frames += 1
            self._follow(speaks)
        if self._out_of_time():
            self.stop()
        return self.progress

    def stop(self) -> None:
        """End the take where it is."""
        self.progress = Progress.DONE

    def _out_of_time(self) -> bool:
        if self.progress is Progress.WAITING:
            return self._heard >= PATIENCE_S * SAMPLE_RATE
        return self.seconds > LONGEST_S + 1.0  # past doubt: the quality gate shall refuse it

    def _follow(self, speaks: bool) -> None:
        """Take what is said of the frame that ends `now`."""
        now = FRONT_END.samples_in(self._frames)
        if self.progress is Progress.WAITING and speaks:
            self.progress = Progress.SPEAKING
            self._start = max(0, now - _samples(GATE.memory_ms / 1000 + MARGIN_S))
        elif self.progress is Progress.SPEAKING and not speaks:
            self._end = now - _samples(GATE.leave_ms / 1000 - MARGIN_S)
            self.stop()


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
