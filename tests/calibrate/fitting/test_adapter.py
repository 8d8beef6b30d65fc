"""The linear adapter, against finite differences and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.fitting.adapter import (
    DEVIATION_SCALE,
    EMBEDDING_SCALE,
    HIDDEN_SCALE,
    L2_PENALTY,
    MEAN_SCALE,
    STANDARDISED_SCALE,
    InputScaling,
    adapter_objective,
    fit_adapter,
    fit_embedding_adapter,
    with_adapter,
)
from calibrate.fitting.examples import Examples, examples
from calibrate.fitting.gradient_descent import Floats, descend
from edge.arrays import Array
from edge.model.head import Head, softmax
from tests.calibrate.fitting.toys import (
    HIDDEN,
    SIZE,
    embeddings_of,
    knowing_head,
    loss,
    takes_of,
    toy_examples,
    toy_head,
)
from tests.tolerances import float32_tolerance, largest, logits_tolerance

BANDS = 3

INPUTS = SIZE + 2 * BANDS + HIDDEN + 1


def toy_data(seed: int = 1) -> Examples:
    """Random windows: an embedding followed by a spectrum."""
    data = toy_examples(seed)
    spectra = np.random.default_rng(seed).normal(-2.0, 0.3, (len(data.inputs), 2 * BANDS))
    return replace(data, inputs=np.concatenate([data.inputs, spectra], axis=1).astype(np.float32))


def inputs(head: Head, heard: Array, centre: Floats) -> Floats:
    """x of the module's docstring."""
    embeddings, spectra = heard[:, :SIZE], heard[:, SIZE:] - centre
    hidden = np.maximum(embeddings @ head.fc1_weight.T + head.fc1_bias, 0.0)
    parts = [
        embeddings / EMBEDDING_SCALE,
        spectra[:, :BANDS] / MEAN_SCALE,
        spectra[:, BANDS:] / DEVIATION_SCALE,
    ]
    return np.concatenate([*parts, hidden / HIDDEN_SCALE, np.ones((len(hidden), 1))], axis=1).astype(
        np.float64
    )


def centre_of(data: Examples) -> Floats:
    """The weighted mean of the spectra."""
    return np.average(data.inputs[:, SIZE:].astype(np.float64), axis=0, weights=data.weights)


def x_of(head: Head, data: Examples) -> Floats:
    return inputs(head, data.inputs, centre_of(data))


def minimum(l2_penalty: float) -> Floats:
    """The flattened weights of the layer."""
    head, data = toy_head(), toy_data()
    objective = adapter_objective(x_of(head, data), head, data, l2_penalty)
    return descend(objective, np.zeros(4 * INPUTS))


def test_its_gradient_is_that_of_finite_differences() -> None:
    head, data = toy_head(), toy_data()
    objective = adapter_objective(x_of(head, data), head, data, 0.07)
    point = 0.1 * np.random.default_rng(4).standard_normal(4 * INPUTS)
    numeric = [
        (objective(point + step)[0] - objective(point - step)[0]) / 2e-5 for step in 1e-5 * np.eye(len(point))
    ]
    np.testing.assert_allclose(objective(point)[1], numeric, atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.2, 5.0),
    size=st.floats(0.0, 3.0),
    windows=st.integers(1, 6),
)
def test_the_folded_head_is_the_generic_one_plus_the_layer(
    seed: int, temperature: float, size: float, windows: int
) -> None:
    draw = np.random.default_rng(seed)
    head, session = toy_head(seed, temperature), toy_data(seed)
    layer = size * draw.standard_normal((4, INPUTS))
    heard = draw.standard_normal((windows, SIZE + 2 * BANDS)).astype(np.float32)
    x = inputs(head, heard, centre_of(session))
    expected = head.logits(heard) / temperature + x @ layer.T
    folded = with_adapter(head, layer, InputScaling.of(head, session))
    tolerance = logits_tolerance(folded, heard) / temperature
    np.testing.assert_allclose(folded.logits(heard) / temperature, expected, rtol=0, atol=tolerance)


@given(seed=st.integers(0, 10_000))
def test_a_zero_layer_is_the_generic_head(seed: int) -> None:
    head, data = toy_head(seed), toy_data(seed)
    folded = with_adapter(head, np.zeros((4, INPUTS)), InputScaling.of(head, data))
    tolerance = logits_tolerance(folded, data.inputs)
    np.testing.assert_allclose(folded.logits(data.inputs), head.logits(data.inputs), rtol=0, atol=tolerance)


def test_the_fitted_head_is_the_minimum_folded_into_a_head() -> None:
    head, data = toy_head(), toy_data()
    scaling = InputScaling.of(head, data)
    expected = with_adapter(head, minimum(L2_PENALTY).reshape(4, INPUTS), scaling).tensors()
    for name, array in fit_adapter(head, data).tensors().items():
        tolerance = float32_tolerance(INPUTS, largest(expected[name]))
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=tolerance)


def test_a_very_large_penalty_leaves_one_step_along_the_gradient() -> None:
    """Closed form: where lambda |A|^2 rules, A = -grad L(0) / (2 lambda)."""
    head, data, l2_penalty = toy_head(), toy_data(), 1e5
    x = x_of(head, data)
    errors = softmax(head.logits(data.inputs) / np.float32(head.temperature)) - np.eye(4)[data.emotions]
    gradient = (data.weights[:, None] * errors).T @ x
    np.testing.assert_allclose(
        2.0 * l2_penalty * minimum(l2_penalty), -gradient.ravel(), rtol=2e-3, atol=2e-3
    )


def test_a_larger_penalty_stays_closer_to_the_generic_head(monkeypatch: pytest.MonkeyPatch) -> None:
    head, data = toy_head(), toy_data()
    generic = head.probs(data.inputs)
    moved = []
    for l2_penalty in (0.1, 10.0, 1e6):
        monkeypatch.setattr("calibrate.fitting.adapter.L2_PENALTY", l2_penalty)
        moved.append(float(np.abs(fit_adapter(head, data).probs(data.inputs) - generic).max()))
    assert moved[0] > 2.0 * moved[1] > 4.0 * moved[2]
    assert moved[2] < 1e-4


def test_it_fits_its_examples_as_far_as_the_penalty_allows() -> None:
    head, data = toy_head(), toy_data()
    fitted = loss(fit_adapter(head, data), data) + L2_PENALTY * float(
        minimum(L2_PENALTY) @ minimum(L2_PENALTY)
    )
    assert fitted < loss(head, data)


def test_it_learns_what_the_generic_head_does_not_look_at() -> None:
    """Emotions that show only in a part of the embedding that FC 1 leaves out."""
    emotions = [0, 1, 2, 3] * 4
    head = knowing_head()
    blind = replace(head, fc1_weight=np.zeros_like(head.fc1_weight))

    def answers(fitted: Head, data: Examples) -> Array:
        labels: Array = fitted.probs(data.inputs).argmax(axis=1) == data.emotions
        return labels

    to_fit, others = (
        examples(embeddings_of(emotions, seed, noise=0.1), takes_of(emotions)) for seed in (0, 1)
    )
    assert answers(blind, others).mean() == pytest.approx(0.25, abs=0.1)
    assert answers(fit_adapter(blind, to_fit), others).all()


def test_it_learns_what_only_the_spectrum_shows() -> None:
    """Three emotions raise a band each; everything else is random."""
    emotions = [0, 1, 2, 3] * 4
    blind = replace(knowing_head(), fc1_weight=np.zeros((SIZE, SIZE), np.float32))

    def session(seed: int) -> Examples:
        windows = 0.1 * np.random.default_rng(seed).standard_normal((16, 1, SIZE + 2 * BANDS))
        windows[:, 0, SIZE : SIZE + BANDS] += np.eye(4, BANDS)[emotions]
        return examples(list(windows.astype(np.float32)), takes_of(emotions))

    def deaf(data: Examples) -> Examples:
        return replace(data, inputs=data.inputs[:, :SIZE])

    to_fit, others = session(0), session(1)
    answers = fit_adapter(blind, to_fit).probs(others.inputs).argmax(axis=1)
    guesses = fit_adapter(blind, deaf(to_fit)).probs(others.inputs).argmax(axis=1)
    assert (answers == others.emotions).all()
    assert (guesses == others.emotions).mean() < 0.6


def test_an_adapter_for_standardised_embeddings_reads_no_spectrum() -> None:
    head, data = toy_head(), toy_data()
    fitted = fit_embedding_adapter(head, data)
    assert fitted.input_size == SIZE
    deaf = replace(data, inputs=data.inputs[:, :SIZE])
    hidden = np.maximum(deaf.inputs @ head.fc1_weight.T + head.fc1_bias, 0.0) / HIDDEN_SCALE
    ones = np.ones((len(hidden), 1))
    x = np.concatenate([deaf.inputs / STANDARDISED_SCALE, hidden, ones], axis=1).astype(np.float64)
    objective = adapter_objective(x, head, deaf, L2_PENALTY)
    layer = descend(objective, np.zeros(4 * x.shape[1])).reshape(4, -1)
    expected = head.logits(deaf.inputs) / head.temperature + x @ layer.T
    tolerance = logits_tolerance(fitted, deaf.inputs) / fitted.temperature
    np.testing.assert_allclose(
        fitted.logits(data.inputs) / fitted.temperature, expected, rtol=0, atol=tolerance
    )


def test_the_folded_head_is_one_like_any_other() -> None:
    head = toy_head()
    fitted = fit_adapter(head, toy_data())
    assert {array.dtype for array in fitted.tensors().values()} == {np.dtype(np.float32)}
    assert fitted.temperature == head.temperature
    again = Head.from_tensors(fitted.tensors())
    heard = toy_data(5).inputs
    tolerance = logits_tolerance(fitted, heard) / fitted.temperature
    np.testing.assert_allclose(again.probs(heard), fitted.probs(heard), rtol=0, atol=tolerance)
