"""Departure of a stream from its calibration session, and how many streams raise a drift event.

    python benchmarks/drift.py [--bundle FOLDER] [--data FOLDER] [--speakers 5]

Half of a speaker's clips, at most ten of each emotion, are the session: a profile is fitted to it and its
reference computed. The other half, joined with pauses and repeated to two minutes, is one stream. Further
streams are that half with other pauses, levels, noise and microphones, and the halves of the other speakers.
The speakers are the first ones, by name, of whom the bundle has heard nothing. Printed are the largest
departures of the averages from the session, and the number of streams that raised an event.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np

from calibrate.fitting.model_selection import fit_and_judge
from calibrate.fitting.session_reference import session_reference
from calibrate.takes import Take
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.events import Drift, DriftSubject
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.model.profile import Profile
from edge.recognition.drift import DriftWatch
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from train.corpora import Clip, four_emotions, read_corpus
from train.splits import speakers_of, unheard_clips

DATA: Final = Path(os.environ.get("MMTL_DATA", "../shared/data"))
RATE: Final = 16_000
LEAST_S: Final = 120.0
FIGURES: Final = get_args(DriftSubject)
MOST_TAKES: Final = 10
"""Takes of each emotion in a session."""
PAUSE_S: Final = 0.3
QUIET: Final = 1e-4
TWELVE_DB: Final = 4.0
SNR_DB: Final = 10.0
CURVE_DB: Final = 6.0
CURVE_HZ: Final = (0, 100, 200, 400, 800, 1600, 2800, 4000, 8000)


@dataclass
class Found:
    """Results of the streams of one kind."""

    departures: list[tuple[float, ...]] = field(default_factory=list)
    """Largest of each stream, in spreads, in the order of `FIGURES`."""
    events: Counter[str] = field(default_factory=Counter)
    """Number of streams that raised an event, by the subject of the first."""


class Record(DriftWatch):
    """A `DriftWatch` that records its largest departures."""

    def reset(self) -> None:
        """Forget the stream."""
        super().reset()
        self.largest = (0.0,) * len(FIGURES)

    def feed(self, time_s: float, observation: Array) -> Drift | None:
        """Take the observation of a window."""
        drift = super().feed(time_s, observation)
        away = self.departures()
        self.largest = tuple(
            max(largest, away[name], key=abs if name == "level" else float)
            for name, largest in zip(FIGURES, self.largest, strict=True)
        )
        return drift


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--speakers", type=int, default=5)
    options = parser.parse_args()
    if options.data == DATA and not (DATA / "manifest.csv").is_file():
        print(f"skipped: no recordings in {DATA}: set MMTL_DATA, or give --data FOLDER")
        return
    bundle = load_bundle(options.bundle)
    clips = unheard_clips(four_emotions(read_corpus(options.data)), bundle.manifest.training)
    halves = halved(clips, speakers_of(clips)[: options.speakers])
    found: dict[str, Found] = defaultdict(Found)
    for speaker, (session, _) in halves.items():
        measure(bundle, calibrated(bundle, speaker, session), streams(speaker, halves), found)
    print("largest departures in spreads of the session: lowest, median, highest; streams with an event")
    print(f"{'stream':22} number {''.join(f'{name:>19}' for name in FIGURES)}   events")
    for kind, item in found.items():
        print(f"{kind:22}{len(item.departures):7d} {row(item)}")


def row(item: Found) -> str:
    """Format the results of one kind of stream as a row."""
    columns = zip(*item.departures, strict=True)
    ranges = [[min(column), float(np.median(column)), max(column)] for column in columns]
    cells = [" ".join(f"{value:5.2f}" for value in three) for three in ranges]
    about = ", ".join(f"{count} {what}" for what, count in item.events.most_common())
    total = f"{item.events.total()} ({about})" if about else "0"
    return f" {''.join(f'{cell:>19}' for cell in cells)}   {total}"


def measure(
    bundle: Bundle, profile: Profile, sounds: Iterator[tuple[str, Array]], found: dict[str, Found]
) -> None:
    """Recognise each sound as a new stream with a calibrated profile."""
    assert profile.reference, "a session of this length has one"
    spectrum = profile.head.input_size - bundle.manifest.graphs.embedding_size
    record = Record(profile.reference, Settings().step_ms / 1000.0, spectrum=spectrum)
    recognizer = Recognizer(bundle, profile=profile, engine=open_engine(bundle, "cpu"), observer=record)
    for kind, sound in sounds:
        recognizer.reset()
        events = [event for event in recognizer.feed(sound) if isinstance(event, Drift)]
        found[kind].departures.append(record.largest)
        found[kind].events.update(event.what for event in events[:1])


def calibrated(bundle: Bundle, speaker: str, session: Sequence[Clip]) -> Profile:
    """Fit a profile to a session and compute its drift reference, as `mmtl calibrate` does."""
    engine = open_engine(bundle, "cpu")
    takes = [Take(clip.path, EMOTIONS.index(clip.emotion), clip.text) for clip in session]
    sounds = [read_clip(clip.path) for clip in session]
    fitted = fit_and_judge(bundle, engine, takes, sounds)
    own = fitted.normalisation
    profile = Profile(speaker, bundle.fingerprint, fitted.head, own.levels, own.statistics, "adopted")
    reference = session_reference(bundle, profile, sounds, engine=engine, optimism=fitted.optimism)
    return replace(profile, reference=reference)


def streams(speaker: str, halves: dict[str, tuple[list[Clip], list[Clip]]]) -> Iterator[tuple[str, Array]]:
    """Yield the kind and the sound of each stream after a speaker's session."""
    own = halves[speaker][1]
    plain = joined(own)
    yield "other half", plain
    yield "pauses of 1.5 s", joined(own, pause_s=1.5)
    for emotion in EMOTIONS:
        yield "one emotion of it", joined([clip for clip in own if clip.emotion == emotion])
    yield "12 dB louder", np.clip(TWELVE_DB * plain, -1.0, 1.0)
    yield "12 dB softer", plain / np.float32(TWELVE_DB)
    yield "noise at 10 dB", noisy(plain)
    for seed in range(3):
        yield "another microphone", coloured(plain, seed)
    for other, (_, clips) in halves.items():
        if other != speaker:
            yield "another speaker", joined(clips)


def joined(clips: Sequence[Clip], pause_s: float = PAUSE_S) -> Array:
    """Join clips with pauses of low noise, and repeat them to two minutes."""
    pause = np.zeros(round(pause_s * RATE), np.float32)
    once = np.concatenate([part for clip in clips for part in (pause, read_clip(clip.path))])
    sound: Array = np.tile(once, int(np.ceil(LEAST_S * RATE / len(once))))
    sound += np.float32(QUIET) * np.random.default_rng(0).standard_normal(len(sound), np.float32)
    return sound


def noisy(sound: Array) -> Array:
    """Add white noise 10 dB below the mean power."""
    amplitude = np.sqrt(np.mean(sound**2) / 10.0 ** (SNR_DB / 10.0))
    noise = amplitude * np.random.default_rng(1).standard_normal(len(sound), np.float32)
    mixed: Array = np.clip(sound + noise, -1.0, 1.0).astype(np.float32)
    return mixed


def coloured(sound: Array, seed: int) -> Array:
    """Apply a random smooth frequency response within 6 dB, as of another microphone."""
    curve = 10.0 ** (np.random.default_rng(seed).uniform(-CURVE_DB, CURVE_DB, len(CURVE_HZ)) / 20.0)
    hz = np.fft.rfftfreq(len(sound), 1.0 / RATE)
    gain = np.interp(np.log(hz + 1.0), np.log(np.array(CURVE_HZ) + 1.0), curve)
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound)).astype(np.float32)


def halved(clips: Sequence[Clip], speakers: Sequence[str]) -> dict[str, tuple[list[Clip], list[Clip]]]:
    """Divide the clips of each speaker into the session and the rest."""
    halves: dict[str, tuple[list[Clip], list[Clip]]] = {}
    generator = np.random.default_rng(0)
    for speaker in speakers:
        session, rest = list[Clip](), list[Clip]()
        for emotion in EMOTIONS:
            own = [clip for clip in clips if (clip.speaker, clip.emotion) == (speaker, emotion)]
            generator.shuffle(own)
            half = len(own) // 2
            session += own[: min(half, MOST_TAKES)]
            rest += own[half:]
        generator.shuffle(rest)
        halves[speaker] = session, rest
    return halves


if __name__ == "__main__":
    main()
