"""Sounds for tests, and a substitute voice activity model that decides by level."""

from __future__ import annotations

import functools

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip


class LoudVoice:
    """Judges a piece by its level alone: above -40 dBFS is voice."""

    def reset(self) -> None: ...

    def __call__(self, piece: Array) -> float:
        return 1.0 if np.sqrt(np.square(piece).mean()) > 0.01 else 0.0


def room(seconds: float, level: float = 1e-4) -> Array:
    """The noise of a quiet room."""
    samples = np.random.default_rng(1).standard_normal(round(16_000 * seconds))
    return (level * samples).astype(np.float32)


def tone(seconds: float, level: float = 0.1) -> Array:
    """A tone of 200 Hz in a quiet room."""
    time_s = np.arange(round(16_000 * seconds)) / 16_000
    wave = level * np.sqrt(2.0) * np.sin(2.0 * np.pi * 200.0 * time_s)
    sound: Array = wave.astype(np.float32) + room(seconds)
    return sound


@functools.cache
def _spoken() -> Array:
    spoken = read_clip(demo_clip())[8_000:40_000]
    loudest: Array = spoken / np.abs(spoken).max()
    return loudest


def speech(peak: float = 0.3, noise: float = 1e-4) -> Array:
    """Two seconds of synthesised speech with half a second of room before and after it."""
    spoken = np.concatenate([np.zeros(8_000, np.float32), peak * _spoken(), np.zeros(8_000, np.float32)])
    sound: Array = (spoken + room(len(spoken) / 16_000, noise)).astype(np.float32)
    return sound
