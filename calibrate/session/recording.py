"""Recording of one take, from the onset of voice to the pause after its end, and of ordinary speech."""

from __future__ import annotations

from enum import Enum
from typing import Final

import numpy as np

from calibrate.quality import VoiceCounter
from calibrate.take_limits import LONGEST_PROMPTED_S
from edge.arrays import SAMPLE_RATE, Array
from edge.features.frontend import FrontEnd
from edge.features.silero_vad import VoiceActivityModel
from edge.features.vad import SpeechDetector, VadConfig

VAD: Final = VadConfig(leave_ms=1200)
"""The pause that ends a take is longer than pauses inside a sentence."""

MARGIN_S: Final = 0.3
"""Sound kept before and after the voice; the quality gate measures the background there."""

SILENCE_TIMEOUT_S: Final = 8.0
"""The take ends after this time without voice."""

ORDINARY_TARGET_S: Final = 25.0
"""Duration of voice after which the recording of ordinary speech ends by itself."""

ORDINARY_TIMEOUT_S: Final = 120.0
"""Longest recording of ordinary speech, with its pauses."""

FRONT_END: Final = FrontEnd()
"""Defines the frames for which speech is detected; not the bundle's, since takes belong to no bundle."""


class RecorderState(Enum):
    """State of the recorder."""

    WAITING = "waiting"
    """No voice was detected yet."""
    SPEAKING = "speaking"
    DONE = "done"


class Recorder:
    """Records one take; blocks that are fed after its end are ignored.

    Remembers the take, at most `SILENCE_TIMEOUT_S` plus `LONGEST_PROMPTED_S` of sound.
    """

    def __init__(self, voice: VoiceActivityModel | None = None) -> None:
        """Prepare to record.

        Args:
            voice: voice activity model; Silero if None.
        """
        self.state = RecorderState.WAITING
        self._detector = SpeechDetector(VAD, FRONT_END, voice=voice)
        self._filter = FRONT_END.input_filter()
        self._blocks: list[Array] = []
        self._heard = self._frames = self._start = 0
        self._end: int | None = None

    @property
    def seconds(self) -> float:
        """Time since the start of the take; 0 before voice was detected."""
        return 0.0 if self.state is RecorderState.WAITING else (self._heard - self._start) / SAMPLE_RATE

    @property
    def sound(self) -> Array:
        """The take so far, (N,) samples; all samples if no voice was detected."""
        return np.concatenate([np.zeros(0, np.float32), *self._blocks])[self._start : self._end]

    def feed(self, samples: Array) -> RecorderState:
        """Record the next (N,) samples at 16 kHz."""
        if self.state is RecorderState.DONE:
            return self.state
        self._blocks.append(samples)
        self._heard += len(samples)
        for speaks in self._detector.feed(self._filter.feed(samples)).speech.tolist():
            self._frames += 1
            self._apply(speaks)
        if self._out_of_time():
            self.stop()
        return self.state

    def stop(self) -> None:
        """End the take here."""
        self.state = RecorderState.DONE

    def _out_of_time(self) -> bool:
        if self.state is RecorderState.WAITING:
            return self._heard >= SILENCE_TIMEOUT_S * SAMPLE_RATE
        return self.seconds > LONGEST_PROMPTED_S + 1.0  # long enough for the quality gate to refuse it

    def _apply(self, speaks: bool) -> None:
        """Apply the voice activity of the next frame."""
        now = FRONT_END.samples_in(self._frames)
        if self.state is RecorderState.WAITING and speaks:
            self.state = RecorderState.SPEAKING
            self._start = max(0, now - _samples(VAD.memory_ms / 1000 + MARGIN_S))
        elif self.state is RecorderState.SPEAKING and not speaks:
            self._end = now - _samples(VAD.leave_ms / 1000 - MARGIN_S)
            self.stop()


class OrdinaryRecorder:
    """Records ordinary speech; blocks that are fed after its end are ignored.

    Remembers the recording, at most `ORDINARY_TIMEOUT_S` of sound.
    """

    def __init__(self, voice: VoiceActivityModel | None = None) -> None:
        """Prepare to record.

        Args:
            voice: voice activity model; Silero if None.
        """
        self.state = RecorderState.WAITING
        self._voice = VoiceCounter(voice)
        self._blocks: list[Array] = []

    @property
    def voice_s(self) -> float:
        """Duration of voice so far."""
        return self._voice.seconds

    @property
    def sound(self) -> Array:
        """The recording so far, (N,) samples."""
        return np.concatenate([np.zeros(0, np.float32), *self._blocks])

    def feed(self, samples: Array) -> RecorderState:
        """Record the next (N,) samples at 16 kHz."""
        if self.state is RecorderState.DONE:
            return self.state
        self._blocks.append(samples)
        self._voice.feed(samples)
        if self.voice_s > 0.0:
            self.state = RecorderState.SPEAKING
        recorded = sum(map(len, self._blocks))
        if self.voice_s >= ORDINARY_TARGET_S or recorded >= _samples(ORDINARY_TIMEOUT_S):
            self.stop()
        return self.state

    def stop(self) -> None:
        """End the recording here."""
        self.state = RecorderState.DONE


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
