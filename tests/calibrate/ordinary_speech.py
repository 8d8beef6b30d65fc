"""Synthetic ordinary speech, and a bundle whose head reads a speaker's baseline."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.model.bundle import Bundle


@functools.cache
def _spoken() -> Array:
    spoken = read_clip(demo_clip())[8_000:22_400]
    loudest: Array = spoken / np.abs(spoken).max()
    return loudest


def ordinary(seconds: float = 14.0, *, peak: float = 0.3, faster: float = 1.0, seed: int = 0) -> Array:
    """One person's speech in a quiet room; `faster` than 1 raises the voice like a tape."""
    voice = np.interp(np.arange(0, len(_spoken()), faster), np.arange(len(_spoken())), _spoken())
    size = round(16_000 * seconds)
    noise = 1e-4 * np.random.default_rng(seed).standard_normal(size)
    sound: Array = (peak * np.resize(voice, size) + noise).astype(np.float32)
    return sound


def with_baseline(bundle: Bundle, scale: float = 1.0) -> Bundle:
    """Return a bundle whose head reads the baseline with random weights."""
    shape = bundle.head.fc1_weight.shape
    weight = scale * np.random.default_rng(3).standard_normal(shape) / shape[1] ** 0.5
    return replace(bundle, head=replace(bundle.head, baseline_weight=weight.astype(np.float32)))
