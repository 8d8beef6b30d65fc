"""Labels of a stream of neutral clips, by the length of the pauses between them, and after an outburst.

    python benchmarks/pauses.py [--bundle NAME_OR_FOLDER] [--data FOLDER] [--corpus NAME]

A window of a stream holds pauses, where one of a clip does not. Printed: percent of the windows of speech
with each label, over the speakers, from 3 s after the first neutral clip on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import read_clip
from edge.events import Window
from edge.labels import EMOTIONS, UNSURE
from edge.recognition.recognizer import Recognizer
from train.corpora import Clip, read_corpus

DATA: Final = Path(os.environ.get("MMTL_DATA", "../shared/data"))
NEUTRAL_S, OUTBURST_S, SETTLED_S = 30.0, 20.0, 3.0
"""Duration of the neutral clips, of the outburst, and of the neutral clips before a window counts."""
LABELS: Final = (*EMOTIONS, UNSURE)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--corpus", default="emotale", help="of speakers that the model has not heard")
    parser.add_argument("--bundle", default="default")
    options = parser.parse_args()
    if options.data == DATA and not (DATA / "manifest.csv").is_file():
        print(f"skipped: no recordings in {DATA}: set MMTL_DATA, or give --data FOLDER")
        return
    recognizer = Recognizer.load(options.bundle, provider="cpu")
    clips = [clip for clip in read_corpus(options.data) if clip.corpus == options.corpus]
    print(f"{'':28}" + "".join(f"{label:>9}" for label in LABELS))
    for before, pause_s in (("", 0.0), ("", 0.5), ("", 1.0), ("angry", 0.5)):
        shares = np.mean([labels(recognizer, own, before, pause_s) for own in by_speaker(clips)], axis=0)
        name = f"pauses of {pause_s:g} s" + (f" after {OUTBURST_S:g} s {before}" if before else "")
        print(f"{name:28}" + "".join(f"{100 * share:9.0f}" for share in shares))


def labels(recognizer: Recognizer, clips: Sequence[Clip], before: str, pause_s: float) -> Array:
    """Return the share of each of `LABELS` among the windows of neutral speech."""
    outburst = stream(clips, before, pause_s, OUTBURST_S) if before else np.zeros(0, np.float32)
    recognizer.reset()
    sound = np.concatenate([outburst, stream(clips, "neutral", pause_s, NEUTRAL_S)])
    events = recognizer.feed(sound) + recognizer.flush()
    begin_s = len(outburst) / SAMPLE_RATE + SETTLED_S
    said = [
        event.label
        for event in events
        if isinstance(event, Window) and event.speech and event.end_s >= begin_s
    ]
    return np.array([said.count(label) / max(1, len(said)) for label in LABELS], np.float32)


def stream(clips: Sequence[Clip], emotion: str, pause_s: float, seconds: float) -> Array:
    """Repeat the clips of an emotion, a pause after each, up to a duration."""
    pause = np.zeros(round(pause_s * SAMPLE_RATE), np.float32)
    parts = [part for clip in clips if clip.emotion == emotion for part in (read_clip(clip.path), pause)]
    return np.resize(np.concatenate(parts), round(seconds * SAMPLE_RATE))


def by_speaker(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Divide clips by speaker."""
    return [
        [clip for clip in clips if clip.speaker == name] for name in sorted({clip.speaker for clip in clips})
    ]


if __name__ == "__main__":
    main()
