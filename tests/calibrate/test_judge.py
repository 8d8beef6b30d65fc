"""Whether a fit helps is judged on held-out takes, and a session that misleads is rejected."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from calibrate.fit import CANDIDATES, Candidate, Examples, Floats, speaker_normalisation
from calibrate.judge import (
    ADOPTED,
    MOST_FOLDS,
    REJECTED,
    Fitted,
    Folds,
    Hearing,
    Judgement,
    fit_and_judge,
    held_out_posteriors,
    hold_out,
    judge,
    score,
)
from calibrate.takes import Normalisation, Take, listen
from edge.bundle import Bundle, Graphs, Manifest
from edge.engine import EncoderState, Engine
from edge.frontend import Array, FrontEnd
from edge.head import Head
from edge.labels import EMOTIONS
from edge.normaliser import BinStatistics, Levels

SIZE = 8
ON_HEAD = [candidate for candidate in CANDIDATES if not candidate.own_statistics]
PLAIN = Normalisation(Levels(), BinStatistics(np.zeros(200, np.float32), np.ones(200, np.float32)))


def a_head(scale: float = 2.0) -> Head:
    """A head that is right about `heard`: each emotion has a direction of the embedding."""
    eye = np.eye(SIZE, dtype=np.float32)
    nothing = np.zeros(4, np.float32)
    return Head(
        eye, np.zeros(SIZE, np.float32), eye[:4], nothing, scale * np.eye(4, dtype=np.float32), nothing
    )


def heard(emotions: Sequence[int], seed: int, noise: float = 0.35) -> list[Array]:
    """Embeddings of takes, in the directions that `a_head` knows."""
    draw = np.random.default_rng(seed)
    windows = []
    for emotion in emotions:
        direction = np.eye(SIZE)[emotion] + noise * draw.standard_normal(SIZE)
        windows.append(
            (direction + 0.1 * draw.standard_normal((draw.integers(1, 4), SIZE))).astype(np.float32)
        )
    return windows


def takes_of(emotions: Sequence[int], texts: Sequence[str] = ()) -> list[Take]:
    return [
        Take(Path(f"{index}.wav"), emotion, texts[index] if texts else "")
        for index, emotion in enumerate(emotions)
    ]


def judged(head: Head, embeddings: list[Array], emotions: Sequence[int]) -> Judgement:
    folds = hold_out(takes_of(emotions))
    hearing = Hearing(PLAIN, embeddings, embeddings)
    posteriors = {
        candidate.name: held_out_posteriors(candidate, head, hearing, emotions, folds)
        for candidate in ON_HEAD
    }
    return judge(ON_HEAD, posteriors, emotions)


EIGHT = [0, 0, 1, 1, 2, 2, 3, 3]
SIXTEEN = EIGHT * 2


def test_takes_are_held_out_by_sentence_where_sentences_repeat() -> None:
    folds = hold_out(takes_of(EIGHT, ["The lid.", "The dog."] * 4))
    assert (folds.held_out_by, folds.count) == ("sentence", 2)
    assert folds.of_take.tolist() == [0, 1] * 4


def test_a_sentence_is_the_same_however_it_is_spaced_and_capitalised() -> None:
    texts = ["the  lid", "The dog", "The lid ", "the dog"] * 2
    assert hold_out(takes_of(EIGHT, texts)).of_take.tolist() == [0, 1] * 4


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["The lid."] * 8,
        ["The lid."] * 7 + [""],
        ["Fine.", "Fine.", "Great!", "Great!", "Alas.", "Alas.", "Out!", "Out!"],
    ],
    ids=["unknown", "one sentence", "one missing", "a sentence for each emotion"],
)
def test_takes_are_held_out_singly_where_sentences_cannot_be(texts: list[str]) -> None:
    folds = hold_out(takes_of(EIGHT, texts))
    assert folds.held_out_by == "take"
    assert sorted(folds.of_take.tolist()) == list(range(8))


@pytest.mark.parametrize(
    "counts", [(2, 2, 2, 2), (10, 10, 10, 10), (2, 9, 3, 30), (2, 2, 0, 0), (3, 0, 2, 5)]
)
@pytest.mark.parametrize("by", ["sentence", "take"])
def test_whatever_is_held_out_every_emotion_is_left_to_fit_on(counts: tuple[int, ...], by: str) -> None:
    emotions = [emotion for emotion, count in enumerate(counts) for _ in range(count)]
    texts = [str(sum(emotions[:index]) % 5) for index in range(len(emotions))] if by == "sentence" else []
    folds = hold_out(takes_of(emotions, texts))
    left = [set(np.array(emotions)[~held_out].tolist()) for held_out in folds]
    assert all(emotions_left == set(emotions) for emotions_left in left)
    assert np.array(list(folds)).sum(axis=0).tolist() == [1] * len(emotions)
    assert folds.count <= MOST_FOLDS


def test_no_take_is_judged_by_a_head_that_was_fitted_on_it() -> None:
    embeddings = [np.full((1, SIZE), index, np.float32) for index in range(8)]
    folds = Folds("take", np.array([0, 1, 2, 0, 1, 2, 0, 1]))
    fitted_on: list[set[float]] = []

    def spy(generic: Head, examples: Examples) -> Head:
        fitted_on.append(set(examples.embeddings[:, 0].tolist()))
        return generic

    held_out_posteriors(
        Candidate("spy", own_statistics=False, fit=spy),
        a_head(),
        Hearing(PLAIN, embeddings, embeddings),
        EIGHT,
        folds,
    )
    assert fitted_on == [{1, 2, 4, 5, 7}, {0, 2, 3, 5, 6}, {0, 1, 3, 4, 6, 7}]


def test_scores_are_what_they_say() -> None:
    posteriors = np.array([[0.9, 0.1, 0, 0], [0.6, 0.4, 0, 0], [0, 1.0, 0, 0]])
    scores = score(posteriors, [0, 0, 0])
    assert scores.uar == pytest.approx(2 / 3)
    assert scores.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(1e-6)) / 3)
    assert scores.ece == pytest.approx((0.1 + 0.4 + 1.0) / 3)
    assert score(posteriors, [0, 0, 1]).uar == 1.0
    assert score(posteriors, [1, 1, 1]).uar == pytest.approx(1 / 3)
    assert score(posteriors, [0, 1, 1]).uar == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_session_with_a_consistent_bias_is_adopted(seed: int) -> None:
    head = a_head()
    skewed = replace(head, fc3_bias=np.array([0, 4, 0, 0], np.float32))
    result = judged(skewed, heard(SIXTEEN, seed), SIXTEEN)
    assert result.verdict == ADOPTED, result.reason
    assert result.after.uar > result.before.uar + 0.2
    assert result.after.log_loss < result.before.log_loss - 0.3


def test_a_session_that_misleads_is_rejected() -> None:
    """Labels in an order that has nothing to do with the sound: what is learned from them is chance."""
    right = wrong = 0
    for seed in range(15):
        labels = np.random.default_rng(seed).permutation(SIXTEEN).tolist()
        result = judged(a_head(), heard(SIXTEEN, seed), labels)
        wrong += result.verdict == ADOPTED
        right += judged(a_head(), heard(SIXTEEN, seed), SIXTEEN).verdict == REJECTED
        assert result.reason
    assert wrong <= 1
    assert right <= 7  # the same sounds, labelled rightly, are mostly worth a profile


def test_a_model_that_is_right_already_is_left_alone() -> None:
    result = judged(a_head(scale=8.0), heard(SIXTEEN, 0, noise=0.1), SIXTEEN)
    assert result.verdict == REJECTED
    assert "nothing helped" in result.reason


def posterior(probs: Sequence[float]) -> Floats:
    """Answers to `EIGHT` that give the truth these probabilities, the rest to the next emotion."""
    rows = np.zeros((8, 4))
    for index, (emotion, prob) in enumerate(zip(EIGHT, probs, strict=True)):
        rows[index, emotion], rows[index, (emotion + 1) % 4] = prob, 1.0 - prob
    return rows


def judge_two(generic: Sequence[float], bias: Sequence[float]) -> Judgement:
    tried = [candidate for candidate in CANDIDATES if candidate.name in ("generic", "bias")]
    return judge(tried, {"generic": posterior(generic), "bias": posterior(bias)}, EIGHT)


def test_a_fit_that_recognises_fewer_takes_is_rejected_however_small_its_loss() -> None:
    result = judge_two([0.51] * 7 + [0.01], [0.98] * 6 + [0.49] * 2)
    assert result.after.log_loss < result.before.log_loss - 0.5
    assert result.verdict == REJECTED
    assert "fewer held-out takes (75% instead of 88%)" in result.reason


@pytest.mark.parametrize("after", [[0.24] * 8, [0.9] * 2 + [0.49] * 6], ids=["by its loss", "by its recall"])
def test_a_fit_no_better_than_guesses_is_rejected_however_bad_the_model_was(after: list[float]) -> None:
    result = judge_two([0.01] * 8, after)
    assert result.verdict == REJECTED
    assert "no more than guesses" in result.reason


def test_a_gain_too_small_or_too_uncertain_is_not_worth_a_profile() -> None:
    small = judge_two([0.60] * 8, [0.61] * 8)
    uncertain = judge_two([0.6] * 8, [0.6] * 6 + [0.5, 0.99])
    clear = judge_two([0.6] * 8, [0.8] * 8)
    assert (small.verdict, uncertain.verdict, clear.verdict) == (REJECTED, REJECTED, ADOPTED)
    assert "nothing helped" in small.reason


def test_of_two_that_are_as_good_the_simpler_is_chosen() -> None:
    bias, head = posterior([0.80, 0.82] * 4), posterior([0.84, 0.79] * 4)
    posteriors = {"generic": posterior([0.4] * 8), "bias": bias, "head": head}
    assert judge(ON_HEAD, posteriors, EIGHT).chosen.name == "bias"
    posteriors["head"] = posterior([0.95, 0.97] * 4)
    assert judge(ON_HEAD, posteriors, EIGHT).chosen.name == "head"


def test_a_session_that_supports_no_fit_is_told_what_it_lacks() -> None:
    result = judge(CANDIDATES[:1], {"generic": posterior([0.5] * 8)}, EIGHT)
    assert result.verdict == REJECTED
    assert "record takes of all four emotions" in result.reason


class ToyEngine:
    """Stands for the graphs: a feature is the mean of 8 frames, an embedding the mean of its features."""

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
    """A model that knows the bands of `tones`, but has a bias towards happy."""
    fc1, fc2 = np.eye(SIZE, dtype=np.float32), np.zeros((4, SIZE), np.float32)
    for emotion in range(4):
        fc2[emotion, 2 * emotion : 2 * emotion + 2] = 1.0
    nothing, skew = np.zeros(4, np.float32), np.array([0, happy, 0, 0], np.float32)
    head = Head(fc1, np.full(SIZE, 8.0, np.float32), fc2, nothing, np.eye(4, dtype=np.float32), skew)
    manifest = Manifest("toy", EMOTIONS, FrontEnd(), Levels(), ToyEngine.graphs, False, "none")
    return Bundle(Path(), manifest, head, BinStatistics(np.zeros(200, np.float32), np.ones(200, np.float32)))


def run_toy(bundle: Bundle, emotions: Sequence[int] = SIXTEEN, seed: int = 0) -> Fitted:
    return fit_and_judge(bundle, cast(Engine, ToyEngine()), takes_of(emotions), tones(emotions, seed))


def hear_again(fitted: Fitted) -> list[Array]:
    """Hear other sounds of the same speaker with what was fitted."""
    engine = cast(Engine, ToyEngine())
    return listen(engine, FrontEnd(), fitted.normalisation, tones(SIXTEEN, seed=9))


def test_a_speaker_whom_the_model_mistakes_is_learned_from_sound() -> None:
    fitted = run_toy(toy_bundle(happy=3.0))
    judgement = fitted.judgement
    assert judgement.verdict == ADOPTED
    assert (judgement.before.uar, judgement.after.uar) == pytest.approx((0.25, 1.0))
    assert set(judgement.scores) == {candidate.name for candidate in CANDIDATES}
    answers = [fitted.head.probs(windows).mean(axis=0).argmax() for windows in hear_again(fitted)]
    assert answers == SIXTEEN


def test_the_report_is_plain_json_that_says_how_it_was_judged() -> None:
    report = json.loads(json.dumps(run_toy(toy_bundle(happy=3.0)).report()))
    assert report["held_out_by"] == "take"
    assert report["folds"] == MOST_FOLDS
    assert report["before"] == report["candidates"]["generic"]
    assert report["after"] == report["candidates"][report["chosen"]]
    assert set(report["after"]) == {"uar", "log_loss", "ece"}


def test_judging_twice_gives_the_same_numbers() -> None:
    first, second = (run_toy(toy_bundle(happy=3.0)) for _ in range(2))
    assert first.report() == second.report()
    assert (first.head.fc2_weight == second.head.fc2_weight).all()


def test_a_take_is_judged_under_statistics_that_do_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of a fold are made of as many takes as are not held out."""
    counts: list[int] = []

    def spy(generic: Normalisation, powers: Sequence[Array], emotions: Sequence[int]) -> Normalisation:
        counts.append(len(powers))
        assert len(powers) == len(emotions)
        return speaker_normalisation(generic, powers, emotions)

    monkeypatch.setattr("calibrate.judge.speaker_normalisation", spy)
    run_toy(toy_bundle(), EIGHT)
    assert counts == [7] * 8 + [8]


def test_a_session_of_two_emotions_changes_nothing_and_says_why() -> None:
    bundle = toy_bundle(happy=3.0)
    fitted = run_toy(bundle, [0, 0, 1, 1])
    assert fitted.judgement.verdict == REJECTED
    assert fitted.head is bundle.head
    assert fitted.normalisation.statistics is bundle.statistics
