"""Speak the demo clip with espeak-ng: `python tests/make_demo.py [PATH]` writes edge/demo.flac.

The clip is one made-up voice in four manners. It shows that the program runs; that a synthesiser
said it makes it no measure of how well emotions are recognised.
"""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

DEMO = Path(__file__).parents[1] / "edge" / "demo.flac"

SAMPLE_RATE = 16_000
"""Hz."""
PAUSE_S = 0.7
"""Between the sentences: long enough to end an utterance. Half of it before the first and after the last."""
ROOM_DBFS = -66.0
"""Root mean square of the noise under everything: a microphone never hears digital zeros."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and the manner it is spoken in, in the units of espeak-ng."""

    text: str
    voice: str
    words_per_minute: int
    pitch: int
    """0 to 99, 50 is the voice's own."""
    pitch_range: str
    """SSML prosody range: x-low to x-high."""
    amplitude: int
    """0 to 200, 100 is the usual one."""


SENTENCES = (
    Sentence("The train to the coast leaves at ten past four.", "en-gb", 165, 45, "medium", 90),
    Sentence("We found the tickets, and the seats are wonderful!", "en-gb+m1", 195, 85, "x-high", 130),
    Sentence("I waited all afternoon, but nobody came.", "en-gb+m3", 120, 20, "x-low", 45),
    Sentence("I have told you twice, shut that door!", "en-gb+m7", 205, 65, "high", 190),
)


def speak(sentence: Sentence) -> NDArray[np.float64]:
    """Synthesise (N,) samples of about [-1, 1] at `SAMPLE_RATE`, from the first sound to the last."""
    markup = f'<speak><prosody range="{sentence.pitch_range}">{sentence.text}</prosody></speak>'
    manner = ["-s", sentence.words_per_minute, "-p", sentence.pitch, "-a", sentence.amplitude]
    command = ["espeak-ng", "-m", "-v", sentence.voice, *map(str, manner), "--stdout", markup]
    recording = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(recording))
    return _trim(soxr.resample(samples, rate, SAMPLE_RATE))


def demo_clip() -> NDArray[np.float64]:
    """Join the sentences, as loud as they can be without clipping, in a quiet room."""
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE))
    half = pause[: len(pause) // 2]
    first, *others = [speak(sentence) for sentence in SENTENCES]
    clip = np.concatenate([half, first, *(part for other in others for part in (pause, other)), half])
    noise = np.random.default_rng(0).standard_normal(len(clip)) * 10.0 ** (ROOM_DBFS / 20.0)
    joined: NDArray[np.float64] = clip * (0.9 / np.abs(clip).max()) + noise
    return joined


def _trim(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut the silence that espeak-ng leaves before and after a sentence."""
    heard = np.flatnonzero(np.abs(samples) > 1e-3)
    return samples[heard[0] : heard[-1] + 1]


def espeak_version() -> str:
    """Name the synthesiser; another version speaks a slightly different clip."""
    answer = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    return answer.partition("  ")[0].strip()


def write(path: Path) -> None:
    """Write the clip as 16-bit FLAC, with the synthesiser's version in its comment."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        file.comment = f"made by tests/make_demo.py with {espeak_version()}"
        file.write(demo_clip())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO)
