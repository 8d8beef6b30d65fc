"""Comparison of voice activity detectors: error rates in noise, and CPU time.

    python benchmarks/voice_activity.py [--data FOLDER] [--clips 150]

Clips are drawn with a fixed seed, equally from each corpus, with a second of near silence before and after. A
frame of 10 ms is speech where the clean clip, smoothed over 50 ms, is within 35 dB of its peak. Noise (white,
pink, and babble: the sum of seven other clips) is added at given ratios to the power of the speech. Frame
error, miss and false alarm count the detector's decisions per frame; "missed" (clips without any detected
speech) and "claimed" (share of the time) are after the deployed hysteresis.

energy   10 dB above a background estimate that follows the level: the detector of older versions
webrtc   the WebRTC project's Gaussian mixtures, by mode: webrtcvad-wheels
silero   Silero VAD 5 in onnxruntime, as deployed
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.features.silero_vad import PIECE, SileroVad
from edge.features.vad import SpeechDetector, VadConfig
from train.corpora import Clip, read_corpus

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Judge = Callable[[Array], Flags]
"""(N,) samples to N // 160 decisions."""

DATA: Final = Path(os.environ.get("MMTL_DATA", "../shared/data"))
RATE: Final = 16_000
HOP: Final = 160
SPEECH_WITHIN_DB: Final = 35.0
RATIOS_DB: Final = (20, 10, 5, 0)
FAINT: Final = 10.0 ** (-85 / 20)
"""RMS of the noise of a good recorder, for the seconds before and after a clip."""
ALONE_DBFS: Final = -40.0
TALKERS: Final = 7


@dataclass
class Counts:
    """Counts of a detector's decisions under one condition, in frames of 10 ms."""

    pieces: int = 0
    speech: int = 0
    misses: int = 0
    alarms: int = 0
    claimed: int = 0
    clips: int = 0
    missed: int = 0
    spent_s: float = 0.0

    def add(self, truth: Flags, said: Flags, spent_s: float) -> None:
        """Count one clip."""
        claimed = held(said)
        self.pieces += len(truth)
        self.speech += int(truth.sum())
        self.misses += int((truth & ~said).sum())
        self.alarms += int((said & ~truth).sum())
        self.claimed += int(claimed.sum())
        self.clips += 1
        self.missed += not claimed.any()
        self.spent_s += spent_s

    def row(self) -> str:
        """Return the figures in percent, and CPU milliseconds for a second of sound."""
        figures = [
            percent(self.misses + self.alarms, self.pieces),
            percent(self.misses, self.speech),
            percent(self.alarms, self.pieces - self.speech),
            percent(self.missed, self.clips if self.speech else 0),
            percent(self.claimed, self.pieces),
            f"{1000 * self.spent_s / (self.pieces * HOP / RATE):7.2f}",
        ]
        return "  ".join(figures)


class Told:
    """A voice activity model that returns given decisions, to apply the hysteresis alone."""

    def reset(self) -> None:
        """Keep the state: there is none."""

    def __call__(self, piece: Array) -> float:
        """Return the decision that the block carries."""
        return float(piece[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--clips", type=int, default=150)
    options = parser.parse_args()
    if options.data == DATA and not (DATA / "manifest.csv").is_file():
        print(f"skipped: no recordings in {DATA}: set MMTL_DATA, or give --data FOLDER")
        return
    sounds = [read_clip(clip.path) for clip in drawn(read_corpus(options.data), options.clips)]
    judges: dict[str, Judge] = {
        "energy": energy,
        **{f"webrtc {mode}": webrtc(mode) for mode in (1, 2, 3)},
        "silero": silero,
    }
    counts: dict[tuple[str, str], Counts] = defaultdict(Counts)
    for index in range(len(sounds)):
        for condition, sound, truth in conditions(sounds, index):
            for name, judge in judges.items():
                began = time.process_time()
                said = judge(sound)
                counts[condition, name].add(truth, said, time.process_time() - began)
    print(f"{len(sounds)} clips; {platform.machine()}, Python {platform.python_version()}, one thread")
    print(f"{'':22}  error   miss  alarm missed claimed  CPU ms a second")
    for (condition, name), found in counts.items():
        print(f"{condition:13}{name:9}{found.row()}")


def conditions(sounds: Sequence[Array], index: int) -> Iterator[tuple[str, Array, Flags]]:
    """Yield a clip under each condition: its name, (N,) samples, N // 160 truths."""
    generator = np.random.default_rng(index)
    pause = np.zeros(RATE)
    clean = np.concatenate([pause, sounds[index], pause])
    clean += FAINT * generator.standard_normal(len(clean))
    truth = speech_of(clean)
    yield "clean", clean.astype(np.float32), truth
    speech_power = float(power(clean)[truth].mean())
    nothing = np.zeros_like(truth)
    for name, noise in noises(sounds, index, len(clean), generator):
        for ratio in RATIOS_DB:
            scale = np.sqrt(speech_power / 10 ** (ratio / 10))
            yield f"{name} {ratio} dB", (clean + scale * noise).astype(np.float32), truth
        yield f"{name} alone", (10 ** (ALONE_DBFS / 20) * noise).astype(np.float32), nothing
    for name, noise in disturbances(len(clean), generator):
        yield name, noise.astype(np.float32), nothing


def noises(
    sounds: Sequence[Array], index: int, count: int, generator: np.random.Generator
) -> Iterator[tuple[str, Floats]]:
    """Yield noises of unit power by name."""
    white = generator.standard_normal(count)
    spectrum = np.fft.rfft(generator.standard_normal(count))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), count)
    others = [number for number in range(len(sounds)) if number != index]
    talkers = [sounds[number] for number in generator.choice(others, TALKERS, replace=False)]
    shifted = [np.roll(sound, generator.integers(len(sound))) for sound in map(normalised, talkers)]
    babble = sum((np.resize(sound, count) for sound in shifted), np.zeros(count))
    for name, noise in (("white", white), ("pink", pink), ("babble", babble)):
        yield name, normalised(noise)


def disturbances(count: int, generator: np.random.Generator) -> Iterator[tuple[str, Floats]]:
    """Yield non-speech sounds: mains hum with two harmonics, and a keyboard."""
    time_s = np.arange(count) / RATE
    hum = np.zeros(count)
    for harmonic in (1, 2, 3):
        hum += 0.4 / harmonic * np.sin(2 * np.pi * 50 * harmonic * time_s)
    yield "hum", hum
    keys = FAINT * generator.standard_normal(count)
    for at in generator.integers(0, count - RATE // 10, count * 16 // RATE):
        length = int(generator.integers(64, 320))
        fading = generator.uniform(0.1, 0.6) * np.exp(-5 * np.arange(length) / length)
        keys[at : at + length] += fading * generator.standard_normal(length)
    yield "keyboard", keys


def energy(sound: Array) -> Flags:
    """Compare the level of the last 40 ms with the background, which rises by 2 dB per second."""
    levels = np.convolve(power(sound), np.full(4, 0.25))[: len(sound) // HOP]
    background, newest, said = np.inf, deque[float](maxlen=4), []
    for level in (10 * np.log10(levels + 1e-15)).tolist():
        if level > -105.0:
            newest.append(level)
            background = min(max(newest), background + 0.02)
        said.append(level > max(background + 10.0, -65.0))
    return np.array(said, bool)


def webrtc(mode: int) -> Judge:
    """Return WebRTC's detector in a mode, 1 (lenient) to 3 (strict)."""

    def judge(sound: Array) -> Flags:
        detector = webrtcvad.Vad(mode)
        whole = np.clip(np.rint(32767 * sound[: len(sound) // HOP * HOP]), -32768, 32767).astype("<i2")
        return np.array([detector.is_speech(piece.tobytes(), RATE) for piece in whole.reshape(-1, HOP)], bool)

    return judge


def silero(sound: Array) -> Flags:
    """Apply the deployed network and thresholds; a frame takes the decision of its 32 ms block."""
    gate, voice, active, said = VadConfig(), SileroVad(), False, []
    for piece in sound[: len(sound) // PIECE * PIECE].reshape(-1, PIECE):
        active = voice(piece) >= (gate.leave_probability if active else gate.enter_probability)
        said.append(active)
    starts = np.arange(len(sound) // HOP) * HOP // PIECE
    return np.array(said, bool)[np.minimum(starts, len(said) - 1)]


def held(said: Flags) -> Flags:
    """Apply the deployed hysteresis in time."""
    samples = np.repeat(said.astype(np.float32), HOP)
    return SpeechDetector(VadConfig(), voice=Told()).feed(samples).speech


def speech_of(clean: Floats) -> Flags:
    """Return where the clean clip is within 35 dB of its peak."""
    smooth = np.convolve(power(clean), np.full(5, 0.2), "same")
    flags: Flags = smooth > smooth.max() / 10 ** (SPEECH_WITHIN_DB / 10)
    return flags


def power(sound: NDArray[np.floating]) -> Floats:
    """Return the mean power of each frame of 10 ms."""
    whole = sound[: len(sound) // HOP * HOP].astype(np.float64)
    means: Floats = np.square(whole).reshape(-1, HOP).mean(axis=1)
    return means


def normalised(sound: NDArray[np.floating]) -> Floats:
    """Scale to unit power."""
    scaled: Floats = sound / np.sqrt(np.mean(np.square(sound, dtype=np.float64)))
    return scaled


def drawn(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Draw the same number of clips from each corpus."""
    generator = np.random.default_rng(0)
    names = sorted({clip.corpus for clip in clips})
    chosen: list[Clip] = []
    for name in names:
        of_corpus = [clip for clip in clips if clip.corpus == name]
        places = generator.choice(len(of_corpus), count // len(names), replace=False)
        chosen += [of_corpus[place] for place in places]
    return chosen


def percent(part: int, whole: int) -> str:
    """Format a share in percent."""
    return f"{100 * part / whole:5.1f}" if whole else "    -"


if __name__ == "__main__":
    main()
