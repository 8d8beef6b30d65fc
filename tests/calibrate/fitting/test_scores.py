"""Scores of held-out predictions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.fitting.gradient_descent import Floats
from calibrate.fitting.scores import HeldOutPredictions, improvement, score


def answers(posteriors: list[list[float]], truth: list[int]) -> HeldOutPredictions:
    """Predictions of one round."""
    return HeldOutPredictions(np.array([posteriors]), np.array(truth))


THREE = [[0.9, 0.1, 0, 0], [0.6, 0.4, 0, 0], [0, 1.0, 0, 0]]


def test_scores_are_what_they_say() -> None:
    scores = score(answers(THREE, [0, 0, 0]))
    assert scores.uar == pytest.approx(2 / 3)
    assert scores.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(1e-6)) / 3)
    assert scores.ece == pytest.approx((0.1 + 0.4 + 1.0) / 3)


def test_the_recall_of_the_emotions_is_averaged() -> None:
    assert score(answers(THREE, [0, 0, 1])).uar == 1.0
    assert score(answers(THREE, [1, 1, 1])).uar == pytest.approx(1 / 3)
    assert score(answers(THREE, [0, 1, 1])).uar == pytest.approx((1 + 1 / 2) / 2)


def test_the_loss_is_averaged_over_the_emotions_too() -> None:
    losses = -np.log([0.9, 0.4, 1.0])
    expected = (losses[0] + (losses[1] + losses[2]) / 2) / 2
    assert score(answers(THREE, [0, 1, 1])).log_loss == pytest.approx(expected)


def test_confusion_counts_the_answers_to_each_emotion() -> None:
    scores = score(answers([*THREE, [0, 0, 0.2, 0.8]], [0, 1, 1, 3]))
    assert scores.confusion == ((1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1))
    assert scores.described_confusion() == {
        "neutral": {"neutral": 1, "happy": 0, "sad": 0, "angry": 0},
        "happy": {"neutral": 1, "happy": 1, "sad": 0, "angry": 0},
        "angry": {"neutral": 0, "happy": 0, "sad": 0, "angry": 1},
    }


def test_the_calibration_error_weighs_bins_of_a_tenth_of_confidence() -> None:
    """Two answers at 0.75, one of them right; one at 0.35, wrong: |0.5 - 0.75| 2/3 + |0 - 0.35| 1/3."""
    sure, unsure = [0.75, 0.25, 0, 0], [0.35, 0.25, 0.2, 0.2]
    assert score(answers([sure, sure, unsure], [0, 1, 1])).ece == pytest.approx((2 * 0.25 + 0.35) / 3)


def test_predictions_as_confident_as_accurate_have_no_calibration_error() -> None:
    rows = [[0.75, 0.25, 0, 0]] * 4
    assert score(answers(rows, [0, 0, 0, 1])).ece == pytest.approx(0.0)
    assert score(answers([[1.0, 0, 0, 0], [0, 1.0, 0, 0]], [0, 1])).ece == 0.0


def test_rounds_are_averaged_losses_by_loss_and_answers_by_posterior() -> None:
    rounds = HeldOutPredictions(np.array([[[0.3, 0.7, 0, 0]], [[0.9, 0.1, 0, 0]]]), np.array([0]))
    assert rounds.losses().tolist() == pytest.approx([-(math.log(0.9) + math.log(0.3)) / 2])
    assert rounds.labels().tolist() == [0]
    assert score(rounds).ece == pytest.approx(1.0 - 0.6)


differences = st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=40)


@given(better=differences, seed=st.integers(0, 1000))
def test_the_interval_holds_the_mean_and_lies_within_what_was_seen(better: list[float], seed: int) -> None:
    emotions = [0, 0, 1, 1, *np.random.default_rng(seed).integers(0, 4, len(better) - 4).tolist()]
    found = improvement(np.array(better), emotions)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert min(better) - 1e-9 <= found.low
    assert found.high <= max(better) + 1e-9


def test_an_improvement_is_the_mean_over_emotions() -> None:
    assert improvement(np.array([1.0, 0.0, 0.5]), [0, 0, 3]).mean == pytest.approx((0.5 + 0.5) / 2)


def test_the_same_takes_give_the_same_interval() -> None:
    better, emotions = np.random.default_rng(3).standard_normal(16), [0, 1, 2, 3] * 4
    assert improvement(better, emotions) == improvement(better.copy(), emotions)


def test_equal_improvements_have_no_interval_and_more_takes_narrow_it() -> None:
    even = improvement(np.full(8, 0.25), [0, 1, 2, 3] * 2)
    assert even.low == pytest.approx(0.25)
    assert even.high == pytest.approx(0.25)
    few, many = (
        improvement(np.tile([0.0, 1.0], 4 * count), sorted([0, 1, 2, 3] * 2 * count)) for count in (2, 20)
    )
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_the_interval_of_a_coin_is_that_of_the_normal_distribution() -> None:
    """Closed form: the mean of 200 takes, each 0 or 1, has a variance of 1 / 800."""
    half: Floats = np.tile(np.r_[np.zeros(25), np.ones(25)], 4)
    found = improvement(half, sorted([0, 1, 2, 3] * 50))
    width = 1.96 / math.sqrt(800)
    assert found.low == pytest.approx(0.5 - width, abs=0.01)
    assert found.high == pytest.approx(0.5 + width, abs=0.01)


def test_descriptions_are_plain_json() -> None:
    scores = score(answers(THREE, [0, 0, 0]))
    described = json.loads(json.dumps(scores.described()))
    assert described == {"uar": 0.6667, "log_loss": round(scores.log_loss, 4), "ece": 0.5}
    found = improvement(np.array([0.25, 0.25]), [0, 1])
    assert json.loads(json.dumps(found.described())) == {"mean": 0.25, "low": 0.25, "high": 0.25}
