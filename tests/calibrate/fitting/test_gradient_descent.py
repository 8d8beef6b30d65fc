"""Gradient descent: it reaches minima, never raises the loss, and is deterministic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.fitting.candidates import bias_objective
from calibrate.fitting.gradient_descent import STEPS, Floats, Objective, descend
from tests.calibrate.fitting.toys import toy_examples, toy_head


def bowl(curvature: Floats, minimum: Floats) -> Objective:
    """A quadratic with its axes along the coordinates."""

    def objective(point: Floats) -> tuple[float, Floats]:
        away = point - minimum
        return float(curvature @ away**2), 2.0 * curvature * away

    return objective


def test_it_reaches_the_minimum_of_a_quadratic() -> None:
    minimum = np.array([1.0, -2.0, 0.5])
    reached = descend(bowl(np.array([0.3, 1.0, 8.0]), minimum), np.zeros(3))
    np.testing.assert_allclose(reached, minimum, atol=1e-5)


def test_it_reaches_the_minimum_of_a_flat_exponential() -> None:
    """The closed form of a rising exponential against a slope: e^x - 3 x is least at log 3."""
    reached = descend(lambda x: (float(np.exp(x[0]) - 3.0 * x[0]), np.exp(x) - 3.0), np.array([-5.0]))
    assert reached[0] == pytest.approx(np.log(3.0), abs=1e-5)


def test_it_stays_where_it_is_lowest() -> None:
    start = np.array([1.0, 2.0])
    assert descend(bowl(np.ones(2), start), start) is start


@given(seed=st.integers(0, 10_000), sharpness=st.floats(1e-3, 1e3), steps=st.integers(1, 20))
def test_more_steps_are_never_worse(seed: int, sharpness: float, steps: int) -> None:
    draw = np.random.default_rng(seed)
    objective = bowl(sharpness * draw.uniform(0.01, 1.0, 4), draw.standard_normal(4))
    losses = [objective(np.zeros(4))[0]]
    for limit in (steps, steps + 1, STEPS):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("calibrate.fitting.gradient_descent.STEPS", limit)
            losses.append(objective(descend(objective, np.zeros(4)))[0])
    assert losses == sorted(losses, reverse=True)


def test_a_very_steep_start_gives_a_finite_lower_loss() -> None:
    scaled = 300.0 * toy_head().logits(toy_examples().inputs).astype(np.float64)
    objective = bias_objective(scaled, toy_examples(), 0.1)
    reached = objective(descend(objective, np.zeros(5)))[0]
    assert np.isfinite(reached)
    assert reached < objective(np.zeros(5))[0]


def test_it_does_not_step_where_the_loss_is_no_number() -> None:
    def walled(point: Floats) -> tuple[float, Floats]:
        inside = point[0] < 2.0
        return (float((point[0] - 1.9) ** 2) if inside else float("nan")), 2.0 * (point - 1.9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibrate.fitting.gradient_descent.STEPS", 50)
        assert descend(walled, np.array([-3.0]))[0] == pytest.approx(1.9, abs=1e-3)


def test_it_ends_after_the_maximum_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrate.fitting.gradient_descent.STEPS", 3)
    seen: list[float] = []

    def slope(point: Floats) -> tuple[float, Floats]:
        seen.append(point[0])
        return -float(point[0]), np.array([-1.0])

    assert descend(slope, np.zeros(1))[0] == 1.0 + 2.0 + 4.0
    assert seen == [0.0, 1.0, 3.0, 7.0]
