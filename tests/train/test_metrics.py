"""Scores against values worked by hand and against scikit-learn and SciPy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion

from train.metrics import (
    accuracy,
    answers,
    bootstrap_uar,
    ccc,
    confusion_matrix,
    ece,
    macro_f1,
    score,
    uar,
)

LABELS = [0, 0, 0, 0, 1, 1, 2, 3]
PREDICTIONS = [0, 0, 0, 1, 1, 3, 2, 2]
"""Recalls 3/4, 1/2, 1, 0; precisions 1, 1/2, 1/2, 0."""

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def certain(predictions: list[int], confidence: float = 1.0) -> NDArray[np.float64]:
    """Make probabilities of four classes that predict so, the rest shared equally."""
    rest = (1.0 - confidence) / 3.0
    return np.where(np.eye(4, dtype=bool)[predictions], confidence, rest)


@pytest.mark.parametrize(
    ("threshold", "coverage", "right"),
    [(0.0, 1.0, 0.5), (0.4, 1.0, 0.5), (0.41, 0.5, 1.0), (0.9, 0.5, 1.0), (0.95, 0.0, None)],
)
def test_answers_are_weighed_at_or_above_the_threshold(
    threshold: float, coverage: float, right: float | None
) -> None:
    probs = np.concatenate([certain([0, 1], 0.9), certain([2, 3], 0.4)])
    found = answers(probs, [0, 1, 0, 0], threshold)
    assert (found.threshold, found.coverage, found.accuracy) == (threshold, coverage, right)


@pytest.mark.parametrize(
    ("probs", "labels"), [([[0.5, 0.6]], [0]), ([[0.5, 0.5]], [0, 1]), ([[0.5, 0.5]], [2])]
)
def test_answers_refuse_what_is_no_probability_or_has_no_label(
    probs: list[list[float]], labels: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"labels|sum|class"):
        answers(probs, labels, 0.5)


def test_the_confusion_matrix_has_the_truth_in_rows() -> None:
    expected = [[3, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert confusion_matrix(LABELS, PREDICTIONS).tolist() == expected


def test_the_scores_are_as_worked_by_hand() -> None:
    assert uar(LABELS, PREDICTIONS) == pytest.approx((3 / 4 + 1 / 2 + 1 + 0) / 4)
    assert accuracy(LABELS, PREDICTIONS) == pytest.approx(5 / 8)
    assert macro_f1(LABELS, PREDICTIONS) == pytest.approx((6 / 7 + 1 / 2 + 2 / 3 + 0) / 4)


def test_a_class_absent_from_the_truth_is_left_out_of_the_uar() -> None:
    assert uar([0, 0, 1], [0, 2, 1]) == pytest.approx((1 / 2 + 1) / 2)


def test_a_class_only_predicted_counts_in_f1_and_one_never_mentioned_does_not() -> None:
    assert macro_f1([0, 0, 1], [0, 2, 1]) == pytest.approx((2 / 3 + 1 + 0) / 3)


@settings(deadline=None, max_examples=60)
@given(answers=ANSWERS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
def test_the_scores_equal_scikit_learns(answers: list[tuple[int, int]]) -> None:
    labels, predictions = (list(side) for side in zip(*answers, strict=True))
    expected = sklearn_confusion(labels, predictions, labels=range(4))
    assert np.array_equal(confusion_matrix(labels, predictions), expected)
    assert uar(labels, predictions) == pytest.approx(reference_uar(labels, predictions))
    assert accuracy(labels, predictions) == pytest.approx(accuracy_score(labels, predictions))
    assert macro_f1(labels, predictions) == pytest.approx(f1_score(labels, predictions, average="macro"))


def reference_uar(labels: list[int], predictions: list[int]) -> float:
    return (
        float(balanced_accuracy_score(labels, predictions))
        if len(set(labels)) > 1
        else accuracy(labels, predictions)
    )


@pytest.mark.parametrize(
    ("labels", "predictions", "reason"),
    [
        ([], [], "at least one clip"),
        ([0, 1], [0], "2 labels, but 1 predictions"),
        ([0, 4], [0, 1], "classes are 0 to 3, not 0 to 4"),
        ([0, 1], [0, -1], "classes are 0 to 3, not -1 to 0"),
        ([0.0, 1.0], [0, 1], "classes are integers"),
        ([[0, 1]], [[0, 1]], "not shape"),
    ],
)
def test_answers_that_cannot_be_counted_are_refused(labels: Any, predictions: Any, reason: str) -> None:
    for metric in (confusion_matrix, uar, accuracy, macro_f1):
        with pytest.raises(ValueError, match=reason):
            metric(labels, predictions)


def test_the_calibration_error_is_as_worked_by_hand() -> None:
    # Bins of 0.5: two clips at 0.4 of which one is right, three at 0.8 and 1.0 of which two are.
    probs = np.array(
        [[0.4, 0.2, 0.2, 0.2], [0.2, 0.4, 0.2, 0.2], [0.8, 0.2, 0, 0], [0, 0, 1, 0], [0, 0, 0.2, 0.8]]
    )
    labels = [0, 0, 0, 2, 2]
    by_hand = (2 * abs(1 / 2 - 0.4) + 3 * abs(2 / 3 - 2.6 / 3)) / 5
    assert ece(probs, labels, bins=2) == pytest.approx(by_hand)


def test_certainty_that_is_always_right_is_calibrated_and_one_always_wrong_is_not() -> None:
    assert ece(certain([0, 1, 2]), [0, 1, 2]) == 0.0
    assert ece(certain([0, 1, 2]), [1, 2, 3]) == 1.0


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower() -> None:
    # 0.5 and 0.4 share the lower of two bins, where 0.45 is the mean confidence of one right in two.
    probs = [[0.5, 0.2, 0.2, 0.1], [0.4, 0.2, 0.2, 0.2]]
    assert ece(probs, [0, 1], bins=2) == pytest.approx(abs(0.5 - 0.45))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), bins=st.integers(1, 20))
def test_the_calibration_error_equals_a_plain_loop(seed: int, bins: int) -> None:
    generator = np.random.default_rng(seed)
    probs = generator.dirichlet(np.ones(4), size=50)
    labels = generator.integers(0, 4, size=50)
    total = 0.0
    for lower in range(bins):
        inside = [i for i in range(50) if lower / bins < probs[i].max() <= (lower + 1) / bins]
        right = sum(int(probs[i].argmax() == labels[i]) for i in inside)
        total += abs(right - sum(probs[i].max() for i in inside)) / 50
    assert ece(probs, labels, bins) == pytest.approx(total)


@pytest.mark.parametrize(
    ("probs", "labels", "bins", "reason"),
    [
        ([[0.5, 0.5, 0.0, 0.0]], [0, 1], 15, "1 clips, but 2 labels"),
        ([[2.0, 1.0, 0.0, 0.0]], [0], 15, "apply the softmax first"),
        ([[1.5, -0.5, 0.0, 0.0]], [0], 15, "apply the softmax first"),
        ([[np.nan, 0.5, 0.5, 0.0]], [0], 15, "apply the softmax first"),
        ([0.5, 0.5], [0], 15, "not shape"),
        ([[0.5, 0.5]], [0], 0, "at least one"),
    ],
)
def test_what_are_not_probabilities_of_the_clips_are_refused(
    probs: Any, labels: Any, bins: int, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ece(probs, labels, bins)


def test_the_concordance_is_as_worked_by_hand() -> None:
    # Means 2 and 3, variances 2/3 and 2/3, covariance 2/3.
    assert ccc([1, 2, 3], [2, 3, 4]) == pytest.approx((4 / 3) / (4 / 3 + 1))
    assert ccc([1, 2, 3], [1, 2, 3]) == pytest.approx(1.0)
    assert ccc([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)


def test_a_constant_guess_has_no_concordance() -> None:
    assert ccc([1, 2, 3], [2, 2, 2]) == 0.0
    assert ccc([2, 2], [2, 2]) == 0.0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_concordance_is_pearsons_times_the_bias_correction(seed: int) -> None:
    truth, prediction = np.random.default_rng(seed).normal(size=(2, 30)) * [[1.0], [2.0]] + [[3.0], [3.5]]
    scale = truth.std() / prediction.std()
    shift = (truth.mean() - prediction.mean()) ** 2 / (truth.std() * prediction.std())
    expected = np.corrcoef(truth, prediction)[0, 1] * 2 / (scale + 1 / scale + shift)
    assert ccc(truth, prediction) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "prediction", "reason"),
    [([], [], "at least 1"), ([1.0], [1.0, 2.0], "of one length"), ([np.nan, 1.0], [1.0, 2.0], "not finite")],
)
def test_series_without_concordance_are_refused(truth: Any, prediction: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ccc(truth, prediction)


def test_all_scores_come_from_the_most_probable_class() -> None:
    scores = score(LABELS, certain(PREDICTIONS, 0.7), ["ann"] * 5 + ["bob"] * 3)
    assert scores.uar == uar(LABELS, PREDICTIONS)
    assert scores.accuracy == accuracy(LABELS, PREDICTIONS)
    assert scores.macro_f1 == macro_f1(LABELS, PREDICTIONS)
    assert scores.ece == pytest.approx(abs(5 / 8 - 0.7))
    assert np.array_equal(scores.confusion, confusion_matrix(LABELS, PREDICTIONS))
    assert scores.clips == 8


def test_each_speakers_uar_is_over_the_classes_the_speaker_has() -> None:
    scores = score(LABELS, certain(PREDICTIONS), ["bob"] * 5 + ["ann"] * 3)
    assert list(scores.per_speaker) == ["ann", "bob"]
    assert scores.per_speaker["bob"] == pytest.approx((3 / 4 + 1) / 2)
    assert scores.per_speaker["ann"] == pytest.approx((0 + 1 + 0) / 3)


def test_scores_survive_json() -> None:
    scores = score(LABELS, certain(PREDICTIONS), ["ann"] * 8)
    assert json.loads(json.dumps(scores.to_dict())) == scores.to_dict()
    assert scores.to_dict()["confusion"][0] == [3, 1, 0, 0]


@pytest.mark.parametrize(
    ("labels", "clips", "speakers", "reason"),
    [
        ([0, 1], 2, ["ann"], "2 clips, but 1 speakers"),
        ([0, 1], 3, ["ann", "bob"], "2 clips, but 3 predictions"),
        ([], 0, [], "not shape"),
    ],
)
def test_scores_need_one_of_each_for_every_clip(
    labels: list[int], clips: int, speakers: list[str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        score(labels, np.full((clips, 4), 0.25), speakers)


def test_speakers_are_resampled_and_not_clips() -> None:
    # One speaker always right and one always wrong: pooled UAR is 0, 1/2 or 1, whoever is drawn.
    labels = [0, 1] * 200
    predictions = [0, 1] * 100 + [1, 0] * 100
    assert bootstrap_uar(labels, predictions, ["ann"] * 200 + ["bob"] * 200) == (0.0, 1.0)


def test_speakers_who_are_alike_leave_no_doubt() -> None:
    labels, predictions = [0, 0, 1] * 5, [0, 1, 1] * 5
    speakers = [name for name in "abcde" for _ in range(3)]
    assert bootstrap_uar(labels, predictions, speakers) == pytest.approx((0.75, 0.75))


def test_the_interval_equals_drawing_the_speakers_one_by_one() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 4, 300)
    predictions = np.where(generator.random(300) < 0.6, labels, generator.integers(0, 4, 300))
    speakers = generator.integers(0, 12, 300)
    drawn = []
    for _ in range(800):
        picks = generator.choice(12, size=12)
        clips = np.concatenate([np.flatnonzero(speakers == pick) for pick in picks])
        drawn.append(balanced_accuracy_score(labels[clips], predictions[clips]))
    interval = bootstrap_uar(labels, predictions, [f"s{number}" for number in speakers], draws=800)
    assert interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)
    assert interval[0] < uar(labels, predictions) < interval[1]


def test_the_same_seed_gives_the_same_interval() -> None:
    speakers = ["a", "a", "b", "b", "c", "c", "d", "d"]
    first, again, other = (
        bootstrap_uar(LABELS, PREDICTIONS, speakers, draws=20, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_one_speaker_says_nothing_about_others() -> None:
    assert bootstrap_uar(LABELS, PREDICTIONS, ["ann"] * 8) == (0.0, 1.0)
