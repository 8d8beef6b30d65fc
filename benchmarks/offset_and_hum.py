"""Accuracy under DC offset, hum and rumble, for several input filters.

    python benchmarks/offset_and_hum.py [--bundle FOLDER] [--data FOLDER] [--clips 12] [--only ROW]
        [--filters NAME,NAME]

Clips of speakers of whom the bundle has heard nothing, each as a new stream. "right" counts labels that match
the annotation; "same" counts labels equal to those of the clean clip without a filter. Levels are root mean
squares; speech in these clips has -25 dBFS.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from edge.audio.sound_file import read_clip
from edge.features.frontend import FrontEnd, filtered
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, default_bundle, load_bundle
from train.corpora import Clip, four_emotions, read_corpus
from train.evaluation import recognise_sounds
from train.splits import unheard_clips

DATA: Final = Path(os.environ.get("MMTL_DATA", "../shared/data"))
RATE: Final = FrontEnd.sample_rate

Samples = NDArray[np.float64]
Filter = Callable[[Samples], Samples]


def sections(*parts: NDArray[Any]) -> Filter:
    """Return a filter of second-order sections that starts in the steady state of the first sample."""
    sos = np.concatenate(parts)
    steady = signal.sosfilt_zi(sos)
    return lambda sound: signal.sosfilt(sos, sound, zi=steady * sound[0])[0]


def high_pass(order: int, hz: float) -> NDArray[Any]:
    """Design a Butterworth high-pass."""
    sos: NDArray[Any] = signal.butter(order, hz, "high", fs=RATE, output="sos")
    return sos


def notches(*centres_hz: float) -> NDArray[Any]:
    """Design notches with the bandwidth of a quality factor of 5 at 50 Hz."""
    return np.concatenate([signal.tf2sos(*signal.iirnotch(hz, hz / 10.0, fs=RATE)) for hz in centres_hz])


FILTERS: Final[dict[str, Filter]] = {
    "none": lambda sound: sound,
    "5Hz/1": sections(high_pass(1, 5.0)),
    "20Hz/2": sections(high_pass(2, 20.0)),
    "40Hz/2": sections(high_pass(2, 40.0)),
    "80Hz/2": sections(high_pass(2, 80.0)),
    "80Hz/4": sections(high_pass(4, 80.0)),
    "20Hz/2+n": sections(high_pass(2, 20.0), notches(50.0, 60.0)),
    "30Hz/2+n": sections(high_pass(2, 30.0), notches(50.0, 60.0)),
    "40Hz/4+n": sections(high_pass(4, 40.0), notches(50.0, 60.0)),
    "30Hz/4+h": sections(high_pass(4, 30.0), notches(50.0, 60.0, 100.0, 120.0, 150.0, 180.0)),
    "mmtl": lambda sound: filtered(sound.astype(np.float32), FrontEnd()).astype(np.float64),
}
"""High-pass filters by cut-off and order, "+n" with notches at 50 and 60 Hz, "+h" with those of harmonics
too; "mmtl" is the one in use."""


@dataclass(frozen=True)
class Disturbance:
    """A signal that is added to a clip."""

    name: str
    make: Callable[[int, int], Samples | float]
    """Arguments: the number of samples and the index of the clip."""


def hum(hz: float, level_dbfs: float, harmonics: Sequence[float] = ()) -> Disturbance:
    """Return a tone with harmonics, given by their amplitudes from the second on."""

    def make(count: int, clip: int) -> Samples:
        turns = hz * np.arange(count) / RATE
        waves = [size * np.sin(2.0 * np.pi * n * turns + n) for n, size in enumerate((1.0, *harmonics), 1)]
        return np.asarray(_gain(level_dbfs) * np.sqrt(2.0) * np.sum(waves, axis=0))

    return Disturbance(f"hum {hz:.0f} Hz{'+' if harmonics else ''} {level_dbfs:.0f} dBFS", make)


def rumble(hz: float, level_dbfs: float) -> Disturbance:
    """Return noise below a cut-off frequency, different for each clip."""
    low_pass = signal.butter(4, hz, fs=RATE, output="sos")

    def make(count: int, clip: int) -> Samples:
        white = np.random.default_rng(clip).standard_normal(count + RATE)
        low = signal.sosfilt(low_pass, white)[RATE:]
        return np.asarray(_gain(level_dbfs) * low / np.sqrt(np.square(low).mean()))

    return Disturbance(f"below {hz:.0f} Hz {level_dbfs:.0f} dBFS", make)


def offset(size: float) -> Disturbance:
    """Return a constant."""
    return Disturbance(f"offset {size:g}", lambda count, clip: size)


def _gain(level_dbfs: float) -> float:
    return float(10.0 ** (level_dbfs / 20.0))


CLEAN: Final = Disturbance("clean", lambda count, clip: 0.0)
DISTURBANCES: Final = (
    CLEAN,
    *(offset(size) for size in (0.002, 0.02, -0.3)),
    *(hum(hz, level) for hz in (50.0, 60.0) for level in (-50.0, -40.0, -30.0)),
    hum(50.0, -40.0, (0.3, 0.3, 0.0, 0.1)),
    *(rumble(hz, level) for hz in (15.0, 40.0) for level in (-40.0, -30.0)),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--clips", type=int, default=12, help="of each emotion of each corpus, at most")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--filters", default=",".join(FILTERS), help="which, after none")
    options = parser.parse_args()
    if options.data == DATA and not (DATA / "manifest.csv").is_file():
        print(f"skipped: no recordings in {DATA}: set MMTL_DATA, or give --data FOLDER")
        return
    bundle = unfiltered(load_bundle(options.bundle))
    corpus = four_emotions(read_corpus(options.data))
    clips = drawn(unheard_clips(corpus, bundle.manifest.training), options.clips)
    names = list(dict.fromkeys(("none", *options.filters.split(","))))
    sounds = [read_clip(clip.path).astype(np.float64) for clip in clips]
    truth = np.array([EMOTIONS.index(clip.emotion) for clip in clips])
    clean = answered(bundle, sounds, CLEAN, FILTERS["none"])
    print(f"{len(clips)} clips of {len({clip.speaker for clip in clips})} speakers: right, same")
    print(f"{'':22}" + "".join(f"{name:>11}" for name in names))
    for disturbance in (item for item in DISTURBANCES if item.name.startswith(options.only)):
        print(f"{disturbance.name:22}", end="", flush=True)
        for name in names:
            found = answered(bundle, sounds, disturbance, FILTERS[name])
            print(f"{(found == truth).sum():6d}{(found == clean).sum():5d}", end="", flush=True)
        print()


def unfiltered(bundle: Bundle) -> Bundle:
    """Return the bundle without its own input filter."""
    front_end = replace(bundle.manifest.front_end, high_pass_hz=0.0, hum_notch_q=0.0)
    return replace(bundle, manifest=replace(bundle.manifest, front_end=front_end))


def drawn(corpus: Sequence[Clip], count: int) -> list[Clip]:
    """Draw clips of each emotion and corpus."""
    kinds: dict[tuple[str, str], list[Clip]] = {}
    for clip in corpus:
        kinds.setdefault((clip.corpus, clip.emotion), []).append(clip)
    generator = np.random.default_rng(0)
    return [own[i] for own in kinds.values() for i in sorted(generator.permutation(len(own))[:count])]


def answered(
    bundle: Bundle, sounds: Sequence[Samples], disturbance: Disturbance, chosen: Filter
) -> NDArray[np.intp]:
    """Recognise disturbed clips, each cut off at full scale before the filter, as a microphone does."""
    heard = (
        chosen(np.clip(sound + disturbance.make(len(sound), number), -1.0, 1.0)).astype(np.float32)
        for number, sound in enumerate(sounds)
    )
    answers: NDArray[np.intp] = recognise_sounds(bundle, heard).argmax(axis=1)
    return answers


if __name__ == "__main__":
    main()
