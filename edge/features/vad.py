"""Is anybody speaking? The probability of speech, held against thresholds with hysteresis in time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.silero_vad import PIECE, SileroVad, VoiceActivityModel
from edge.stream_buffer import StreamBuffer


@dataclass(frozen=True)
class VadConfig:
    """When speech begins and ends."""

    enter_probability: float = 0.5
    """Sound becomes voice when speech is so probable in it ..."""
    leave_probability: float = 0.35
    """... and stops being voice when it is less probable than this."""
    enter_ms: int = 250
    """Speech begins after so much voice ..."""
    memory_ms: int = 500
    """... within so long."""
    leave_ms: int = 800
    """Speech ends after so long without voice."""
    hop_ms: int = 10
    """From one frame of the front-end to the next."""


class SpeechDetector:
    """Follows one stream.

    Voice is judged in pieces of 512 samples (32 ms) counted from the start of the stream. The frames
    of the front-end lie on another grid: frame k ends with sample `hop * k + frame_length`, and what
    is said of it is what is known then, by the newest piece that is complete. So flags never wait for
    sound to come, lag behind it by less than a piece, and do not depend on the blocks.

    Remembers less than a piece of samples, the network's state and the last `memory_ms`; `reset`
    forgets them all, `end` only that somebody spoke.
    """

    def __init__(
        self,
        gate: VadConfig,
        *,
        frame_length: int = 640,
        hop_length: int = 160,
        voice: VoiceActivityModel | None = None,
    ) -> None:
        """Prepare a stream.

        Args:
            gate: when speech begins and ends.
            frame_length: samples of a frame of the front-end, at least a piece.
            hop_length: samples from one frame to the next.
            voice: what judges the pieces; Silero if None.
        """
        self._gate = gate
        self._frame_length, self._hop_length = frame_length, hop_length
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
        """End the speech under way: what follows has to be speech anew. The stream goes on."""
        self._recent: deque[bool] = deque(maxlen=self._gate.memory_ms // self._gate.hop_ms)
        self._quiet_ms = 0
        self._active = False

    def feed(self, samples: Array) -> NDArray[np.bool_]:
        """Take (N,) samples at 16 kHz and return whether each frame they complete is part of speech, (T,)."""
        self._samples.append(samples)
        flags = []
        while self._judged + PIECE <= self._samples.end:
            end = self._judged + PIECE
            flags += self._frames_before(end)
            self._is_voice = self._judge(self._samples[self._judged : end])
            self._judged = end
        self._samples.forget(self._judged)
        flags += self._frames_before(self._samples.end + 1)
        return np.array(flags, bool)

    def _judge(self, piece: Array) -> bool:
        gate = self._gate
        return self._voice(piece) >= (gate.leave_probability if self._is_voice else gate.enter_probability)

    def _frames_before(self, end: int) -> list[bool]:
        """Decide on the frames that end before so many samples of the stream."""
        due = max(0, (end - 1 - self._frame_length) // self._hop_length + 1)
        flags = [self._frame() for _ in range(due - self._frames)]
        self._frames = due
        return flags

    def _frame(self) -> bool:
        gate = self._gate
        self._recent.append(self._is_voice)
        self._quiet_ms = 0 if self._is_voice else self._quiet_ms + gate.hop_ms
        if self._active:
            self._active = self._quiet_ms < gate.leave_ms
        else:
            self._active = sum(self._recent) * gate.hop_ms >= gate.enter_ms
        return self._active
