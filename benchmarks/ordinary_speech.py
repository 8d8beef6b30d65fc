"""How often ordinary speech is refused or warned of, and how often what is none passes.

    python benchmarks/ordinary_speech.py [--data FOLDER] [--bundle FOLDER] [--draws 4] [--test]

Recordings are made of one speaker's clips, one after the other, until they hold 24 or 10 s of voice. In those
of two people, one half or one quarter is another speaker's of the same corpus. Printed, in percent of the
recordings: those of neutral clips that `sounds_like_two_people` takes for two people; and those of each
emotion that `ordinary_head` warns of and refuses by the bundle's posteriors. The speakers are those that the
constants were chosen on, most of whom the bundle was trained on; with --test, the others.
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
from calibrate.fitting.speaker_consistency import sounds_like_two_people
from calibrate.quality import measure
from calibrate.take_limits import LEAST_ORDINARY_S
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, find_bundle, load_bundle
from train.corpora import Clip, four_emotions, read_corpus

UNHEARD: Final = "emotale"
LENGTHS_S: Final = (24.0, 10.0)
"""Of voice."""


class Voices:
    """The clips of a group of speakers, joined to recordings."""

    def __init__(self, clips: Sequence[Clip], draws: int) -> None:
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
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"skipped: no recordings in {options.data}: set MMTL_DATA, or give --data FOLDER")
        return
    bundle = load_bundle(find_bundle(options.bundle))
    held_out = bundle.manifest.training["speakers"]
    clips = four_emotions(read_corpus(options.data))
    unused = {clip.speaker for clip in clips if clip.corpus == UNHEARD} | set(held_out["test"])
    chosen = Voices([clip for clip in clips if (clip.speaker in unused) == options.test], options.draws)
    for voice_s in LENGTHS_S:
        print(f"{voice_s:.0f} s of voice, taken for two people: {two_people(chosen, voice_s)}")
    if bundle.head.baseline_weight is None:
        return
    for emotion in EMOTIONS:
        print(f"{emotion}: {claims(bundle, chosen, emotion)}")


def two_people(voices: Voices, voice_s: float) -> str:
    """Describe the shares of recordings of one and of two people that are taken for two."""
    generator = np.random.default_rng(0)
    found: dict[str, list[bool]] = defaultdict(list)
    for speaker in sorted(voices.speakers):
        for _ in range(voices.draws):
            sound, heard = voices.recording(speaker, "neutral", voice_s, generator)
            if heard < LEAST_ORDINARY_S:
                break
            found["one person"].append(sounds_like_two_people(speech_pieces(sound)))
            for same, share in ((False, 0.5), (False, 0.25), (True, 0.5), (True, 0.25)):
                others = voices.others(speaker, same_sex=same)
                if not others:
                    continue
                other = others[int(generator.integers(len(others)))]
                parts = [
                    voices.recording(speaker, "neutral", (1.0 - share) * voice_s, generator)[0],
                    voices.recording(other, "neutral", share * voice_s, generator)[0],
                ]
                name = f"{share:.0%} of {'the same' if same else 'the other'} sex"
                found[name].append(sounds_like_two_people(speech_pieces(np.concatenate(parts))))
    return ", ".join(f"{name} {np.mean(item):.1%} of {len(item)}" for name, item in found.items())


def claims(bundle: Bundle, voices: Voices, emotion: str) -> str:
    """Describe the shares of recordings of an emotion that are warned of, and refused."""
    engine, generator, shares = open_engine(bundle, "cpu"), np.random.default_rng(0), []
    for speaker in sorted(voices.speakers):
        for _ in range(voices.draws):
            sound, heard = voices.recording(speaker, emotion, LENGTHS_S[0], generator)
            if heard < LEAST_ORDINARY_S:
                break
            shares.append(claimed_share(bundle.head, ordinary_windows(bundle, engine, [sound]))[1])
    values = np.array(shares)
    warned, refused = (values >= WARNED_SHARE).mean(), (values >= REFUSED_SHARE).mean()
    return f"{warned:.1%} warned of or refused, {refused:.1%} refused, of {len(values)} recordings"


if __name__ == "__main__":
    main()
