"""How often a bundle claims an emotion in ordinary speech: readings and commands without emotion labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.events import Window
from edge.file_formats.manifest import manifest_rows, missing_remedy, recording_path
from edge.inference.engine import EncoderState, EngineLike
from edge.labels import EMOTIONS, UNSURE
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from train.corpora import MANIFEST_NAME

BaselineUse = Literal["none", "running"]
"""Whether the head reads that of the training speakers throughout, or the speaker's running one."""

LABELS: Final = (*EMOTIONS, UNSURE)

TOGETHER: Final = "together"
"""Name of the sum over corpora."""


@dataclass(frozen=True)
class SpeechRecording:
    """A recording without an emotion label."""

    path: Path
    corpus: str
    speaker: str = ""
    """Empty: unknown."""


@dataclass(frozen=True)
class SpeechLabels:
    """Labels of the windows with speech in one recording."""

    corpus: str
    baseline: BaselineUse
    labels: Counter[str]


@dataclass(frozen=True)
class SpeechClaims:
    """Shares of the windows with speech by label, in percent. A window stands for one step of time."""

    corpus: str
    baseline: BaselineUse
    recordings: int
    windows: int
    shares: dict[str, float]
    """By emotion and "unsure"."""
    claimed: float
    """Share whose label is an emotion other than neutral."""


def read_speech(path: Path) -> list[SpeechRecording]:
    """Read a manifest with the columns path and, optionally, corpus and speaker.

    Args:
        path: a CSV file, or the folder that holds it as manifest.csv.

    Raises:
        UsageError: the manifest is missing or invalid, or a recording does not exist.
    """
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    recordings = []
    for line, row in manifest_rows(manifest, ("path",)):
        recording = recording_path(row, manifest.parent)
        if not recording.is_file():
            raise UsageError(
                f"{manifest}, line {line}: no sound file {recording}", remedy=missing_remedy(recording)
            )
        corpus = row.get("corpus") or manifest.parent.name
        recordings.append(SpeechRecording(recording, corpus, row.get("speaker") or ""))
    if not recordings:
        raise UsageError(f"{manifest} has no rows", remedy="list one recording a row below the header")
    return recordings


def of_other_speakers(
    recordings: Sequence[SpeechRecording], training: Mapping[str, Any]
) -> list[SpeechRecording]:
    """Leave out the speakers that a bundle was trained on, whose training the mapping describes.

    Raises:
        UsageError: none is left.
    """
    heard = {name for names in training.get("speakers", {}).values() for name in names}
    left = [item for item in recordings if item.speaker not in heard]
    if not left:
        raise UsageError(
            "the bundle was trained on all of these speakers", remedy="give recordings of others"
        )
    return left


def speech_labels(
    bundle: Bundle, engine: EngineLike, recordings: Iterable[SpeechRecording]
) -> Iterator[SpeechLabels]:
    """Recognise each recording as a new stream and yield its labels, for each use of the baseline.

    A head that reads a baseline is run with the running one, and with the training speakers' throughout.

    Args:
        bundle: the model.
        engine: its loaded graphs.
        recordings: of ordinary speech.
    """
    once = _EncodedOnce(engine)
    head = bundle.head.for_baseline(np.zeros(bundle.head.input_size, np.float32))
    bundles: dict[BaselineUse, Bundle] = {"none": replace(bundle, head=head)}
    if bundle.head.baseline_weight is not None:
        bundles["running"] = bundle
    recognizers = {use: Recognizer(model, engine=once) for use, model in bundles.items()}
    for recording in recordings:
        sound = read_clip(recording.path)
        once.forget()
        for use, recognizer in recognizers.items():
            once.rewind()
            yield SpeechLabels(recording.corpus, use, _labels(recognizer, sound))


def speech_claims(found: Iterable[SpeechLabels]) -> list[SpeechClaims]:
    """Sum the labels by corpus and over all, for each use of the baseline."""
    groups: dict[tuple[str, BaselineUse], list[Counter[str]]] = {}
    for item in found:
        groups.setdefault((item.corpus, item.baseline), []).append(item.labels)
    together: dict[tuple[str, BaselineUse], list[Counter[str]]] = {}
    for (_, use), counts in groups.items():
        together.setdefault((TOGETHER, use), []).extend(counts)
    if len({corpus for corpus, _ in groups}) > 1:
        groups |= together
    return [_claims(corpus, use, counts) for (corpus, use), counts in groups.items()]


def _labels(recognizer: Recognizer, sound: Array) -> Counter[str]:
    recognizer.reset()
    events = [*recognizer.feed(sound), *recognizer.flush()]
    return Counter(event.label for event in events if isinstance(event, Window) and event.speech)


def _claims(corpus: str, use: BaselineUse, counts: list[Counter[str]]) -> SpeechClaims:
    total: Counter[str] = sum(counts, Counter())
    windows = total.total()
    shares = {label: 100.0 * total[label] / max(1, windows) for label in LABELS}
    claimed = sum(share for label, share in shares.items() if label not in ("neutral", UNSURE))
    return SpeechClaims(corpus, use, len(counts), windows, shares, claimed)


class _EncodedOnce:
    """An engine that computes a recording once for several recognisers, which ask for the same windows.

    Remembers the results of all calls, in their order, since `forget`; after `rewind` it returns them again.
    """

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine
        self.graphs, self.bins = engine.graphs, engine.bins
        self.provider, self.reason = engine.provider, engine.reason
        self.initial_state, self.close = engine.initial_state, engine.close
        self.forget()

    def forget(self) -> None:
        """Begin another recording."""
        self._encoded: list[tuple[Array, EncoderState]] = []
        self._classified: list[Array] = []
        self.rewind()

    def rewind(self) -> None:
        """Begin the recording again."""
        self._encodings = self._classifications = 0

    def encode(self, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        """Return the next features, as `EngineLike`."""
        self._encodings += 1
        if self._encodings > len(self._encoded):
            self._encoded.append(self._engine.encode(frames, state))
        return self._encoded[self._encodings - 1]

    def classify(self, windows: Array) -> Array:
        """Return the next embeddings, as `EngineLike`."""
        self._classifications += 1
        if self._classifications > len(self._classified):
            self._classified.append(self._engine.classify(windows))
        return self._classified[self._classifications - 1]
