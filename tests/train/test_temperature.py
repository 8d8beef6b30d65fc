from __future__ import annotations

import numpy as np
import pytest

from edge.model.head import softmax
from tests.tolerances import float32_tolerance
from train.temperature import CANDIDATES, averaged, fit_temperature

ROUNDING = float32_tolerance(2 * 4, 1.0)
"""Of a posterior: the exponentials and sums of four classes."""


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_a_known_scaling_is_recovered(scale: float) -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0.0, 1.5, (1000, 4)).astype(np.float32)
    labels = [int(rng.choice(4, p=row / row.sum())) for row in softmax(true_logits).astype(np.float64)]
    given = [scale * row[None] for row in true_logits]
    assert fit_temperature(given, labels) == pytest.approx(scale, rel=0.15)


def test_overconfident_mistakes_are_cooled_and_right_answers_are_not() -> None:
    logits = [np.array([[5.0, 0.0, 0.0, 0.0]], np.float32)] * 10
    assert fit_temperature(logits, [0, 1] * 5) > 2.0
    assert fit_temperature(logits, [0] * 10) == CANDIDATES[0]


def test_the_segments_of_a_clip_are_averaged_as_posteriors_not_as_logits() -> None:
    clip = np.array([[9.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], np.float32)
    (found,) = averaged([clip])
    np.testing.assert_allclose(found, (softmax(clip[0]) + softmax(clip[1])) / 2, rtol=0, atol=ROUNDING)
    assert found.sum() == pytest.approx(1.0, rel=0, abs=ROUNDING)


def test_clips_may_have_different_numbers_of_segments() -> None:
    probs = averaged([np.zeros((1, 4), np.float32), np.zeros((3, 4), np.float32)])
    np.testing.assert_allclose(probs, 0.25, rtol=0, atol=ROUNDING)


def test_a_temperature_divides_the_logits() -> None:
    clip = np.array([[2.0, 0.0, 1.0, 0.0]], np.float32)
    np.testing.assert_allclose(averaged([clip], 2.0)[0], softmax(clip[0] / 2), rtol=0, atol=ROUNDING)


def test_the_most_probable_class_of_a_segment_does_not_change_with_temperature() -> None:
    logits = [row[None] for row in np.random.default_rng(1).normal(0, 2, (50, 4)).astype(np.float32)]
    assert np.array_equal(averaged(logits, 0.3).argmax(1), averaged(logits, 5.0).argmax(1))
