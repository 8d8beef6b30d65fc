"""The paper's equations 4 and 5, against numerical gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calibrate.fitting.examples import Examples
from calibrate.fitting.gradient_descent import Floats
from calibrate.fitting.mmtl_adaptation import dimensions_gradient, fit_dimensions, has_dimensions
from edge.model.head import Head
from tests.calibrate.fitting.toys import toy_examples, toy_head
from tests.tolerances import float32_tolerance, largest

META = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
TRANSFER = ("fc3_weight", "fc3_bias")


def doubled(head: Head, *names: str) -> list[Floats]:
    """Weights in double precision."""
    return [getattr(head, name).astype(np.float64) for name in names]


def auxiliary_logits(theta: list[Floats], data: Examples) -> Floats:
    fc1_weight, fc1_bias, fc2_weight, fc2_bias = theta
    hidden = np.maximum(data.inputs.astype(np.float64) @ fc1_weight.T + fc1_bias, 0.0)
    logits: Floats = hidden @ fc2_weight.T + fc2_bias
    return logits


def log_probs(logits: Floats) -> Floats:
    logs: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logs


def mean_auxiliary_loss(theta: list[Floats], data: Examples) -> float:
    """(1/k) sum_j L_j(theta), a window and a dimension at a time."""
    logits = auxiliary_logits(theta, data)
    if logits.shape[1] == 12:  # each dimension has outputs of its own
        parts = [log_probs(logits[:, first : first + 4]) for first in (0, 4, 8)]
        rows_of = [part[np.arange(len(data.weights)), data.dimensions[:, k]] for k, part in enumerate(parts)]
        return -float(data.weights @ np.mean(rows_of, axis=0))
    logs = log_probs(logits).tolist()
    rows = zip(data.weights.tolist(), logs, data.dimensions.tolist(), strict=True)
    return -float(sum(weight * sum(log[label] for label in labels) / 3.0 for weight, log, labels in rows))


def emotion_loss(phi: list[Floats], auxiliary: Floats, data: Examples) -> float:
    """L_query(theta', phi), a window at a time."""
    logs = log_probs(auxiliary @ phi[0].T + phi[1]).tolist()
    rows = zip(data.weights.tolist(), logs, data.emotions.tolist(), strict=True)
    return -float(sum(weight * log[label] for weight, log, label in rows))


def numeric_gradients(
    loss: Callable[[list[Floats]], float], weights: list[Floats], width: float = 1e-5
) -> list[Floats]:
    """Central differences by every single weight."""
    slopes = [np.zeros_like(array) for array in weights]
    for array, slope in zip(weights, slopes, strict=True):
        for place in np.ndindex(array.shape):
            middle = array[place]
            array[place] = middle + width
            above = loss(weights)
            array[place] = middle - width
            slope[place] = (above - loss(weights)) / (2.0 * width)
            array[place] = middle
    return slopes


@pytest.mark.parametrize("outputs", [4, 12])
def test_the_gradient_is_that_of_finite_differences(outputs: int) -> None:
    data, theta = toy_examples(), doubled(toy_head(), *META)
    theta[2] = np.random.default_rng(7).standard_normal((outputs, theta[2].shape[1]))
    theta[3] = np.random.default_rng(8).standard_normal(outputs)
    loss, slopes = dimensions_gradient(theta, data.inputs.astype(np.float64), data)
    assert loss == pytest.approx(mean_auxiliary_loss(theta, data))
    numeric = numeric_gradients(lambda weights: mean_auxiliary_loss(weights, data), theta)
    for slope, expected in zip(slopes, numeric, strict=True):
        np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_a_step_is_that_of_equations_4_and_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps large enough to be seen in single precision, and a different rate for each."""
    monkeypatch.setattr("calibrate.fitting.mmtl_adaptation.TUNING_STEPS", 1)
    monkeypatch.setattr("calibrate.fitting.mmtl_adaptation.INNER_LR", 0.5)
    monkeypatch.setattr("calibrate.fitting.mmtl_adaptation.TRANSFER_LR", 0.25)
    generic, data = toy_head(), toy_examples()
    fitted = fit_dimensions(generic, data)

    theta = doubled(generic, *META)
    slopes = numeric_gradients(lambda weights: mean_auxiliary_loss(weights, data), theta)
    theta = [weight - 0.5 * slope for weight, slope in zip(theta, slopes, strict=True)]
    phi, auxiliary = doubled(generic, *TRANSFER), auxiliary_logits(theta, data)
    slopes = numeric_gradients(lambda weights: emotion_loss(weights, auxiliary, data), phi)
    phi = [weight - 0.25 * slope for weight, slope in zip(phi, slopes, strict=True)]

    for name, expected in zip((*META, *TRANSFER), (*theta, *phi), strict=True):
        tolerance = float32_tolerance(1, largest(expected))  # computed in float64, then rounded
        np.testing.assert_allclose(getattr(fitted, name), expected, rtol=0, atol=tolerance, err_msg=name)
        assert not np.allclose(getattr(fitted, name), getattr(generic, name), atol=1e-4), name


def test_tuning_lowers_what_it_is_tuned_on() -> None:
    generic, data = toy_head(), toy_examples()
    fitted = fit_dimensions(generic, data)
    before, after = (mean_auxiliary_loss(doubled(head, *META), data) for head in (generic, fitted))
    assert after < before - 0.01
    auxiliary = auxiliary_logits(doubled(fitted, *META), data)
    untransferred, transferred = (
        emotion_loss(doubled(head, *TRANSFER), auxiliary, data) for head in (generic, fitted)
    )
    assert transferred < untransferred - 0.01


def test_emotions_do_not_reach_the_meta_learner_nor_dimensions_the_temperature() -> None:
    generic, data = toy_head(), toy_examples()
    fitted = fit_dimensions(generic, data)
    others = fit_dimensions(generic, replace(data, emotions=(data.emotions + 1) % 4))
    assert all((getattr(fitted, name) == getattr(others, name)).all() for name in META)
    assert not (fitted.fc3_weight == others.fc3_weight).all()
    assert fitted.temperature == generic.temperature
    assert {array.dtype for array in fitted.tensors().values()} == {np.dtype(np.float32)}


def test_only_a_head_with_the_dimension_classes_can_be_tuned_on_them() -> None:
    generic = toy_head()
    wider = replace(generic, fc2_weight=np.ones((8, 6), np.float32), fc2_bias=np.zeros(8, np.float32))
    separate = replace(generic, fc2_weight=np.ones((12, 6), np.float32), fc2_bias=np.zeros(12, np.float32))
    assert has_dimensions(generic)
    assert has_dimensions(separate)
    assert not has_dimensions(wider)
