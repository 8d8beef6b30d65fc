"""Does it help? Cross-validation inside a session: every take is judged by what the others taught."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.candidates import Candidate, candidates, speaker_normalisation
from calibrate.fitting.embeddings import extract_embeddings
from calibrate.fitting.examples import examples
from calibrate.fitting.folds import Folds, hold_out
from calibrate.fitting.scores import Answers, Gain, Scores, gain, score
from calibrate.takes import InputNormalisation, Take
from edge.arrays import Array
from edge.features.frontend import filtered, power_spectrogram
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.profile import ADOPTED, REJECTED

if TYPE_CHECKING:
    from edge.inference.engine import Engine

LEAST_GAIN: Final = 0.02
"""Nats of held-out log loss; less is not worth a profile."""


@dataclass(frozen=True)
class HeadInputs:
    """What a head may read of each take, (W, X), under one choice of statistics."""

    normalisation: InputNormalisation
    """The choice, made on all takes."""
    fitting: Sequence[Array]
    """Of each take, under that choice: to fit on."""
    scoring: Sequence[Array]
    """Of each take, under the choice that the other folds alone lead to: to be judged on."""


@dataclass(frozen=True)
class Judgement:
    """What came of a session."""

    chosen: Candidate
    verdict: str
    """`ADOPTED` or `REJECTED`."""
    reason: str
    scores: Mapping[str, Scores]
    """Of each candidate, on held-out takes."""
    gains: Mapping[str, Gain]
    """Of the choice over the generic model on held-out takes: "uar" and "log_loss" (what it falls by)."""

    @property
    def before(self) -> Scores:
        """Of the generic model."""
        return self.scores["generic"]

    @property
    def after(self) -> Scores:
        """Of the chosen candidate."""
        return self.scores[self.chosen.name]


@dataclass(frozen=True)
class Fitted:
    """What a profile holds, and how it was judged."""

    head: Head
    normalisation: InputNormalisation
    judgement: Judgement
    folds: Folds

    def report(self) -> dict[str, Any]:
        """Describe the judgement as JSON can hold it."""
        judged = self.judgement
        return {
            "reason": judged.reason,
            "chosen": judged.chosen.name,
            "held_out_by": self.folds.held_out_by,
            "one_sentence": self.folds.one_sentence,
            "before": judged.before.described(),
            "after": judged.after.described(),
            "gain": {name: item.described() for name, item in judged.gains.items()},
            "confusion": {
                "before": judged.before.described_confusion(),
                "after": judged.after.described_confusion(),
            },
            "candidates": {name: scores.described() for name, scores in judged.scores.items()},
        }


def fit_and_judge(bundle: Bundle, engine: Engine, takes: Sequence[Take], sounds: Sequence[Array]) -> Fitted:
    """Fit a session in every way it supports, and choose and judge by its held-out takes.

    Deterministic.

    Args:
        bundle: the generic model.
        engine: runs its graphs.
        takes: of one speaker.
        sounds: (N,) samples at 16 kHz of each.
    """
    folds = hold_out(takes)
    tried = candidates(takes, sounds, bundle.head)
    generic = hear(bundle, engine, sounds)
    own = generic
    if any(candidate.own_statistics for candidate in tried):
        own = hear_with_own_statistics(bundle, engine, takes, sounds, folds.first_round())
    hearings = {candidate.name: own if candidate.own_statistics else generic for candidate in tried}
    answers = {
        candidate.name: held_out_answers(
            candidate,
            bundle.head,
            hearings[candidate.name],
            takes,
            folds.first_round() if candidate.own_statistics else folds,
        )
        for candidate in tried
    }
    judgement = judge(tried, answers)
    hearing = hearings[judgement.chosen.name]
    head = judgement.chosen.head(bundle.head, examples(hearing.fitting, takes))
    return Fitted(head, hearing.normalisation, judgement, folds)


def hear(bundle: Bundle, engine: Engine, sounds: Sequence[Array]) -> HeadInputs:
    """Hear the takes as the generic model does."""
    normalisation = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    heard = extract_embeddings(engine, bundle.manifest.front_end, normalisation, sounds)
    return HeadInputs(normalisation, heard, heard)


def hear_with_own_statistics(
    bundle: Bundle, engine: Engine, takes: Sequence[Take], sounds: Sequence[Array], folds: Folds
) -> HeadInputs:
    """Hear the takes with the speaker's statistics; each to be judged on without its own fold's part."""
    front_end = bundle.manifest.front_end
    powers = [power_spectrogram(filtered(sound, front_end), front_end) for sound in sounds]
    generic = InputNormalisation(bundle.manifest.levels, bundle.statistics)

    def of(chosen: NDArray[np.bool_]) -> InputNormalisation:
        indices = np.flatnonzero(chosen).tolist()
        return speaker_normalisation(
            generic, [powers[index] for index in indices], [takes[index].emotion for index in indices]
        )

    scoring: list[Array] = [np.zeros(0, np.float32)] * len(sounds)
    for _, held_out in folds:
        indices = np.flatnonzero(held_out).tolist()
        heard = extract_embeddings(engine, front_end, of(~held_out), [sounds[index] for index in indices])
        for index, windows in zip(indices, heard, strict=True):
            scoring[index] = windows
    normalisation = of(np.ones(len(sounds), bool))
    return HeadInputs(normalisation, extract_embeddings(engine, front_end, normalisation, sounds), scoring)


def held_out_answers(
    candidate: Candidate, generic: Head, hearing: HeadInputs, takes: Sequence[Take], folds: Folds
) -> Answers:
    """Answer for each take by the head that the other folds lead to, averaged over its windows."""
    posteriors = np.zeros((len(folds.rounds), len(takes), len(EMOTIONS)))
    for index, held_out in folds:
        rest = np.flatnonzero(~held_out).tolist()
        head = candidate.head(
            generic, examples([hearing.fitting[take] for take in rest], [takes[take] for take in rest])
        )
        for take in np.flatnonzero(held_out).tolist():
            posteriors[index, take] = head.probs(hearing.scoring[take]).mean(axis=0)
    return Answers(posteriors, np.array([take.emotion for take in takes]))


def judge(tried: Sequence[Candidate], answers: Mapping[str, Answers]) -> Judgement:
    """Choose among candidates by held-out log loss, and adopt the choice only if it helps.

    Chosen is the one of the lowest loss, handicaps counted. It is adopted if it lowers the generic
    model's loss by `LEAST_GAIN` and is worth more than guesses.

    Args:
        tried: simplest first; the first is the generic model.
        answers: of each, by name.
    """
    scores = {candidate.name: score(answers[candidate.name]) for candidate in tried}
    chosen = min(tried, key=lambda candidate: scores[candidate.name].log_loss + candidate.complexity_penalty)
    before, after = answers["generic"], answers[chosen.name]
    emotions = before.truth.tolist()
    gains = {
        "uar": gain(after.right().astype(float) - before.right(), emotions),
        "log_loss": gain(before.losses() - after.losses(), emotions),
    }
    objection = _objection(scores["generic"], scores[chosen.name], _lacking(emotions))
    reason = objection or f"it lowers the log loss of held-out takes by {gains['log_loss'].mean:.2f}"
    return Judgement(chosen, REJECTED if objection else ADOPTED, reason, scores, gains)


def _lacking(emotions: Sequence[int]) -> list[str]:
    """Name the emotions of which there is no take."""
    return [name for emotion, name in enumerate(EMOTIONS) if emotion not in emotions]


def _objection(before: Scores, after: Scores, lacking: Sequence[str]) -> str:
    """Say why a choice is not to be adopted; empty: nothing speaks against it."""
    if lacking:
        return f"nothing can be fitted without takes of {' and of '.join(lacking)}: record some of each"
    if before.log_loss - after.log_loss < LEAST_GAIN:
        return "nothing helped: the generic model does as well on held-out takes"
    guesses = len(EMOTIONS)
    if after.log_loss > math.log(guesses) - LEAST_GAIN or after.uar <= 1.0 / guesses + 1e-9:
        return "its answers to held-out takes are worth no more than guesses: check the labels"
    return ""
