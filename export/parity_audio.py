"""The sounds on which an export is compared with the network: what ships, and recordings of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.features.network_input import NetworkInput
from edge.file_formats.manifest import manifest_rows, recording_path
from edge.inference.offline import full_windows, normalised_frames

MANIFEST_NAME: Final = "manifest.csv"
SUFFIXES: Final = frozenset({".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3"})
"""Of the files that are taken for recordings in a folder without a manifest."""
MOST_CLIPS: Final = 100
"""Compared on; of more, as many from all over the list."""
LONGEST_CLIP_S: Final = 10.0
"""Of each clip, the beginning."""
STEP_FRAMES: Final = 24
"""From window to window: 240 ms, the recogniser's own step, and three features."""


def find_clips(path: Path) -> list[Path]:
    """List at most `MOST_CLIPS` recordings of a manifest, or of a folder.

    Args:
        path: a CSV file with a column path, a folder that holds manifest.csv, or one of recordings.

    Raises:
        UsageError: there is no such path, or nothing in it.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}", remedy="name a folder of sound files, or a manifest .csv")
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    found = _listed(manifest) if manifest.exists() or not path.is_dir() else _recordings(path)
    if not found:
        raise UsageError(
            f"{path} names no recordings", remedy="name a folder of sound files, or a manifest .csv"
        )
    picked = np.linspace(0, len(found) - 1, min(len(found), MOST_CLIPS)).round().astype(int)
    return [found[index] for index in picked]


def read_sounds(clips: Sequence[Path]) -> Iterator[Array]:
    """Yield the sound that ships, then the beginning of each clip: (N,) samples each.

    Raises:
        SourceError: a clip cannot be read.
    """
    yield shipped_sound()
    for clip in clips:
        yield read_clip(clip)[: round(LONGEST_CLIP_S * SAMPLE_RATE)]


def shipped_sound() -> Array:
    """Return the demo clip, then a second of noise as loud as speech."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    return np.concatenate([read_clip(demo_clip()), noise])


def filling(samples: Array, front_end: FrontEnd) -> Array:
    """Return a sound, repeated until it fills a window."""
    return np.resize(samples, max(len(samples), front_end.samples_in(front_end.window_frames)))


def windows_of(samples: Array, front_end: FrontEnd, normaliser: NetworkInput) -> Array:
    """Return the network's input for each window of a sound that fills one or more: (B, T, F)."""
    return full_windows(normalised_frames(samples, front_end, normaliser), front_end, STEP_FRAMES)


def _listed(manifest: Path) -> list[Path]:
    rows = manifest_rows(manifest, ("path",))
    return list(dict.fromkeys(recording_path(row, manifest.parent) for _, row in rows))


def _recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
