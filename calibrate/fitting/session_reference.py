"""How a calibration session sounded to the recogniser: the reference of `edge.recognition.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.events import Drift
from edge.model.profile import Reference
from edge.recognition.drift import summed_up
from edge.recognition.recognizer import Recognizer

PAUSE_S: Final = 0.6
"""Between the takes of a session, when it is heard as one stream."""

ROOM: Final = 1e-4
"""Amplitude of the noise in it: a quiet room, for nothing that is heard is digitally silent."""


def session_reference(recognizer: Recognizer, sounds: Sequence[Array]) -> Reference | None:
    """Hear a session's takes as one stream, as the recogniser will hear the speaker, and sum it up.

    One stream, for windows that begin or end in a pause are part of what is normal.

    Args:
        recognizer: with the speaker's profile; it is reset.
        sounds: (N,) samples at 16 kHz of each take.
    """
    notes, watch = StatisticsCollector(), recognizer.watch
    recognizer.watch = notes
    try:
        recognizer.reset()
        recognizer.feed(_as_one_stream(sounds, recognizer.front_end.sample_rate))
        return summed_up(notes.seen)
    finally:
        recognizer.watch = watch
        recognizer.reset()


class StatisticsCollector:
    """Keeps the figures of all windows. For sessions, which end; `reset` forgets them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self.seen: list[Array] = []

    def feed(self, time_s: float, seen: Array) -> Drift | None:
        """Keep the figures."""
        self.seen.append(seen)
        return None


def _as_one_stream(sounds: Sequence[Array], sample_rate: int) -> Array:
    pause = np.zeros(round(PAUSE_S * sample_rate), np.float32)
    level = [take - take.mean() for take in sounds]  # next to a pause, an offset would be a step
    sound: Array = np.concatenate([part for take in level for part in (pause, take)] or [pause])
    sound += np.float32(ROOM) * np.random.default_rng(0).standard_normal(len(sound), np.float32)
    return sound
