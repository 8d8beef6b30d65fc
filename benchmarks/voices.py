"""Detection rate and false alarms of the check for another speaker's voice in a session.

    python benchmarks/voices.py [--data FOLDER] [--draws 20] [--spreads]

Sessions are drawn from the clips of one speaker, two or four of each emotion. In each, one take is replaced
by a clip of another speaker with the same corpus, emotion and, if there is one, sentence: once of the same
sex, once of the other. Printed are the share of flagged takes in unmixed sessions, of unmixed sessions with
a flagged take, and of replaced takes that are flagged: for the speakers that the constants of
`calibrate/fitting/speaker_consistency.py` were chosen on, for the test speakers of
`train/shipped_split.json`, and for a corpus of neither. --spreads prints the spreads within speakers from
which those constants come.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from calibrate.fitting.gradient_descent import Floats
from calibrate.fitting.speaker_consistency import (
    OUTLIER_THRESHOLD,
    PITCH_SPREAD,
    SHAPE_SPREADS,
    outlier_scores,
    voice_features,
)
from edge.audio.sound_file import read_clip
from edge.labels import EMOTIONS
from train.corpora import Clip, four_emotions, read_corpus

SPLIT: Final = Path(__file__).parents[1] / "train" / "shipped_split.json"
UNHEARD: Final = "emotale"
GROUPS: Final = ("chosen on", "held out", UNHEARD)

Voices = Mapping[Path, Floats]


@dataclass
class Found:
    """Outlier scores of the sessions of a group of speakers."""

    speakers: set[str] = field(default_factory=set)
    own: list[Floats] = field(default_factory=list)
    """Of the takes of each unmixed session."""
    replaced: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    """Of the replaced takes, by whether the sex is the same."""
    beside: list[float] = field(default_factory=list)
    """Of the other takes of those sessions."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MMTL_DATA", "../shared/data")))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--spreads", action="store_true")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"no recordings in {options.data}: name their folder with --data or MMTL_DATA")
        return
    clips = four_emotions(read_corpus(options.data))
    voices = {clip.path: voice_features(read_clip(clip.path)) for clip in clips}
    held_out = json.loads(SPLIT.read_text("utf-8"))["test"]
    if options.spreads:
        show_spreads([clip for clip in clips if group_of(clip, held_out) == GROUPS[0]], voices)
    for count in (2, 4):
        print(f"{count} takes of each emotion    own   sessions with one   other sex   same sex   beside it")
        for group, found in measure(clips, voices, held_out, count, options.draws).items():
            print(f"{group:10} {len(found.speakers):2d} speakers {row(found)}")


def group_of(clip: Clip, held_out: Sequence[str]) -> str:
    """Name the group of a clip's speaker."""
    chosen_on, not_chosen_on, unheard = GROUPS
    if clip.corpus == unheard:
        return unheard
    return not_chosen_on if clip.speaker in held_out else chosen_on


def measure(
    clips: Sequence[Clip], voices: Voices, held_out: Sequence[str], count: int, draws: int
) -> dict[str, Found]:
    """Draw sessions with a number of takes of each emotion and score their takes."""
    found: dict[str, Found] = defaultdict(Found)
    generator = np.random.default_rng(0)
    speakers: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        speakers[clip.speaker].append(clip)
    for speaker, own in sorted(speakers.items()):
        group = group_of(own[0], held_out)
        for _ in range(draws):
            session = drawn(own, count, generator)
            if not session:
                break
            found[group].speakers.add(speaker)
            found[group].own.append(judged(session, voices))
            rivals = [clip for clip in clips if clip.speaker != speaker and group_of(clip, held_out) == group]
            for same, place, mixed in replaced(session, rivals, generator):
                strange = judged(mixed, voices)
                found[group].replaced[same].append(strange[place])
                found[group].beside += np.delete(strange, place).tolist()
    return {group: found[group] for group in GROUPS if group in found}


def drawn(own: Sequence[Clip], count: int, generator: np.random.Generator) -> list[Clip]:
    """Draw a session; empty if the speaker has too few clips."""
    session: list[Clip] = []
    for emotion in EMOTIONS:
        pool = [clip for clip in own if clip.emotion == emotion]
        if len(pool) < count:
            return []
        session += [pool[index] for index in generator.choice(len(pool), count, replace=False)]
    return session


def replaced(
    session: Sequence[Clip], rivals: Sequence[Clip], generator: np.random.Generator
) -> Iterator[tuple[bool, int, list[Clip]]]:
    """Yield the session with one take replaced by one of the same, then of the other sex, with its index."""
    place = int(generator.integers(len(session)))
    gone = session[place]
    for same in (True, False):
        alike = [
            clip
            for clip in rivals
            if (clip.corpus, clip.emotion) == (gone.corpus, gone.emotion)
            and (clip.gender == gone.gender) == same
        ]
        pool = [clip for clip in alike if clip.text == gone.text] or alike
        if pool:
            mixed = list(session)
            mixed[place] = pool[int(generator.integers(len(pool)))]
            yield same, place, mixed


def judged(session: Sequence[Clip], voices: Voices) -> Floats:
    """Return the outlier score of each take."""
    return outlier_scores(np.stack([voices[clip.path] for clip in session]))


def row(found: Found) -> str:
    """Format the results as a row, in percent."""
    own = np.stack(found.own) > OUTLIER_THRESHOLD
    shares = [
        own.mean(),
        own.any(axis=1).mean(),
        *(np.mean(np.array(found.replaced[same]) > OUTLIER_THRESHOLD) for same in (False, True)),
        np.mean(np.array(found.beside) > OUTLIER_THRESHOLD),
    ]
    return " ".join(
        f"{100.0 * share:{width}.1f}" for share, width in zip(shares, (12, 19, 11, 10, 11), strict=True)
    )


def show_spreads(clips: Sequence[Clip], voices: Voices) -> None:
    """Print the spread within a speaker of pitch (octaves) and cosines (nats), emotions weighted alike."""
    squares = []
    for speaker in sorted({clip.speaker for clip in clips}):
        own = [
            np.stack(
                [voices[clip.path] for clip in clips if (clip.speaker, clip.emotion) == (speaker, emotion)]
            )
            for emotion in EMOTIONS
        ]
        middle = np.mean([takes.mean(axis=0) for takes in own], axis=0)
        squares.append(np.mean([np.square(takes - middle).mean(axis=0) for takes in own], axis=0))
    spreads = np.sqrt(np.mean(squares, axis=0)) * np.array([PITCH_SPREAD, *SHAPE_SPREADS])
    print("spreads within a speaker:", " ".join(f"{spread:.3f}" for spread in spreads))


if __name__ == "__main__":
    main()
