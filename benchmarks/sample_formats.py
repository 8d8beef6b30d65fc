"""Detection rate and false alarms of the sample format check on raw input.

    python benchmarks/sample_formats.py FOLDER ... [--clips 100]

Every sound file below the folders is sent as raw s16le mono, which must raise no warning. A number
(--clips) of the longest files is also sent in each wrong format, and once as compressed bytes. Files with
too little sound for a verdict do not count. The last column is the share of correctly named formats.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.file_formats.sample_format import (
    ACTIVE_RMS,
    DECIDED_AFTER,
    NOISE,
    PAIRS,
    WINDOW_BYTES,
    SampleFormatCheck,
)

ENDINGS: Final = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
SEPARATION_S: Final = 4 / 16_000
"""Delay between two microphones 8 cm apart."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=100)
    options = parser.parse_args()
    for folder in options.folders:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS)
        doubted = Counter(found(encoded(read_clip(path))) for path in paths)
        print(f"{folder}: {len(paths)} files as declared, {len(paths) - doubted[None]} doubted")
    drawn = [path for folder in options.folders for path in longest(folder, options.clips)]
    sounds = [sound for path in drawn if has_enough(sound := read_clip(path))]
    print(f"{'sent as':<28}  files  noticed  named right")
    for name, expected, sent in WRONG:
        report(name, expected, [found(sent(sound)) for sound in sounds])
    files = [
        data for path in drawn if len(data := path.read_bytes()[4_096:]) > DECIDED_AFTER[0] * WINDOW_BYTES
    ]
    report("compressed bytes", NOISE, [found(data) for data in files])


def longest(folder: Path, count: int) -> list[Path]:
    """List the largest files below a folder."""
    paths = [path for path in folder.rglob("*") if path.suffix in ENDINGS]
    return sorted(paths, key=lambda path: path.stat().st_size)[-count:]


def has_enough(sound: Array) -> bool:
    """Tell whether a sound is long enough for a first verdict, as s16le and as 8-bit samples."""
    size = WINDOW_BYTES
    windows = sound[: len(sound) // size * size].reshape(-1, size)
    return bool(np.count_nonzero(windows.std(axis=1) >= ACTIVE_RMS) >= DECIDED_AFTER[0])


def report(name: str, expected: str, said: list[str | None]) -> None:
    """Print a row."""
    noticed = sum(answer is not None for answer in said)
    print(f"{name:<28}  {len(said):5}  {noticed / len(said):7.1%}  {said.count(expected) / len(said):11.1%}")


def found(data: bytes) -> str | None:
    """Return the verdict of the check on a whole stream."""
    return SampleFormatCheck().feed(data)


def encoded(sound: Array, subtype: str = "PCM_16", endian: str = "LITTLE") -> bytes:
    """Write (N,) or (N, channels) samples without a header."""
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, format="RAW", subtype=subtype, endian=endian)
    return file.getvalue()


def pair(first: float, second: float) -> Callable[[Array], bytes]:
    """Return an encoder that interleaves a sound with itself at two levels."""
    return lambda sound: encoded(np.stack([first * sound, second * sound], axis=1))


def two_microphones(sound: Array) -> bytes:
    """Interleave a sound with a delayed, quieter copy, each with microphone noise."""
    heard = np.stack([sound, 0.8 * np.roll(sound, round(SEPARATION_S * 16_000))], axis=1)
    noisy: Array = (heard + np.random.default_rng(0).normal(0.0, 0.002, heard.shape)).astype(np.float32)
    return encoded(noisy)


WRONG: Final[list[tuple[str, str, Callable[[Array], bytes]]]] = [
    ("big-endian 16-bit", "big-endian 16-bit samples", lambda sound: encoded(sound, "PCM_16", "BIG")),
    ("24-bit", "packed 24-bit samples", lambda sound: encoded(sound, "PCM_24")),
    ("32-bit", PAIRS, lambda sound: encoded(sound, "PCM_32")),
    ("32-bit floats", "32-bit floats", lambda sound: encoded(sound, "FLOAT")),
    ("32-bit floats, big-endian", "big-endian 32-bit floats", lambda sound: encoded(sound, "FLOAT", "BIG")),
    ("64-bit floats", "64-bit floats", lambda sound: encoded(sound, "DOUBLE")),
    ("8-bit unsigned", "unsigned 8-bit samples", lambda sound: encoded(sound, "PCM_U8")),
    ("8-bit signed", "signed 8-bit samples", lambda sound: encoded(sound, "PCM_S8")),
    ("mu-law", "mu-law", lambda sound: encoded(sound, "ULAW")),
    ("A-law", "A-law", lambda sound: encoded(sound, "ALAW")),
    ("two equal channels", PAIRS, pair(1.0, 1.0)),
    ("two channels, one silent", PAIRS, pair(1.0, 0.0)),
    ("two channels, opposite phase", PAIRS, pair(1.0, -1.0)),
    ("two microphones", PAIRS, two_microphones),
]

if __name__ == "__main__":
    main()
