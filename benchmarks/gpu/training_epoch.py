"""One epoch of MMTL on a GPU and on the CPU, from the same weights and batches: the losses compared.

    python benchmarks/gpu/training_epoch.py [--device cuda] [--takes 8] [--tolerance 0.001]

The clips are made here: harmonic tones of four speakers, a WAV file each, read and turned into spectra as
`mmtl train` does. The network is the default one without dropout, whose random numbers differ by device. TF32
is off, since it rounds to ten bits. The tolerance is of the losses of each step, relative to the CPU's in
float32; bfloat16, which `mmtl train` may choose, has a tolerance of its own. Exit code 1: a loss differs.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import torch

from edge.arrays import SAMPLE_RATE, Array
from edge.features.frontend import FrontEnd
from edge.labels import EMOTIONS
from train.corpora import Clip
from train.model import Architecture, EmotionNet
from train.precision import Precision, supported_precisions
from train.run import frames_for_first
from train.segments import Spectra, fit_normalisation, read_spectra
from train.training import Computing, Options, StepLosses, Training

SPEAKERS: Final = 4
BFLOAT16_TOLERANCE: Final = 0.01
"""Of a loss, relative: bfloat16 has 8 bits, and the steps carry its rounding on."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave."""

    losses: list[StepLosses]
    seconds: float


def main() -> None:
    """Train on both devices, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--takes", type=int, default=8, help="clips of each emotion of each speaker")
    parser.add_argument("--tolerance", type=float, default=0.001)
    options = parser.parse_args()
    device = torch.device(options.device)
    spectra = made_spectra(options.takes)
    net = seeded_net(Architecture())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{name}, torch {torch.__version__}; {len(spectra)} clips of 3 s, speakers {SPEAKERS}")
    print(f"{'':22}{'seconds':>9}{'steps':>7}  {'largest difference of a loss':30} tolerance")
    expected = train_epoch(net, spectra, torch.device("cpu"))
    print(f"{'cpu, float32':22}{expected.seconds:9.1f}{len(expected.losses):7}")
    failed = False
    tolerances: dict[Precision, float] = {"float32": options.tolerance, "bfloat16": BFLOAT16_TOLERANCE}
    for precision in reversed(supported_precisions(device)):
        tolerance = tolerances[precision]
        found = train_epoch(net, spectra, device, precision)
        difference = largest_difference(expected, found)
        agrees = difference <= tolerance
        failed |= not agrees
        print(
            f"{f'{device}, {precision}':22}{found.seconds:9.1f}{len(found.losses):7}  {difference:<30.2e} "
            f"{tolerance:g}: {'agrees' if agrees else 'DIFFERS'}"
        )
    if failed:
        raise SystemExit(1)


def seeded_net(arch: Architecture) -> EmotionNet:
    """Make the network that all epochs start from, without dropout."""
    torch.manual_seed(0)
    return EmotionNet(replace(arch, dropout=0.0))


def train_epoch(
    net: EmotionNet, spectra: Sequence[Spectra], device: torch.device, precision: Precision = "float32"
) -> Epoch:
    """Train a copy of a network for one epoch of MMTL, as `mmtl train` does.

    Args:
        net: stays as it is.
        spectra: of the training clips.
        device: that trains.
        precision: of the forward passes.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    options = Options(epochs=1)
    options = replace(options, draw=replace(options.draw, speakers=SPEAKERS, samples=8))
    normalisation = fit_normalisation(spectra)
    training = Training(
        deepcopy(net), spectra, normalisation, options, device, computing=Computing(precision)
    )
    began = time.perf_counter()
    losses = list(training.epoch())  # each step reads its losses back, and so waits for the device
    return Epoch(losses, time.perf_counter() - began)


def largest_difference(expected: Epoch, found: Epoch) -> float:
    """Return the largest relative difference of a step's loss; infinite if a step is missing.

    Both losses of a step are compared, that of the emotions and that of the auxiliary tasks.
    """
    a, b = np.array(expected.losses, np.float64), np.array(found.losses, np.float64)
    if a.shape != b.shape or not np.isfinite(b).all():
        return float("inf")
    return float((np.abs(a - b) / np.abs(a)).max())


def made_spectra(takes: int, seconds: float = 3.0) -> list[Spectra]:
    """Write the clips, and read their spectra."""
    with tempfile.TemporaryDirectory() as folder:
        clips = list(written_clips(Path(folder), takes, seconds))
        return read_spectra(clips, FrontEnd(), frames_for_first(Architecture()))


def written_clips(folder: Path, takes: int, seconds: float) -> Iterator[Clip]:
    """Write each clip to a WAV file, with ratings that go with its emotion."""
    for speaker in range(SPEAKERS):
        for number, emotion in enumerate(EMOTIONS):
            for take in range(takes):
                path = folder / f"{speaker}-{emotion}-{take}.wav"
                soundfile.write(path, made_sound(speaker, number, take, seconds), SAMPLE_RATE)
                yield Clip(
                    path=path,
                    corpus="made",
                    speaker=f"s{speaker}",
                    emotion=emotion,
                    valence=1.0 + number,
                    arousal=4.5 - number,
                    dominance=3.0,
                )


def made_sound(speaker: int, emotion: int, take: int, seconds: float) -> Array:
    """Make (N,) samples: the speaker sets the pitch, the emotion how fast the loudness changes."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 110.0 + 40.0 * speaker + 3.0 * take
    tone = sum(np.sin(2 * np.pi * pitch * k * time_s) / k for k in range(1, 9 + 4 * emotion))
    loudness = 0.03 * (1.2 + np.sin(2 * np.pi * (1.0 + 2.0 * emotion) * time_s))
    noise = np.random.default_rng((speaker, emotion, take)).standard_normal(len(time_s))
    samples: Array = (loudness * tone + 0.003 * noise).astype(np.float32)
    return samples


if __name__ == "__main__":
    main()
