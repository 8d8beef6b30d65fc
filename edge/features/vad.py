"""Voice activity detection: the probability of speech against thresholds, with hysteresis in time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.frontend import FrontEnd
from edge.features.silero_vad import PIECE, SileroVad, VoiceActivityModel
from edge.stream_buffer import StreamBuffer


@dataclass(frozen=True)
class VadConfig:
    """When speech begins and ends."""

    enter_probability: float = 0.5
    """A block becomes voice when its probability of speech is at least this ..."""
    leave_probability: float = 0.35
    """... and stops being voice when the probability is below this."""
    enter_ms: int = 250
    """Speech begins after this much voice ..."""
    memory_ms: int = 500
    """... within this time."""
    leave_ms: int = 800
    """Speech ends after this time without voice."""


class SpeechFlags(NamedTuple):
    """What the detector says of T frames."""

    speech: NDArray[np.bool_]
    """(T,) whether each frame is part of speech: the pauses within it, and `leave_ms` after it, too."""
    voice: NDArray[np.bool_]
    """(T,) whether each frame is voice itself."""


class SpeechDetector:
    """Tells for each frame of one stream whether it is part of speech.

    The model judges blocks of 512 samples (32 ms) counted from the start of the stream. The frames of the
    front end lie on another grid: frame k ends with sample `hop_length * k + win_length`, and takes the
    state of the latest complete block. So flags never wait for later samples, lag by less than a block,
    and do not depend on how the samples are divided for `feed`.

    Remembers less than a block of samples, the model's state and the last `memory_ms`; `reset` forgets
    them all, `end` only the speech under way.
    """

    def __init__(
        self,
        config: VadConfig,
        front_end: FrontEnd | None = None,
        *,
        voice: VoiceActivityModel | None = None,
    ) -> None:
        """Prepare a stream.

        Args:
            config: when speech begins and ends.
            front_end: defines the frames; the default constants if None.
            voice: returns the probability of speech in a block; Silero if None.
        """
        self._config = config
        self._front_end = front_end or FrontEnd()
        self._hop_ms = self._front_end.hop_length_ms
        self._voice = voice or SileroVad()
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._voice.reset()
        self._samples = StreamBuffer(np.zeros(0, np.float32))
        self._judged = 0
        self._frames = 0
        self._is_voice = False
        self.end()

    def end(self) -> None:
        """End the speech under way; new speech needs `enter_ms` of voice again. The stream goes on."""
        self._recent: deque[bool] = deque(maxlen=self._config.memory_ms // self._hop_ms)
        self._quiet_ms = 0
        self._active = False

    def feed(self, samples: Array) -> SpeechFlags:
        """Take (N,) samples at 16 kHz and return the flags of the T frames they complete."""
        self._samples.append(samples)
        flags: list[tuple[bool, bool]] = []
        while self._judged + PIECE <= self._samples.end:
            end = self._judged + PIECE
            flags += self._frames_before(end)
            self._is_voice = self._judge(self._samples[self._judged : end])
            self._judged = end
        self._samples.forget(self._judged)
        flags += self._frames_before(self._samples.end + 1)
        speech, voice = np.array(flags, bool).reshape(-1, 2).T
        return SpeechFlags(speech, voice)

    def _judge(self, block: Array) -> bool:
        config = self._config
        threshold = config.leave_probability if self._is_voice else config.enter_probability
        return self._voice(block) >= threshold

    def _frames_before(self, end: int) -> list[tuple[bool, bool]]:
        """Decide on the frames that end before a sample of the stream, given by its number."""
        due = self._front_end.frames_in(end - 1)
        flags = [(self._frame(), self._is_voice) for _ in range(due - self._frames)]
        self._frames = due
        return flags

    def _frame(self) -> bool:
        self._recent.append(self._is_voice)
        self._quiet_ms = 0 if self._is_voice else self._quiet_ms + self._hop_ms
        if self._active:
            self._active = self._quiet_ms < self._config.leave_ms
        else:
            self._active = sum(self._recent) * self._hop_ms >= self._config.enter_ms
        return self._active
