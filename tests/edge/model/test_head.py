from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from edge.arrays import Array
from edge.errors import ModelError
from edge.model.head import Head, softmax
from tests.tolerances import float32_tolerance, logits_tolerance

EMBEDDINGS = np.random.default_rng(5).standard_normal((6, 256)).astype(np.float32)


def by_hand(head: Head, embedding: Array) -> list[float]:
    """One embedding to its probabilities, neuron by neuron."""
    values = [float(value) for value in embedding]
    for name, last in (("fc1", False), ("fc2", True), ("fc3", True)):
        weight, bias = getattr(head, f"{name}_weight"), getattr(head, f"{name}_bias")
        sums = [
            sum(float(w) * value for w, value in zip(row, values, strict=True)) + float(b)
            for row, b in zip(weight, bias, strict=True)
        ]
        values = sums if last else [max(0.0, value) for value in sums]
    powers = np.exp(np.array(values) / head.temperature)
    return list(powers / powers.sum())


def test_the_probabilities_are_those_of_the_layers(head: Head) -> None:
    expected = [by_hand(head, embedding) for embedding in EMBEDDINGS]
    tolerance = logits_tolerance(head, EMBEDDINGS) / head.temperature
    np.testing.assert_allclose(head.probs(EMBEDDINGS), expected, rtol=0, atol=tolerance)


def test_the_probabilities_sum_to_one(head: Head) -> None:
    np.testing.assert_allclose(head.probs(EMBEDDINGS).sum(axis=1), 1.0, rtol=float32_tolerance(8, 1.0))
    assert head.probs(EMBEDDINGS[:0]).shape == (0, 4)


def test_values_behind_the_input_are_ignored(head: Head) -> None:
    longer = np.concatenate([EMBEDDINGS, np.full((6, 3), np.nan, np.float32)], axis=1)
    np.testing.assert_array_equal(head.probs(longer), head.probs(EMBEDDINGS))


def test_the_temperature_changes_the_confidence_but_not_the_label(head: Head) -> None:
    sure, unsure = (
        replace(head, temperature=0.5).probs(EMBEDDINGS),
        replace(head, temperature=5.0).probs(EMBEDDINGS),
    )
    assert (sure.argmax(axis=1) == unsure.argmax(axis=1)).all()
    assert (sure.max(axis=1) > unsure.max(axis=1)).all()


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32)
    np.testing.assert_allclose(softmax(logits), np.array([[1.0, 0.0], [0.5, 0.5]]))


def test_it_is_read_back_as_it_was_stored(head: Head) -> None:
    again = Head.from_tensors(replace(head, temperature=1.5).tensors())
    assert again.temperature == 1.5
    for field in fields(Head):
        if field.name != "temperature":
            assert np.array_equal(getattr(again, field.name), getattr(head, field.name))
    assert again.input_size == 256


@pytest.fixture(scope="module")
def relative(head: Head) -> Head:
    """A head that reads the speaker's baseline."""
    weight = np.random.default_rng(4).standard_normal((64, 256)).astype(np.float32) / 16.0
    return replace(head, baseline_weight=weight)


def test_a_baseline_is_what_the_first_layer_is_relative_to(relative: Head) -> None:
    assert relative.baseline_weight is not None
    baseline = np.random.default_rng(5).standard_normal(256).astype(np.float32)
    first, second = relative.fc1_weight + relative.baseline_weight, -relative.baseline_weight
    expected = np.maximum(EMBEDDINGS @ first.T + (EMBEDDINGS - baseline) @ second.T + relative.fc1_bias, 0.0)
    own = relative.for_baseline(baseline)
    np.testing.assert_allclose(own.hidden(EMBEDDINGS), expected, rtol=1e-4, atol=1e-4)
    assert own.baseline_weight is None
    np.testing.assert_array_equal(own.for_baseline(2 * baseline).fc1_bias, own.fc1_bias)


def test_a_deviation_divides_what_the_first_layer_reads_relative_to_the_baseline(relative: Head) -> None:
    assert relative.baseline_weight is not None
    rng = np.random.default_rng(6)
    baseline = rng.standard_normal(256).astype(np.float32)
    deviation = rng.uniform(0.3, 3.0, 256).astype(np.float32)
    first, second = relative.fc1_weight + relative.baseline_weight, -relative.baseline_weight
    unfused = EMBEDDINGS @ first.T + ((EMBEDDINGS - baseline) / deviation) @ second.T + relative.fc1_bias
    own = relative.for_baseline(baseline, deviation)
    np.testing.assert_allclose(own.hidden(EMBEDDINGS), np.maximum(unfused, 0.0), rtol=1e-4, atol=1e-4)
    assert own.baseline_weight is None
    assert own.for_baseline(baseline, 2 * deviation) is own


def test_a_level_that_is_read_beside_the_window_is_that_in_the_weights(relative: Head) -> None:
    rng = np.random.default_rng(6)
    baseline = rng.standard_normal(256).astype(np.float32)
    deviation = rng.uniform(0.3, 3.0, 256).astype(np.float32)
    for level in ((baseline,), (baseline, deviation)):
        own = relative.for_baseline(*level)
        np.testing.assert_allclose(
            relative.hidden(EMBEDDINGS, *level), own.hidden(EMBEDDINGS), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(relative.probs(EMBEDDINGS, *level), own.probs(EMBEDDINGS), atol=1e-5)
        np.testing.assert_array_equal(own.probs(EMBEDDINGS, 2 * baseline), own.probs(EMBEDDINGS))
    assert np.abs(relative.probs(EMBEDDINGS, baseline) - relative.probs(EMBEDDINGS)).max() > 0.01


def test_a_deviation_of_1_changes_no_bit(relative: Head) -> None:
    baseline = np.random.default_rng(5).standard_normal(256).astype(np.float32)
    without, ones = relative.for_baseline(baseline), relative.for_baseline(baseline, np.ones_like(baseline))
    assert without.fc1_weight is relative.fc1_weight
    assert relative.baseline_weight is not None
    np.testing.assert_array_equal(without.fc1_bias, relative.fc1_bias + relative.baseline_weight @ baseline)
    np.testing.assert_array_equal(ones.fc1_weight, without.fc1_weight)
    np.testing.assert_array_equal(ones.fc1_bias, without.fc1_bias)
    np.testing.assert_array_equal(ones.probs(EMBEDDINGS), without.probs(EMBEDDINGS))


def test_a_head_that_reads_a_baseline_is_read_back(relative: Head) -> None:
    again = Head.from_tensors(relative.tensors())
    assert np.array_equal(again.baseline_weight, relative.baseline_weight)  # type: ignore[arg-type]
    wrong = relative.tensors() | {"head.baseline_weight": np.zeros((64, 200), np.float32)}
    with pytest.raises(ModelError, match="baseline"):
        Head.from_tensors(wrong)


@pytest.mark.parametrize("name", [field.name for field in fields(Head) if field.name != "baseline_weight"])
def test_a_missing_tensor_is_named(head: Head, name: str) -> None:
    tensors = head.tensors()
    del tensors[f"head.{name}"]
    with pytest.raises(ModelError, match=name):
        Head.from_tensors(tensors)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fc1_weight", np.zeros((64,)), "expected 2 axes"),
        ("fc1_bias", np.zeros(63), "fit together"),
        ("fc2_weight", np.zeros((4, 65)), "fit together"),
        ("fc3_bias", np.zeros((4, 1)), "expected 1 axes"),
        ("fc3_bias", np.array(0.0), "expected 1 axes"),
        ("fc2_bias", np.full(4, np.nan), "not usable"),
        ("fc1_weight", np.full((64, 256), np.inf), "not usable"),
        ("temperature", np.zeros(1), "not usable"),
        ("temperature", np.full(1, np.nan), "not usable"),
        ("temperature", np.zeros(0), "temperature has the shape"),
        ("temperature", np.full(1, 1e-45), "not usable"),
        ("fc2_weight", np.full((4, 64), -1e30), "not usable"),
        ("temperature", np.ones(2), "temperatures"),
    ],
)
def test_tensors_that_cannot_be_used_are_refused(head: Head, name: str, value: Array, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Head.from_tensors(head.tensors() | {f"head.{name}": value})
