"""Score a bundle on labelled clips with the deployed runtime, without adaptation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.events import Window
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from train.corpora import Clip
from train.metrics import SelectiveAccuracy, answers, bootstrap_uar, score

THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Values of `DecisionRule.unsure_below` that are compared."""


@dataclass(frozen=True)
class CorpusScores:
    """Scores of a bundle on the speakers of one corpus, in percent."""

    speakers: int
    clips: int
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


def recognise_clips(bundle: Bundle, clips: Iterable[Clip]) -> Array:
    """Average the recogniser's posteriors over all windows of each clip.

    They are the deployed head's posteriors, after temperature scaling, so that ECE and the figures on
    "unsure" are those of the posteriors that a user sees.

    Returns:
        (clips, C) probabilities.
    """
    return recognise_sounds(bundle, (read_clip(clip.path) for clip in clips))


def recognise_sounds(bundle: Bundle, sounds: Iterable[Array]) -> Array:
    """Average the posteriors over all windows of each sound, (N,) samples at 16 kHz.

    A sound that is too short for one window is padded with silence.

    Returns:
        (sounds, C) probabilities.
    """
    recognizer = Recognizer(bundle, provider="cpu")
    front_end = bundle.manifest.front_end
    shortest = front_end.samples_in(bundle.manifest.graphs.frames_for_first)
    averages = []
    for sound in sounds:
        samples = np.pad(sound, (0, max(0, shortest - len(sound))))
        recognizer.reset()
        events = [*recognizer.feed(samples), *recognizer.flush()]
        windows = [list(event.probs.values()) for event in events if isinstance(event, Window)]
        averages.append(np.mean(windows, axis=0))
    return np.asarray(averages, np.float32)


def score_by_corpus(clips: Sequence[Clip], probs: Array) -> dict[str, CorpusScores]:
    """Score the clips of each corpus."""
    return {
        corpus: _score([clip for clip in clips if clip.corpus == corpus], probs[_of(clips, corpus)])
        for corpus in sorted({clip.corpus for clip in clips})
    }


def answers_by_threshold(clips: Sequence[Clip], probs: Array) -> tuple[SelectiveAccuracy, ...]:
    """Return coverage and accuracy at each of `THRESHOLDS`, in percent."""
    labels = [EMOTIONS.index(clip.emotion) for clip in clips]
    return tuple(_in_percent(answers(probs, labels, threshold)) for threshold in THRESHOLDS)


def described(scores: dict[str, CorpusScores]) -> dict[str, Any]:
    """Convert scores to plain JSON values."""
    return {corpus: asdict(item) for corpus, item in scores.items()}


def _score(clips: Sequence[Clip], probs: Array) -> CorpusScores:
    labels = [EMOTIONS.index(clip.emotion) for clip in clips]
    speakers = [clip.speaker for clip in clips]
    scores = score(labels, probs, speakers)
    low, high = bootstrap_uar(labels, probs.argmax(axis=1), speakers)
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
    )


def _in_percent(item: SelectiveAccuracy) -> SelectiveAccuracy:
    accuracy = None if item.accuracy is None else 100 * item.accuracy
    return replace(item, coverage=100 * item.coverage, accuracy=accuracy)


def _of(clips: Sequence[Clip], corpus: str) -> list[bool]:
    return [clip.corpus == corpus for clip in clips]
