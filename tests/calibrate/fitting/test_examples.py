"""Training examples: weights, classes of the dimensions, and the loss."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.fitting.examples import cross_entropy, dimension_classes, examples, take_shares
from calibrate.fitting.gradient_descent import Floats
from tests.calibrate.fitting.toys import SIZE, numeric_gradient, take, takes_of, toy_examples


def test_emotions_takes_and_windows_count_alike() -> None:
    windows = [np.zeros((count, SIZE), np.float32) for count in (1, 3, 2, 2)]
    data = examples(windows, takes_of([0, 0, 0, 3]))
    by_emotion = [data.weights[data.emotions == emotion].sum() for emotion in (0, 3)]
    np.testing.assert_allclose(by_emotion, [0.5, 0.5])
    np.testing.assert_allclose(data.weights[:4], [1 / 6, 1 / 18, 1 / 18, 1 / 18])
    np.testing.assert_allclose(take_shares([0, 0, 0, 3]), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_each_window_has_the_labels_of_its_take() -> None:
    windows = [np.full((count, SIZE), count, np.float32) for count in (2, 1, 3)]
    takes = [take(1), take(0, ratings=(1.0, 2.0, 5.0)), take(3)]
    data = examples(windows, takes)
    assert data.inputs[:, 0].tolist() == [2, 2, 1, 3, 3, 3]
    assert data.emotions.tolist() == [1, 1, 0, 3, 3, 3]
    assert data.dimensions[2].tolist() == [0, 1, 3]
    assert (data.dimensions[0] == data.dimensions[1]).all()
    assert data.weights.sum() == pytest.approx(1.0)


def test_dimensions_are_as_rated_and_else_derived_from_the_emotion() -> None:
    # Happy is 0.81, 0.51 and 0.46 on -1..1: 4.62, 4.02 and 3.92 on 1..5.
    assert dimension_classes(take(1)) == (3, 3, 2)
    assert dimension_classes(take(1, ratings=(1.0, None, 5.0))) == (0, 3, 3)
    assert dimension_classes(take(0)) == (2, 2, 2)


def test_the_loss_is_the_weighted_cross_entropy() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.standard_normal((5, 4)), np.array([0, 3, 1, 1, 2])
    weights = draw.random(5)
    given = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(5), labels]
    assert cross_entropy(logits, labels, weights)[0] == pytest.approx(-(weights * np.log(given)).sum())


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    data = toy_examples()
    logits = np.random.default_rng(2).standard_normal((len(data.emotions), 4))

    def objective(point: Floats) -> tuple[float, Floats]:
        value, slope = cross_entropy(point.reshape(-1, 4), data.emotions, data.weights)
        return value, slope.ravel()

    point = logits.ravel()
    np.testing.assert_allclose(objective(point)[1], numeric_gradient(objective, point), atol=1e-8)


def test_certain_predictions_have_finite_losses() -> None:
    right = cross_entropy(np.array([[1e4, 0.0]]), np.array([0]), np.ones(1))
    wrong = cross_entropy(np.array([[1e4, 0.0]]), np.array([1]), np.ones(1))
    assert right[0] == 0.0
    assert wrong[0] == pytest.approx(1e4)
    np.testing.assert_allclose(wrong[1], [[1.0, -1.0]])
