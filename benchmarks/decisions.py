"""Label stability: changes of the label per minute while the emotion is constant.

    python benchmarks/decisions.py [--bundle FOLDER] [--data FOLDER]

The clips of one speaker and emotion, joined with pauses of 0.3 s, are one recording; its label should change
at most once, from "unsure" to the emotion. Changes are counted over windows with speech, for speakers the
bundle was not trained on. "Without" is the same windows without smoothing, hysteresis and patience.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.events import Event, Speech, Window
from edge.labels import UNSURE
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.recognition.decision import Decision, DecisionRule
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from train.corpora import Clip, four_emotions, read_corpus
from train.splits import unheard_clips

DATA: Final = Path(os.environ.get("MMTL_DATA", "../shared/data"))
RATE: Final = 16_000
PAUSE_S: Final = 0.3
QUIET: Final = 1e-4
SHIPPED: Final = DecisionRule()
WITHOUT: Final = replace(SHIPPED, smoothing_s=0.0, switch_margin=0.0, switch_windows=1, unsure_margin=0.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    if options.data == DATA and not (DATA / "manifest.csv").is_file():
        print(f"skipped: no recordings in {DATA}: set MMTL_DATA, or give --data FOLDER")
        return
    bundle = load_bundle(options.bundle)
    by_corpus: dict[str, list[Rates]] = defaultdict(list)
    clips = unheard_clips(four_emotions(read_corpus(options.data)), bundle.manifest.training)
    for corpus, recordings in by_speaker(clips):
        by_corpus[corpus].append(rates(bundle, recordings))
    print("changes of the label in a minute of speech, median over speakers; share of the time unsure")
    print(f"{'corpus':12} speakers  minutes  default  without  unsure")
    for corpus, found in (*by_corpus.items(), ("together", [*chain(*by_corpus.values())])):
        print(f"{corpus:12}{len(found):9d}{row(found)}")


class Rates:
    """Counts over one speaker's recordings."""

    def __init__(self) -> None:
        self.minutes = 0.0
        self.changes = {SHIPPED: 0, WITHOUT: 0}
        self.unsure = 0.0

    def add(self, labels: dict[DecisionRule, list[str]], step_s: float) -> None:
        """Count a recording."""
        minutes = len(labels[SHIPPED]) * step_s / 60
        self.minutes += minutes
        self.unsure += labels[SHIPPED].count(UNSURE) * step_s / 60
        for rule, shown in labels.items():
            self.changes[rule] += sum(before != after for before, after in pairwise(shown))


def row(found: Sequence[Rates]) -> str:
    """Format the rates of speakers as a row."""
    spoke = [item for item in found if item.minutes]
    medians = [
        np.median([item.changes[rule] / item.minutes for item in spoke]) for rule in (SHIPPED, WITHOUT)
    ]
    minutes = sum(item.minutes for item in spoke)
    unsure = 100 * sum(item.unsure for item in spoke) / minutes
    return f"{minutes:9.1f}{medians[0]:9.1f}{medians[1]:9.1f}{unsure:7.0f}%"


def rates(bundle: Bundle, recordings: Iterable[Array]) -> Rates:
    """Recognise one speaker's recordings, each a new stream."""
    recognizer = Recognizer(bundle, settings=Settings(rule=SHIPPED), provider="cpu")
    step_s, total = recognizer.settings.step_ms / 1000.0, Rates()
    for recording in recordings:
        recognizer.reset()
        events = [*recognizer.feed(recording), *recognizer.flush()]
        shown = [event.label for event in events if isinstance(event, Window) and event.speech]
        total.add({SHIPPED: shown, WITHOUT: list(replayed(events, WITHOUT, step_s))}, step_s)
    return total


def replayed(events: Iterable[Event], rule: DecisionRule, step_s: float) -> Iterator[str]:
    """Yield the labels of the same windows under another decision rule."""
    decision = Decision(rule, step_s)
    for event in events:
        if isinstance(event, Speech) and event.active:
            decision.reset()
        if isinstance(event, Window) and event.speech:
            yield decision.update(np.array(list(event.probs.values()), np.float32))


def by_speaker(clips: Iterable[Clip]) -> Iterator[tuple[str, Iterator[Array]]]:
    """Yield each speaker's corpus and recordings, one per emotion."""
    ordered = sorted(clips, key=lambda clip: (clip.corpus, clip.speaker, clip.emotion, str(clip.path)))
    for (corpus, _), of_speaker in groupby(ordered, key=lambda clip: (clip.corpus, clip.speaker)):
        yield corpus, (joined(group) for _, group in groupby(of_speaker, key=lambda clip: clip.emotion))


def joined(clips: Iterable[Clip]) -> Array:
    """Join clips with short pauses."""
    pause = np.zeros(round(PAUSE_S * RATE), np.float32)
    parts = [part for clip in clips for part in (pause, read_clip(clip.path))]
    sound = np.concatenate(parts)
    return sound + np.float32(QUIET) * np.random.default_rng(0).standard_normal(len(sound), np.float32)


if __name__ == "__main__":
    main()
