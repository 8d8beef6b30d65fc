"""Choice and judgement of the fit to a speaker, by cross-validation inside the session."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.candidates import Candidate, candidates, speaker_normalisation
from calibrate.fitting.embeddings import extract_embeddings
from calibrate.fitting.examples import examples
from calibrate.fitting.folds import Folds, hold_out
from calibrate.fitting.ordinary import StartingHeads, starting_heads
from calibrate.fitting.scores import HeldOutPredictions, HeldOutScores, Improvement, improvement, score
from calibrate.takes import InputNormalisation, Take
from edge.arrays import Array
from edge.features.frontend import filtered, power_spectrogram
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.profile import ADOPTED, REJECTED
from edge.recognition.drift import posterior_entropy
from edge.recognition.speaker_baseline import SpeakerLevel

if TYPE_CHECKING:
    from edge.inference.engine import EngineLike

LEAST_IMPROVEMENT: Final = 0.02
"""Nats of held-out log loss; a smaller improvement does not justify a profile."""


@dataclass(frozen=True)
class HeadInputs:
    """Inputs of the head for each take, (W, X), under one choice of statistics."""

    normalisation: InputNormalisation
    """Estimated on all takes."""
    fitting: Sequence[Array]
    """Of each take, under `normalisation`: to fit on."""
    scoring: Sequence[Array]
    """Of each take, under the normalisation estimated on the other folds: to be judged on."""


@dataclass(frozen=True)
class Judgement:
    """The chosen candidate, its held-out scores and the verdict."""

    chosen: Candidate
    verdict: Literal["adopted", "rejected"]
    reason: str
    scores: Mapping[str, HeldOutScores]
    """By candidate, on held-out takes."""
    improvements: Mapping[str, Improvement]
    """Of the choice over the generic model on held-out takes: "uar" and "log_loss" (its decrease)."""

    @property
    def before(self) -> HeldOutScores:
        """Of the generic model."""
        return self.scores["generic"]

    @property
    def after(self) -> HeldOutScores:
        """Of the chosen candidate."""
        return self.scores[self.chosen.name]


@dataclass(frozen=True)
class Fitted:
    """The content of a profile, and its judgement."""

    head: Head
    normalisation: InputNormalisation
    judgement: Judgement
    folds: Folds
    optimism: float
    """Nats by which the head is surer of the takes it was fitted on than of held-out ones, >= 0."""

    def report(self) -> dict[str, Any]:
        """Return the judgement as JSON types."""
        judged = self.judgement
        return {
            "reason": judged.reason,
            "chosen": judged.chosen.name,
            "held_out_by": self.folds.held_out_by,
            "one_sentence": self.folds.one_sentence,
            "before": judged.before.described(),
            "after": judged.after.described(),
            "gain": {name: item.described() for name, item in judged.improvements.items()},
            "confusion": {
                "before": judged.before.described_confusion(),
                "after": judged.after.described_confusion(),
            },
            "candidates": {name: scores.described() for name, scores in judged.scores.items()},
            "optimism": self.optimism,
        }


def fit_and_judge(
    bundle: Bundle,
    engine: EngineLike,
    takes: Sequence[Take],
    sounds: Sequence[Array],
    *,
    ordinary: SpeakerLevel | None = None,
) -> Fitted:
    """Fit all candidates that a session supports; choose and judge by its held-out takes.

    Deterministic.

    Args:
        bundle: the generic model.
        engine: runs its graphs.
        takes: of one speaker.
        sounds: (N,) samples at 16 kHz of each.
        ordinary: level of the speaker's ordinary speech; None: that of the takes that are fitted on.
    """
    folds = hold_out(takes)
    tried = candidates(takes, sounds, bundle.head, bundle.manifest.front_end.spectrum)
    generic = generic_inputs(bundle, engine, sounds)
    starts = starting_heads(bundle, engine, generic.fitting, [take.emotion for take in takes], ordinary)
    own = generic
    if any(candidate.own_statistics for candidate in tried):
        own = own_statistics_inputs(bundle, engine, takes, sounds, folds.first_round())
    inputs_of = {candidate.name: own if candidate.own_statistics else generic for candidate in tried}
    predictions = {
        candidate.name: predict_held_out(
            candidate,
            starts,
            inputs_of[candidate.name],
            takes,
            folds.first_round() if candidate.own_statistics else folds,
        )
        for candidate in tried
    }
    judgement = judge(tried, predictions)
    inputs = inputs_of[judgement.chosen.name]
    start = starts.fitted_on(range(len(takes)))
    head = judgement.chosen.head(bundle.head, start, examples(inputs.fitting, takes))
    held_out = predictions[judgement.chosen.name].entropies
    assert held_out is not None, "predict_held_out computes them"
    fitted = np.array([posterior_entropy(head.probs(windows)) for windows in inputs.fitting])
    optimism = round(max(0.0, float((held_out - fitted).mean())), 4)
    return Fitted(head, inputs.normalisation, judgement, folds, optimism)


def generic_inputs(bundle: Bundle, engine: EngineLike, sounds: Sequence[Array]) -> HeadInputs:
    """Extract the inputs under the bundle's normalisation."""
    normalisation = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    extracted = extract_embeddings(engine, bundle.manifest.front_end, normalisation, sounds)
    return HeadInputs(normalisation, extracted, extracted)


def own_statistics_inputs(
    bundle: Bundle, engine: EngineLike, takes: Sequence[Take], sounds: Sequence[Array], folds: Folds
) -> HeadInputs:
    """Extract the inputs under the speaker's statistics; for scoring, without the take's own fold."""
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
        extracted = extract_embeddings(engine, front_end, of(~held_out), [sounds[index] for index in indices])
        for index, windows in zip(indices, extracted, strict=True):
            scoring[index] = windows
    normalisation = of(np.ones(len(sounds), bool))
    return HeadInputs(normalisation, extract_embeddings(engine, front_end, normalisation, sounds), scoring)


def predict_held_out(
    candidate: Candidate, starts: StartingHeads, inputs: HeadInputs, takes: Sequence[Take], folds: Folds
) -> HeldOutPredictions:
    """Predict each take with the head fitted to the other folds, averaged over the take's windows."""
    posteriors = np.zeros((len(folds.rounds), len(takes), len(EMOTIONS)))
    entropies = np.zeros((len(folds.rounds), len(takes)))
    for index, held_out in folds:
        rest = np.flatnonzero(~held_out).tolist()
        fitted_on = examples([inputs.fitting[take] for take in rest], [takes[take] for take in rest])
        head = candidate.head(starts.generic, starts.fitted_on(rest), fitted_on)
        for take in np.flatnonzero(held_out).tolist():
            windows = head.probs(inputs.scoring[take])
            posteriors[index, take] = windows.mean(axis=0)
            entropies[index, take] = posterior_entropy(windows)
    return HeldOutPredictions(posteriors, np.array([take.emotion for take in takes]), entropies.mean(axis=0))


def judge(tried: Sequence[Candidate], predictions: Mapping[str, HeldOutPredictions]) -> Judgement:
    """Choose among candidates by held-out log loss, and adopt the choice only if it helps.

    The candidate with the lowest sum of loss and complexity penalty is chosen. It is adopted if it lowers
    the generic model's loss by `LEAST_IMPROVEMENT` and is better than guessing.

    Args:
        tried: simplest first; the first is the generic model.
        predictions: by the candidate's name.
    """
    scores = {candidate.name: score(predictions[candidate.name]) for candidate in tried}
    chosen = min(tried, key=lambda candidate: scores[candidate.name].log_loss + candidate.complexity_penalty)
    before, after = predictions["generic"], predictions[chosen.name]
    emotions = before.truth.tolist()
    improvements = {
        "uar": improvement(after.correct().astype(float) - before.correct(), emotions),
        "log_loss": improvement(before.losses() - after.losses(), emotions),
    }
    rejection = _rejection_reason(scores["generic"], scores[chosen.name], _missing_emotions(emotions))
    reason = rejection or f"it lowers the log loss of held-out takes by {improvements['log_loss'].mean:.2f}"
    return Judgement(chosen, REJECTED if rejection else ADOPTED, reason, scores, improvements)


def _missing_emotions(emotions: Sequence[int]) -> list[str]:
    """Name the emotions without a take."""
    return [name for emotion, name in enumerate(EMOTIONS) if emotion not in emotions]


def _rejection_reason(before: HeldOutScores, after: HeldOutScores, missing: Sequence[str]) -> str:
    """Say why a choice is rejected; empty: it is adopted."""
    if missing:
        names = " and of ".join(missing)
        return f"nothing can be fitted without takes of {names}: record two or more of each"
    if before.log_loss - after.log_loss < LEAST_IMPROVEMENT:
        return "no fit helped: the generic model does as well on held-out takes"
    guesses = len(EMOTIONS)
    if after.log_loss > math.log(guesses) - LEAST_IMPROVEMENT or after.uar <= 1.0 / guesses + 1e-9:
        return "its answers to held-out takes are no better than guesses: check the labels"
    return ""
