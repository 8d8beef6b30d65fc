"""A fit is judged on held-out takes, and a session with wrong labels is rejected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from calibrate.fitting.candidates import CANDIDATES, Candidate, keep_baseline, speaker_normalisation
from calibrate.fitting.embeddings import extract_embeddings
from calibrate.fitting.examples import Examples, examples
from calibrate.fitting.folds import Folds, hold_out
from calibrate.fitting.model_selection import (
    LEAST_IMPROVEMENT,
    Fitted,
    HeadInputs,
    Judgement,
    fit_and_judge,
    judge,
    predict_held_out,
)
from calibrate.fitting.scores import HeldOutPredictions
from calibrate.takes import InputNormalisation
from edge.arrays import Array
from edge.features.frontend import FrontEnd
from edge.features.normaliser import BinStatistics, GainConfig
from edge.inference.engine import EncoderState, Engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.manifest import Graphs, Manifest
from edge.model.profile import ADOPTED, REJECTED
from edge.recognition.drift import posterior_entropy
from tests.calibrate.fitting.toys import (
    EIGHT,
    PLAIN,
    SIXTEEN,
    SIZE,
    embeddings_of,
    knowing_head,
    starting_at,
    takes_of,
)

ON_HEAD = [candidate for candidate in CANDIDATES if not candidate.own_statistics]


def judged(head: Head, embeddings: list[Array], emotions: Sequence[int]) -> Judgement:
    """Judge the candidates that fit the head alone."""
    takes = takes_of(emotions)
    folds, inputs = hold_out(takes), HeadInputs(PLAIN, embeddings, embeddings)
    answers = {
        candidate.name: predict_held_out(candidate, starting_at(head), inputs, takes, folds)
        for candidate in ON_HEAD
    }
    return judge(ON_HEAD, answers)


def test_no_take_is_judged_by_a_head_that_was_fitted_on_it() -> None:
    embeddings = [np.full((1, SIZE), index, np.float32) for index in range(8)]
    folds = Folds("take", (np.array([0, 1, 2, 0, 1, 2, 0, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1])))
    fitted_on: list[set[float]] = []

    def spy(generic: Head, examples: Examples) -> Head:
        fitted_on.append(set(examples.inputs[:, 0].tolist()))
        return generic

    predict_held_out(
        Candidate("spy", own_statistics=False, fit=spy),
        starting_at(knowing_head()),
        HeadInputs(PLAIN, embeddings, embeddings),
        takes_of(EIGHT),
        folds,
    )
    assert fitted_on == [{1, 2, 4, 5, 7}, {0, 2, 3, 5, 6}, {0, 1, 3, 4, 6, 7}, {4, 5, 6, 7}, {0, 1, 2, 3}]


def test_a_take_is_answered_by_the_average_over_its_windows_in_each_round() -> None:
    head, embeddings = knowing_head(), embeddings_of(EIGHT, 0)
    folds = hold_out(takes_of(EIGHT))
    inputs = HeadInputs(PLAIN, embeddings, embeddings)
    found = predict_held_out(CANDIDATES[0], starting_at(head), inputs, takes_of(EIGHT), folds)
    expected = [head.probs(windows).mean(axis=0) for windows in embeddings]
    assert found.truth.tolist() == EIGHT
    assert len(found.posteriors) == len(folds.rounds) > 1
    for posteriors in found.posteriors:
        np.testing.assert_allclose(posteriors, expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_session_with_a_consistent_bias_is_adopted(seed: int) -> None:
    skewed = replace(knowing_head(), fc3_bias=np.array([0, 4, 0, 0], np.float32))
    result = judged(skewed, embeddings_of(SIXTEEN, seed), SIXTEEN)
    assert result.verdict == ADOPTED, result.reason
    assert result.after.uar > result.before.uar + 0.2
    assert result.after.log_loss < result.before.log_loss - 0.3
    assert result.improvements["uar"].low > 0.0
    assert result.improvements["log_loss"].mean == pytest.approx(
        result.before.log_loss - result.after.log_loss
    )


def test_a_session_with_permuted_labels_is_rejected() -> None:
    """Permuted labels are independent of the sounds, so an improvement is by chance."""
    wrong = 0
    for seed in range(15):
        labels = np.random.default_rng(seed).permutation(SIXTEEN).tolist()
        result = judged(knowing_head(), embeddings_of(SIXTEEN, seed), labels)
        wrong += result.verdict == ADOPTED
        assert result.reason
    assert wrong <= 1


def test_the_same_sounds_with_correct_labels_are_mostly_adopted() -> None:
    verdicts = [judged(knowing_head(), embeddings_of(SIXTEEN, seed), SIXTEEN).verdict for seed in range(15)]
    assert verdicts.count(REJECTED) <= 3


def test_a_model_that_is_right_already_is_left_alone() -> None:
    result = judged(knowing_head(scale=8.0), embeddings_of(SIXTEEN, 0, noise=0.1), SIXTEEN)
    assert result.verdict == REJECTED
    assert "no fit helped" in result.reason


def answers(probs: Sequence[float]) -> HeldOutPredictions:
    """Predictions to `EIGHT` that give the truth these probabilities, the rest to the next emotion."""
    posteriors = np.zeros((1, 8, 4))
    for index, (emotion, prob) in enumerate(zip(EIGHT, probs, strict=True)):
        posteriors[0, index, emotion], posteriors[0, index, (emotion + 1) % 4] = prob, 1.0 - prob
    return HeldOutPredictions(posteriors, np.array(EIGHT))


def candidate(name: str, complexity_penalty: float = 0.0) -> Candidate:
    return Candidate(
        name, own_statistics=False, fit=lambda generic, _: generic, complexity_penalty=complexity_penalty
    )


def judge_of(generic: Sequence[float], other: Sequence[float], complexity_penalty: float = 0.0) -> Judgement:
    tried = [CANDIDATES[0], candidate("other", complexity_penalty)]
    return judge(tried, {"generic": answers(generic), "other": answers(other)})


@pytest.mark.parametrize("after", [[0.24] * 8, [0.9] * 2 + [0.49] * 6], ids=["by its loss", "by its recall"])
def test_a_fit_no_better_than_guesses_is_rejected_however_bad_the_model_was(after: list[float]) -> None:
    result = judge_of([0.01] * 8, after)
    assert result.chosen.name == "other"
    assert result.verdict == REJECTED
    assert "no better than guesses" in result.reason


def test_a_small_improvement_is_rejected() -> None:
    too_little, enough = (0.6 * float(np.exp(share * LEAST_IMPROVEMENT)) for share in (0.9, 1.1))
    small = judge_of([0.6] * 8, [too_little] * 8)
    assert (small.chosen.name, small.verdict) == ("other", REJECTED)
    assert "no fit helped" in small.reason
    assert judge_of([0.6] * 8, [enough] * 8).verdict == ADOPTED


def test_a_fit_that_raises_the_loss_is_not_chosen() -> None:
    result = judge_of([0.8] * 8, [0.6] * 8)
    assert (result.chosen.name, result.verdict) == ("generic", REJECTED)
    assert result.after == result.before
    assert (result.improvements["uar"].low, result.improvements["uar"].high) == (0.0, 0.0)


def test_a_complexity_penalty_has_to_be_overcome_to_be_chosen() -> None:
    ahead = 0.5 * float(np.exp(0.1))
    assert judge_of([0.5] * 8, [ahead] * 8, complexity_penalty=0.11).chosen.name == "generic"
    assert judge_of([0.5] * 8, [ahead] * 8, complexity_penalty=0.09).chosen.name == "other"


def test_a_complexity_penalty_decides_between_two_that_help() -> None:
    tried = [CANDIDATES[0], candidate("easy"), candidate("hard", complexity_penalty=0.1)]
    given = {"generic": answers([0.4] * 8), "easy": answers([0.8] * 8), "hard": answers([0.85] * 8)}
    assert judge(tried, given).chosen.name == "easy"
    given["hard"] = answers([0.95] * 8)
    assert judge(tried, given).chosen.name == "hard"


def test_of_two_equally_good_candidates_the_simpler_is_chosen() -> None:
    tried = [CANDIDATES[0], candidate("simple"), candidate("complex")]
    same = answers([0.80, 0.82] * 4)
    assert (
        judge(tried, {"generic": answers([0.4] * 8), "simple": same, "complex": same}).chosen.name == "simple"
    )


@pytest.mark.parametrize(
    ("emotions", "lacking"),
    [
        ([0, 0], "takes of happy and of sad and of angry"),
        ([0, 0, 3, 3], "takes of happy and of sad"),
        ([0, 0, 1, 1, 3, 3], "takes of sad:"),
    ],
    ids=["one emotion", "two emotions", "three emotions"],
)
def test_a_session_that_supports_no_fit_is_told_what_it_lacks(emotions: list[int], lacking: str) -> None:
    posteriors = np.full((1, len(emotions), 4), 0.25)
    result = judge(CANDIDATES[:1], {"generic": HeldOutPredictions(posteriors, np.array(emotions))})
    assert result.verdict == REJECTED
    assert f"nothing can be fitted without {lacking}" in result.reason


class ToyEngine:
    """Replaces the graphs: a feature is the mean of 8 frames, an embedding the mean of its features."""

    graphs = Graphs((), 200, SIZE, 8, 8, 32)
    bins = 200

    def initial_state(self) -> EncoderState:
        return EncoderState(())

    def encode(self, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        features: Array = frames.reshape(1, -1, 8, 200).mean(axis=2)
        return features, state

    def classify(self, windows: Array) -> Array:
        bands: Array = windows.mean(axis=1).reshape(len(windows), SIZE, 200 // SIZE).mean(axis=2)
        return bands


def tones(emotions: Sequence[int], seed: int = 0) -> list[Array]:
    """Sounds of 1 s whose emotion is the loudest of four bands of 500 Hz."""
    draw = np.random.default_rng(seed)
    sounds = []
    for emotion in emotions:
        time_s = np.arange(16_000) / 16_000
        tone = np.sin(2.0 * np.pi * (250 + 1000 * emotion + 100 * draw.random()) * time_s)
        sounds.append((0.2 * tone + 0.02 * draw.standard_normal(16_000)).astype(np.float32))
    return sounds


def toy_bundle(happy: float = 0.0) -> Bundle:
    """A model that distinguishes the bands of `tones`, with a bias towards happy."""
    fc1, fc2 = np.eye(SIZE, dtype=np.float32), np.zeros((4, SIZE), np.float32)
    for emotion in range(4):
        fc2[emotion, 2 * emotion : 2 * emotion + 2] = 1.0
    nothing, skew = np.zeros(4, np.float32), np.array([0, happy, 0, 0], np.float32)
    head = Head(fc1, np.full(SIZE, 8.0, np.float32), fc2, nothing, np.eye(4, dtype=np.float32), skew)
    manifest = Manifest("toy", EMOTIONS, FrontEnd(), GainConfig(), ToyEngine.graphs, False, "none")
    return Bundle(Path(), manifest, head, BinStatistics(np.zeros(200, np.float32), np.ones(200, np.float32)))


def run_toy(
    bundle: Bundle, emotions: Sequence[int] = SIXTEEN, seed: int = 0, texts: Sequence[str] = ()
) -> Fitted:
    engine = cast(Engine, ToyEngine())
    return fit_and_judge(bundle, engine, takes_of(emotions, texts), tones(emotions, seed))


def other_inputs(fitted: Fitted) -> list[Array]:
    """Extract inputs of other sounds of the same speaker with the fitted normalisation."""
    engine = cast(Engine, ToyEngine())
    return extract_embeddings(engine, FrontEnd(), fitted.normalisation, tones(SIXTEEN, seed=9))


def test_a_bias_of_the_model_is_corrected_from_sounds() -> None:
    fitted = run_toy(toy_bundle(happy=3.0))
    judgement = fitted.judgement
    assert judgement.verdict == ADOPTED
    assert (judgement.before.uar, judgement.after.uar) == pytest.approx((0.25, 1.0))
    for_it = [item for item in CANDIDATES if "linear" in item.spectra and item.fit is not keep_baseline]
    assert set(judgement.scores) == {candidate.name for candidate in for_it}
    answers = [fitted.head.probs(windows).mean(axis=0).argmax() for windows in other_inputs(fitted)]
    assert answers == SIXTEEN


def test_the_report_is_plain_json_that_says_how_it_was_judged() -> None:
    report = json.loads(json.dumps(run_toy(toy_bundle(happy=3.0)).report()))
    assert (report["held_out_by"], report["one_sentence"]) == ("take", False)
    assert report["before"] == report["candidates"]["generic"]
    assert report["after"] == report["candidates"][report["chosen"]]
    assert set(report["after"]) == {"uar", "log_loss", "ece"}
    assert report["confusion"]["before"]["sad"] == {"neutral": 0, "happy": 4, "sad": 0, "angry": 0}
    assert report["confusion"]["after"]["sad"] == {"neutral": 0, "happy": 0, "sad": 4, "angry": 0}
    assert report["gain"]["uar"] == {"mean": 0.75, "low": 0.75, "high": 0.75}
    fall = report["before"]["log_loss"] - report["after"]["log_loss"]
    assert report["gain"]["log_loss"]["mean"] == pytest.approx(fall, abs=2e-4)


def test_a_session_of_one_sentence_says_so_and_is_held_out_by_take() -> None:
    report = run_toy(toy_bundle(happy=3.0), texts=["The lid."] * 16).report()
    assert (report["held_out_by"], report["one_sentence"]) == ("take", True)


def test_a_session_of_several_sentences_is_held_out_by_sentence() -> None:
    report = run_toy(toy_bundle(happy=3.0), texts=["The lid.", "The dog."] * 8).report()
    assert (report["held_out_by"], report["one_sentence"]) == ("sentence", False)


def test_fitting_forty_takes_twice_gives_the_same_numbers() -> None:
    first, second = (run_toy(toy_bundle(happy=3.0), [0, 1, 2, 3] * 10) for _ in range(2))
    assert json.dumps(first.report()) == json.dumps(second.report())
    tensors = first.head.tensors()
    assert all((tensors[name] == array).all() for name, array in second.head.tensors().items())
    assert (first.normalisation.statistics.mean == second.normalisation.statistics.mean).all()


def test_a_take_is_judged_under_statistics_of_the_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of a fold are made of the takes that are not held out; the last are the profile's."""
    seen: list[list[int]] = []

    def spy(
        generic: InputNormalisation, powers: Sequence[Array], emotions: Sequence[int]
    ) -> InputNormalisation:
        assert len(powers) == len(emotions)
        seen.append(list(emotions))
        return speaker_normalisation(generic, powers, emotions)

    monkeypatch.setattr("calibrate.fitting.model_selection.speaker_normalisation", spy)
    run_toy(toy_bundle(), EIGHT)
    assert seen == [[0, 1, 2, 3], [0, 1, 2, 3], EIGHT]


def test_a_session_of_two_emotions_changes_nothing_and_says_why() -> None:
    bundle = toy_bundle(happy=3.0)
    fitted = run_toy(bundle, [0, 0, 1, 1])
    assert fitted.judgement.verdict == REJECTED
    assert "without takes of sad and of angry" in fitted.judgement.reason
    assert fitted.head is bundle.head
    assert fitted.normalisation.statistics is bundle.statistics


def test_the_entropy_of_a_take_is_that_of_heads_that_were_not_fitted_on_it() -> None:
    head, embeddings = knowing_head(), embeddings_of(EIGHT, 0)
    inputs, takes = HeadInputs(PLAIN, embeddings, embeddings), takes_of(EIGHT)

    def surer(generic: Head, examples: Examples) -> Head:
        return replace(generic, temperature=generic.temperature / len(examples.inputs))

    folds = Folds("take", (np.array([0, 0, 0, 0, 1, 1, 1, 1]),))
    candidate = Candidate("surer", own_statistics=False, fit=surer)
    found = predict_held_out(candidate, starting_at(head), inputs, takes, folds)
    expected = []
    for take in range(8):
        rest = range(4, 8) if take < 4 else range(4)
        others = examples([embeddings[other] for other in rest], [takes[other] for other in rest])
        expected.append(posterior_entropy(surer(head, others).probs(embeddings[take])))
    assert found.entropies is not None
    np.testing.assert_allclose(found.entropies, expected)


def test_the_entropy_of_a_guess_is_the_largest() -> None:
    assert posterior_entropy(np.full((3, 4), 0.25, np.float32)) == pytest.approx(np.log(4))
    assert posterior_entropy(np.eye(4, dtype=np.float32)) == pytest.approx(0.0)
