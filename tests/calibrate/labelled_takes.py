"""Labelled takes of a synthetic speaker, and their manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from edge.arrays import Array
from edge.labels import EMOTIONS


def voice(emotion: int, seed: int) -> Array:
    """One second of synthetic sound with a spectrum and rhythm for each emotion."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(16_000) / 16_000
    pitch = (120, 300, 700, 2000)[emotion] * (1.0 + 0.05 * draw.random())
    hiss = (0.0, 0.3, 0.1, 1.0)[emotion] * draw.standard_normal(16_000)
    buzz = np.sign(np.sin(2.0 * np.pi * pitch * time_s)) + hiss
    rhythm = 0.6 + 0.4 * np.sin(2.0 * np.pi * (1, 6, 2, 4)[emotion] * time_s)
    return (0.1 * rhythm * buzz).clip(-1, 1).astype(np.float32)


def session(folder: Path, labels: Sequence[int], sounds: Sequence[Array]) -> Path:
    """Write sounds and their manifest."""
    lines = ["path,emotion"]
    for index, (label, sound) in enumerate(zip(labels, sounds, strict=True)):
        soundfile.write(folder / f"{index}.wav", sound, 16_000)
        lines.append(f"{index}.wav,{EMOTIONS[label]}")
    (folder / "session.csv").write_text("\n".join(lines) + "\n")
    return folder / "session.csv"


TWELVE = [0, 1, 2, 3] * 3


def much_the_same(sound: Array) -> list[Array]:
    """Twelve sounds that differ by 1 % in level: identical ones are refused."""
    return [np.float32(1.0 - 0.01 * index) * sound for index in range(12)]
