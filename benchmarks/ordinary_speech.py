"""How often ordinary speech is refused or warned of, and how often what is none passes.

    python benchmarks/ordinary_speech.py [--data FOLDER] [--speech FOLDER] [--bundle FOLDER] [--draws 2]

Recordings are made of one speaker's clips, one after the other, until they hold 24 or 10 s of voice. In those
of two people, one half or one quarter is another speaker's of the same corpus. Printed, in percent of the
recordings: how many `ordinary_head` warns of or refuses, and how many of these it refuses, because more than
one person seems to speak, or because of the emotion that the bundle claims. The clips are those of --data
without emotale (acted; neutral ones for the first question, those of each emotion for the second), and with
--speech those of a manifest of ordinary speech (columns path, corpus, speaker and gender), in which a
speaker with fewer than 8 s of voice is left out.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from calibrate.fitting.ordinary import (
    REFUSED_SHARE,
    WARNED_SHARE,
    claimed_share,
    ordinary_windows,
    speech_pieces,
)
from calibrate.fitting.speaker_consistency import REFUSED_SEPARATION, WARNED_SEPARATION, voice_separation
from calibrate.quality import measure
from calibrate.take_limits import LEAST_ORDINARY_S
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.file_formats.manifest import manifest_rows, recording_path
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, find_bundle, load_bundle
from train.corpora import Clip, four_emotions, read_corpus

UNHEARD: Final = "emotale"
UNLABELLED: Final = "unlabelled"
LENGTHS_S: Final = (24.0, 10.0)
"""Of voice."""


class Voices:
    """The clips of a group of speakers, joined to recordings."""

    def __init__(self, clips: Sequence[Clip], draws: int) -> None:
        """Group the clips by speaker."""
        self.draws = draws
        self._sounds: dict[Path, tuple[Array, float]] = {}
        self.speakers: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            self.speakers[clip.speaker].append(clip)

    def recording(
        self, speaker: str, emotion: str, voice_s: float, generator: np.random.Generator
    ) -> tuple[Array, float]:
        """Join clips in random order; return the samples and the duration of voice."""
        own = [clip for clip in self.speakers[speaker] if clip.emotion == emotion]
        sounds, heard = [np.zeros(0, np.float32)], 0.0
        for index in generator.permutation(len(own)):
            if heard >= voice_s:
                break
            sound, seconds = self._read(own[index].path)
            sounds.append(sound)
            heard += seconds
        return np.concatenate(sounds), heard

    def others(self, speaker: str, *, same_sex: bool) -> list[str]:
        """List the other speakers of the corpus, of the same or the other sex."""
        first = self.speakers[speaker][0]
        return [
            name
            for name, clips in sorted(self.speakers.items())
            if name != speaker
            and clips[0].corpus == first.corpus
            and (clips[0].gender == first.gender) == same_sex
        ]

    def _read(self, path: Path) -> tuple[Array, float]:
        if path not in self._sounds:
            sound = read_clip(path)
            self._sounds[path] = sound, measure(sound).voice_s
        return self._sounds[path]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MMTL_DATA", "../shared/data")))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--speech", type=Path, help="folder of a manifest of ordinary speech")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"skipped: no recordings in {options.data}: set MMTL_DATA, or give --data FOLDER")
        return
    bundle = load_bundle(find_bundle(options.bundle))
    clips = [clip for clip in four_emotions(read_corpus(options.data)) if clip.corpus != UNHEARD]
    report("acted", Voices(clips, options.draws), "neutral", EMOTIONS, bundle)
    if options.speech:
        report("ordinary", Voices(read_speakers(options.speech), 1), UNLABELLED, [UNLABELLED], bundle)


def read_speakers(folder: Path) -> list[Clip]:
    """Read the clips of a manifest of ordinary speech that names its speakers."""
    return [
        Clip(recording_path(row, folder), row["corpus"], row["speaker"], UNLABELLED, row["gender"])
        for _, row in manifest_rows(folder / "manifest.csv", ("path",))
        if row.get("speaker")
    ]


def report(name: str, voices: Voices, ordinary: str, emotions: Sequence[str], bundle: Bundle) -> None:
    """Print the shares of one kind of speech."""
    for voice_s in LENGTHS_S:
        for mixed, shares in two_people(voices, ordinary, voice_s).items():
            print(f"{name} speech, {voice_s:.0f} s, {mixed}: {shares}", flush=True)
    if bundle.head.baseline_weight is not None:
        for emotion in emotions:
            print(f"{name} speech, {emotion}: {claims(bundle, voices, emotion)}", flush=True)


def described(values: Sequence[float], warned: float, refused: float) -> str:
    """Describe the shares of values from two limits on."""
    found = np.array(values)
    return (
        f"{(found >= warned).mean():.1%} warned of or refused, {(found >= refused).mean():.1%} refused, "
        f"of {len(found)}"
    )


def two_people(voices: Voices, ordinary: str, voice_s: float) -> dict[str, str]:
    """Describe the shares of recordings of one and of two people, by who speaks."""
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    for speaker in sorted(voices.speakers):
        for _ in range(voices.draws):
            sound, heard = voices.recording(speaker, ordinary, voice_s, generator)
            if heard < LEAST_ORDINARY_S:
                break
            found["one person"].append(voice_separation(speech_pieces(sound)))
            for same, share in ((False, 0.5), (False, 0.25), (True, 0.5), (True, 0.25)):
                others = voices.others(speaker, same_sex=same)
                if not others:
                    continue
                other = others[int(generator.integers(len(others)))]
                parts = [
                    voices.recording(speaker, ordinary, (1.0 - share) * voice_s, generator)[0],
                    voices.recording(other, ordinary, share * voice_s, generator)[0],
                ]
                name = f"{share:.0%} of {'the same' if same else 'the other'} sex"
                found[name].append(voice_separation(speech_pieces(np.concatenate(parts))))
    return {name: described(item, WARNED_SEPARATION, REFUSED_SEPARATION) for name, item in found.items()}


def claims(bundle: Bundle, voices: Voices, emotion: str) -> str:
    """Describe the shares of recordings of an emotion."""
    engine, generator, shares = open_engine(bundle, "cpu"), np.random.default_rng(0), []
    for speaker in sorted(voices.speakers):
        for _ in range(voices.draws):
            sound, heard = voices.recording(speaker, emotion, LENGTHS_S[0], generator)
            if heard < LEAST_ORDINARY_S:
                break
            shares.append(claimed_share(bundle.head, ordinary_windows(bundle, engine, [sound]))[1])
    return described(shares, WARNED_SHARE, REFUSED_SHARE)


if __name__ == "__main__":
    main()
