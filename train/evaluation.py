"""Recognise labelled clips with the deployed runtime, and score the answers by corpus and speaker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.events import Window
from edge.inference.engine import EngineLike
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.recognition.recognizer import Recognizer
from train.corpora import Clip
from train.metrics import SelectiveAccuracy, answers, bootstrap_uar, recalls, score, speaker_uars

THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Values of `DecisionRule.unsure_below` that are compared."""

HARM: Final = 2.0
"""Loss in points of UAR above which a speaker counts as harmed by an adaptation."""


@dataclass(frozen=True)
class ClipWindows:
    """What the recogniser computes for a clip that is a new stream.

    Of its full windows or, if there is none, of its shorter ones: see `Decision.update`.
    """

    embeddings: Array
    """(W, D) of the W windows, in their order."""
    probs: Array
    """(C,) mean posterior of the windows."""


@dataclass(frozen=True)
class CorpusScores:
    """Scores of a bundle on the speakers of one corpus, in percent.

    An adaptation is scored on several draws of the clips that it adapts to: the answers of all draws count.
    """

    speakers: int
    clips: int
    """Answers, over all draws."""
    uar: float
    low: float
    """2.5th percentile of the UAR over bootstrap samples of speakers ..."""
    high: float
    """... and the 97.5th."""
    worst: float
    """UAR of the worst speaker."""
    accuracy: float
    macro_f1: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]
    """Counts; rows are the truth."""
    per_speaker: dict[str, float]
    answers: tuple[SelectiveAccuracy, ...]
    """Coverage and accuracy by threshold of "unsure"."""
    recalls: dict[str, float | None] = field(default_factory=dict)
    """By emotion; None for an emotion without clips."""
    change: float | None = None
    """Mean over speakers of the UAR's change against no adaptation on the same clips, in points ..."""
    harmed: float | None = None
    """... and the share of speakers that lose more than `HARM`. None: there was no adaptation."""
    speech_s: float | None = None
    """Mean duration of the speech that a speaker's baseline rests on; None: there was none."""


class ClipRecognizer:
    """Recognises clips, each as a new stream."""

    def __init__(self, bundle: Bundle, engine: EngineLike | None = None) -> None:
        """Prepare the recogniser.

        Args:
            bundle: the model.
            engine: its loaded graphs; if None, they are loaded on the CPU.
        """
        self._head = _RecordingHead(**vars(bundle.head))
        recorded = replace(bundle, head=self._head)
        self._recognizer = Recognizer(recorded, engine=engine or open_engine(bundle, "cpu"))
        self._shortest = shortest_clip(bundle)
        graphs, front_end = bundle.manifest.graphs, bundle.manifest.front_end
        full = front_end.samples_in(graphs.frames_in(graphs.window_features))
        self._full_s = full / front_end.sample_rate - 1e-6

    def __call__(self, sound: Array) -> ClipWindows:
        """Recognise (N,) samples at 16 kHz; silence is added if they are too few for one window."""
        self._head.inputs.clear()
        self._recognizer.reset()
        samples = np.pad(sound, (0, max(0, self._shortest - len(sound))))
        events = [*self._recognizer.feed(samples), *self._recognizer.flush()]
        windows = [event for event in events if isinstance(event, Window)]
        full = np.array([event.end_s - event.start_s >= self._full_s for event in windows])
        kept = full if full.any() else ~full
        probs = np.array([list(event.probs.values()) for event in windows], np.float32)[kept]
        return ClipWindows(np.concatenate(self._head.inputs)[kept], probs.mean(axis=0))


@dataclass(frozen=True)
class _RecordingHead(Head):
    """A head that keeps the embeddings it is given, in the order of the windows' events."""

    inputs: list[Array] = field(default_factory=list)

    def probs(self, inputs: Array, baseline: Array | None = None, deviation: Array | None = None) -> Array:
        """Keep (B, X) inputs and return the (B, C) probabilities."""
        self.inputs.append(inputs)
        return super().probs(inputs, baseline, deviation)


def shortest_clip(bundle: Bundle) -> int:
    """Return the number of samples of the shortest sound that gives a window."""
    return bundle.manifest.front_end.samples_in(bundle.manifest.graphs.frames_for_first)


def recognise_clips(bundle: Bundle, clips: Iterable[Clip]) -> Array:
    """Average the recogniser's posteriors over the windows of each clip.

    They are the deployed head's posteriors, after temperature scaling, so that ECE and the figures on
    "unsure" are those of the posteriors that a user sees.

    Returns:
        (clips, C) probabilities.
    """
    return recognise_sounds(bundle, (read_clip(clip.path) for clip in clips))


def recognise_sounds(bundle: Bundle, sounds: Iterable[Array]) -> Array:
    """Average the posteriors over the windows of each sound, (N,) samples at 16 kHz.

    A sound that is too short for one window is padded with silence.

    Returns:
        (sounds, C) probabilities.
    """
    recognize = ClipRecognizer(bundle)
    return np.asarray([recognize(sound).probs for sound in sounds], np.float32)


def score_by_corpus(
    clips: Sequence[Clip],
    probs: Array,
    generic: Array | None = None,
    speech_s: Mapping[str, float] | None = None,
) -> dict[str, CorpusScores]:
    """Score the clips of each corpus.

    Args:
        clips: N of them; a clip may occur in several draws.
        probs: (N, C) posteriors.
        generic: (N, C) posteriors of the same clips without adaptation; None: `probs` are those.
        speech_s: mean duration of the speech that the baselines rest on, by corpus.
    """
    scores = {}
    for corpus in sorted({clip.corpus for clip in clips}):
        own = [clip.corpus == corpus for clip in clips]
        chosen = [clip for clip in clips if clip.corpus == corpus]
        before = None if generic is None else generic[own]
        scores[corpus] = _score(chosen, probs[own], before, (speech_s or {}).get(corpus))
    return scores


def answers_by_threshold(clips: Sequence[Clip], probs: Array) -> tuple[SelectiveAccuracy, ...]:
    """Return coverage and accuracy at each of `THRESHOLDS`, in percent."""
    labels = [EMOTIONS.index(clip.emotion) for clip in clips]
    return tuple(_in_percent(answers(probs, labels, threshold)) for threshold in THRESHOLDS)


def described(scores: dict[str, CorpusScores]) -> dict[str, Any]:
    """Convert scores to plain JSON values."""
    return {corpus: asdict(item) for corpus, item in scores.items()}


def _score(
    clips: Sequence[Clip], probs: Array, generic: Array | None, speech_s: float | None
) -> CorpusScores:
    labels = [EMOTIONS.index(clip.emotion) for clip in clips]
    speakers = [clip.speaker for clip in clips]
    scores = score(labels, probs, speakers)
    low, high = bootstrap_uar(labels, probs.argmax(axis=1), speakers)
    changes = None
    if generic is not None:
        before = speaker_uars(labels, generic.argmax(axis=1), speakers)
        changes = [100 * (scores.per_speaker[name] - value) for name, value in before.items()]
    return CorpusScores(
        speakers=len(scores.per_speaker),
        clips=scores.clips,
        uar=100 * scores.uar,
        low=100 * low,
        high=100 * high,
        worst=100 * min(scores.per_speaker.values()),
        accuracy=100 * scores.accuracy,
        macro_f1=100 * scores.macro_f1,
        ece=100 * scores.ece,
        confusion=scores.confusion,
        per_speaker={name: 100 * value for name, value in scores.per_speaker.items()},
        answers=answers_by_threshold(clips, probs),
        recalls={
            emotion: None if value is None else 100 * value
            for emotion, value in zip(EMOTIONS, recalls(scores.confusion), strict=True)
        },
        change=None if changes is None else float(np.mean(changes)),
        harmed=None if changes is None else 100 * float(np.mean([change < -HARM for change in changes])),
        speech_s=speech_s,
    )


def _in_percent(item: SelectiveAccuracy) -> SelectiveAccuracy:
    accuracy = None if item.accuracy is None else 100 * item.accuracy
    return replace(item, coverage=100 * item.coverage, accuracy=accuracy)
