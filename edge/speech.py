"""Is anybody speaking? A gate on the level above the background, with hysteresis."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.frontend import Array


@dataclass(frozen=True)
class SpeechGate:
    """When speech begins and ends."""

    above_background_db: float = 10.0
    """A frame holds sound when it is so far above the background ..."""
    faintest_dbfs: float = -65.0
    """... and at least so loud."""
    rise_db: float = 0.02
    """The background estimate falls at once and rises by so much each frame (2 dB a second)."""
    edge_frames: int = 4
    """Of so many frames the loudest counts: one that lost sound cuts short is no background."""
    no_sound_dbfs: float = -105.0
    """Below the noise of 16 bits: a muted microphone or lost sound, which tells nothing of the background."""
    enter_ms: int = 250
    """Speech begins after so much sound ..."""
    memory_ms: int = 500
    """... within so long."""
    leave_ms: int = 800
    """Speech ends after so long without sound."""
    hop_ms: int = 10


class SpeechDetector:
    """Follows one stream. Remembers the background level and the last `memory_ms`; `reset` forgets both."""

    def __init__(self, gate: SpeechGate) -> None:
        self._gate = gate
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._background = float("inf")
        self._newest: deque[float] = deque(maxlen=self._gate.edge_frames)
        self._recent: deque[bool] = deque(maxlen=self._gate.memory_ms // self._gate.hop_ms)
        self._quiet_ms = 0
        self._active = False

    def feed(self, levels: Array) -> NDArray[np.bool_]:
        """Take (T,) frame levels in dBFS and return whether each frame is part of speech, (T,)."""
        return np.array([self._frame(level) for level in levels.tolist()], bool)

    def _frame(self, level: float) -> bool:
        gate = self._gate
        if level > gate.no_sound_dbfs:
            self._newest.append(level)
            self._background = min(max(self._newest), self._background + gate.rise_db)
        sound = level > max(self._background + gate.above_background_db, gate.faintest_dbfs)
        self._recent.append(sound)
        self._quiet_ms = 0 if sound else self._quiet_ms + gate.hop_ms
        if self._active:
            self._active = self._quiet_ms < gate.leave_ms
        else:
            self._active = sum(self._recent) * gate.hop_ms >= gate.enter_ms
        return self._active
