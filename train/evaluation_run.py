"""The measurements of `mmtl evaluate`, with progress and tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from train.card_scores import trained_corpora
from train.console import (
    ConsoleProgress,
    adapted_table,
    answer_table,
    condition_table,
    protocol_table,
    recall_table,
    score_table,
    shot_table,
    speech_table,
)
from train.corpora import Clip
from train.evaluation import ClipRecognizer, CorpusScores, score_by_corpus
from train.few_shot import calibration_trials, count_trials, over_corpora, shot_scores
from train.label_check import WIDE_MARGIN, exchanged_pair
from train.plots import plot_shots
from train.protocols import (
    DRAWS,
    EvaluationClips,
    ProtocolName,
    ProtocolScores,
    adapted,
    described_protocol,
    labelled_answers,
    ordinary_answers,
    running_answers,
    unadapted,
)
from train.scoring_conditions import Condition, ConditionName, condition_scores, sounds_under
from train.speech_claims import SpeechRecording, speech_claims, speech_labels


def protocols_and_conditions(
    model: Bundle,
    clips: list[Clip],
    protocols: Sequence[ProtocolName],
    draws: int,
    conditions: Mapping[ConditionName, Condition],
    *,
    show: bool,
) -> dict[str, Any]:
    """Score the clips by each protocol and under each condition; show the scores and return them."""
    progress = ConsoleProgress()
    engine = open_engine(model, "cpu")
    recognize = ClipRecognizer(model, engine)
    windows = [recognize(read_clip(clip.path)) for clip in progress(clips, "recognising", len(clips))]
    heard = EvaluationClips(model, engine, clips, windows)
    measured = _by_protocol(heard, protocols, draws, progress, show=show)
    if conditions:
        measured["conditions"] = _by_condition(heard, conditions, recognize, progress, show=show)
    return measured


def calibration_curve(
    model: Bundle, clips: list[Clip], shots: list[int], draws: int, picture: Path | None, *, show: bool
) -> dict[str, Any]:
    """Score every speaker before and after calibration; show the scores and return them."""
    progress = ConsoleProgress()
    trials = calibration_trials(model, clips, shots, draws)
    scores = shot_scores(progress(trials, "calibrating", count_trials(clips, shots, draws)))
    if not scores:
        raise UsageError(
            f"no speaker has more than {min(shots)} clips of each emotion, and some are needed to score",
            remedy="give --shots a smaller number, or other recordings",
        )
    described = [asdict(item) for item in scores]
    if show:
        progress.show(shot_table([*scores, *over_corpora(scores)]))
    if picture:
        plot_shots(scores, picture)
    return {"draws": draws, "shots": described}


def claims_in_speech(model: Bundle, recordings: Sequence[SpeechRecording], *, show: bool) -> dict[str, Any]:
    """Measure what is claimed of ordinary speech; show it and return it."""
    progress = ConsoleProgress()
    heard = progress(recordings, "ordinary speech", len(recordings))
    claims = speech_claims(speech_labels(model, open_engine(model, "cpu"), heard))
    if show:
        progress.show(speech_table(claims))
    return {"claims": [asdict(item) for item in claims]}


def check_confusion(scores: dict[str, CorpusScores], progress: ConsoleProgress) -> None:
    """Warn of a corpus in which the bundle confuses two classes with each other."""
    for corpus, item in scores.items():
        table = [[100 * count / max(1, sum(row)) for count in row] for row in item.confusion]
        gain, (a, b) = exchanged_pair(table)
        if gain >= WIDE_MARGIN:
            first, second = EMOTIONS[a], EMOTIONS[b]
            progress.say(
                f"warning: in {corpus} the bundle recognises {table[a][b]:.0f} % of {first} as {second} and "
                f"{table[b][a]:.0f} % of {second} as {first}: the two look exchanged, in these labels or in "
                "the bundle's training labels"
            )


def _by_protocol(
    heard: EvaluationClips,
    protocols: Sequence[ProtocolName],
    draws: int,
    progress: ConsoleProgress,
    *,
    show: bool,
) -> dict[str, Any]:
    """Score the clips by each protocol; show the scores and return them."""
    scores = _protocol_scores(heard, protocols, draws, progress)
    if not any(item.corpora for item in scores.values()):
        raise UsageError(
            f"every speaker has too few clips for {' and '.join(protocols)}", remedy="add --protocols none"
        )
    if "none" in scores:
        check_confusion(scores["none"].corpora, progress)
    for name, item in scores.items():
        for corpus, left_out in item.left_out.items():
            progress.say(f"{name}: too few clips in {corpus} of {', '.join(left_out)}")
        for refusal in item.refusals:
            progress.say(f"{name}: the generic model was scored for {refusal}")
    if show:
        _show_protocols(scores, heard.bundle, progress)
    return {name: described_protocol(item) for name, item in scores.items() if item.corpora}


def _protocol_scores(
    heard: EvaluationClips, protocols: Sequence[ProtocolName], draws: int, progress: ConsoleProgress
) -> dict[ProtocolName, ProtocolScores]:
    measures = {
        "running": (running_answers, DRAWS),
        "ordinary": (ordinary_answers, DRAWS),
        "labelled": (labelled_answers, draws),
    }
    scores: dict[ProtocolName, ProtocolScores] = {}
    for name in protocols:
        if name == "none":
            scores[name] = unadapted(heard)
        else:
            answers, count = measures[name]
            total = count * len(heard.speakers)
            scores[name] = adapted(heard.clips, progress(answers(heard, count), name, total))
    return scores


def _show_protocols(
    scores: dict[ProtocolName, ProtocolScores], model: Bundle, progress: ConsoleProgress
) -> None:
    for name, item in scores.items():
        if not item.corpora:
            continue
        if name == "none":
            progress.show(score_table(item.corpora))
            progress.show(answer_table(item.corpora, item.answers))
        else:
            progress.show(adapted_table(name, item.corpora))
    progress.show(recall_table(scores))
    progress.show(protocol_table(scores, trained_corpora(model.manifest.training)))


def _by_condition(
    heard: EvaluationClips,
    conditions: Mapping[ConditionName, Condition],
    recognize: ClipRecognizer,
    progress: ConsoleProgress,
    *,
    show: bool,
) -> dict[str, Any]:
    """Score the clips without adaptation under each condition; show the scores and return them."""
    clean = unadapted(heard).corpora
    scores = {}
    for name, condition in conditions.items():
        changed = clean
        if name != "clean":
            sounds = progress(sounds_under(condition, heard.clips), name, len(heard.clips))
            changed = score_by_corpus(heard.clips, np.array([recognize(sound).probs for sound in sounds]))
        scores[name] = condition_scores(clean, changed)
    if show:
        progress.show(condition_table(scores, trained_corpora(heard.bundle.manifest.training)))
    return {"conditions": {name: asdict(item) for name, item in scores.items()}}
