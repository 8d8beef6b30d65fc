"""What a report says of a recording, of a speaker and of everything: durations by label and means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edge.labels import EMOTIONS, UNSURE
from edge.reports.recordings import Recording
from edge.reports.results import FileResult, Span, expected_ratings

LABELS: Final = (*EMOTIONS, UNSURE)

Finished = tuple[Recording, FileResult]


@dataclass(frozen=True)
class EmotionSummary:
    """Utterances of one or several recordings, weighted by their durations."""

    recordings: int
    problems: int
    """Recordings that could not be recognised, or not to their end."""
    utterances: int
    duration_s: float
    speech_s: float
    seconds: dict[str, float]
    """Duration of the utterances by label, "unsure" included."""
    probs: dict[str, float]
    """Mean posterior by emotion; empty without an utterance."""
    ratings: dict[str, float]
    """Derived valence, arousal and dominance in [1, 5]; empty without an utterance."""


def summarize(results: Iterable[FileResult]) -> EmotionSummary:
    """Summarise results."""
    results = list(results)
    spans = [span for result in results for span in result.utterances]
    probs = _mean_probs(spans)
    return EmotionSummary(
        recordings=len(results),
        problems=sum(bool(result.problem) for result in results),
        utterances=len(spans),
        duration_s=round(sum(result.duration_s for result in results), 1),
        speech_s=round(sum(result.speech_s for result in results), 1),
        seconds={
            label: round(sum(_length_s(span) for span in spans if span.label == label), 1) for label in LABELS
        },
        probs=probs,
        ratings=expected_ratings(probs),
    )


def by_speaker(finished: Iterable[Finished]) -> dict[str, EmotionSummary]:
    """Summarise the recordings of each speaker that has a name, in the order of the names."""
    groups: dict[str, list[FileResult]] = {}
    for recording, result in finished:
        if recording.speaker:
            groups.setdefault(recording.speaker, []).append(result)
    return {speaker: summarize(groups[speaker]) for speaker in sorted(groups)}


def _mean_probs(spans: Sequence[Span]) -> dict[str, float]:
    """Return the mean posterior, each utterance weighted by its number of windows; empty without any."""
    total = sum(span.windows for span in spans)
    if not total:
        return {}
    return {
        emotion: round(sum(span.windows * span.probs[emotion] for span in spans) / total, 4)
        for emotion in EMOTIONS
    }


def _length_s(span: Span) -> float:
    return span.end_s - span.start_s
