"""Candidate fits: closed forms, and which of them a session supports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from calibrate.fitting.candidates import (
    BIAS_L2_PENALTY,
    CANDIDATES,
    STATISTICS_PRIOR_FRAMES,
    Candidate,
    bias_objective,
    candidates,
    fit_bias,
    keep_baseline,
    speaker_normalisation,
)
from calibrate.fitting.examples import Examples
from calibrate.fitting.gradient_descent import descend
from calibrate.takes import InputNormalisation
from edge.arrays import Array
from edge.features.frontend import Spectrum
from edge.features.normaliser import BinStatistics, GainConfig
from edge.model.head import Head, softmax
from tests.calibrate.fitting.toys import SIZE, loss, numeric_gradient, takes_of, toy_examples, toy_head
from tests.tolerances import float32_tolerance, largest, logits_tolerance

BINS = 5


def test_the_gradient_of_the_bias_is_that_of_finite_differences() -> None:
    data = toy_examples()
    scaled = toy_head().logits(data.inputs).astype(np.float64)
    objective = bias_objective(scaled, data, 0.07)
    point = np.random.default_rng(2).standard_normal(5)
    np.testing.assert_allclose(objective(point)[1], numeric_gradient(objective, point), atol=1e-6)


def test_a_bias_without_penalty_gives_each_emotion_its_share() -> None:
    """Closed form: if all logits are zero, softmax(b) = the emotions' weights."""
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    dimensions = np.zeros((4, 3), np.int64)
    data = Examples(np.zeros((4, SIZE), np.float32), np.arange(4), dimensions, shares)
    fitted = descend(bias_objective(np.zeros((4, 4)), data, 1e-9), np.zeros(5))
    np.testing.assert_allclose(softmax(fitted[1:].astype(np.float32)), shares, atol=1e-4)


def test_a_fitted_bias_is_what_the_head_applies() -> None:
    generic, data = toy_head(), toy_examples()
    fitted = fit_bias(generic, data)
    scaled = generic.logits(data.inputs).astype(np.float64) / generic.temperature
    s = np.log(generic.temperature / fitted.temperature)
    b = (fitted.fc3_bias - generic.fc3_bias) / fitted.temperature
    expected = softmax((np.exp(s) * scaled + b).astype(np.float32))
    tolerance = logits_tolerance(fitted, data.inputs) / fitted.temperature
    np.testing.assert_allclose(fitted.probs(data.inputs), expected, rtol=0, atol=tolerance)
    assert loss(fitted, data) < loss(generic, data)


def skewed_examples(head: Head) -> tuple[Head, Examples]:
    """A head with a bias of 6 towards happy, and forty takes that the head without it recognises."""
    data = toy_examples(takes=40)
    right = head.probs(data.inputs).argmax(axis=1)
    data = replace(data, emotions=right, weights=np.full(len(right), 1.0 / len(right)))
    return replace(head, fc3_bias=head.fc3_bias + np.array([0, 6, 0, 0], np.float32)), data


def share_right(head: Head, data: Examples) -> float:
    return float((head.probs(data.inputs).argmax(axis=1) == data.emotions).mean())


def test_a_consistent_bias_is_undone_where_the_penalty_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrate.fitting.candidates.BIAS_L2_PENALTY", 0.02)
    skewed, data = skewed_examples(toy_head())
    assert share_right(skewed, data) < 0.7
    assert share_right(fit_bias(skewed, data), data) > 0.85


def test_a_consistent_bias_is_undone_in_part_with_the_penalty_that_is_used() -> None:
    skewed, data = skewed_examples(toy_head())
    fitted = fit_bias(skewed, data)
    assert share_right(fitted, data) > share_right(skewed, data) + 0.1
    assert loss(fitted, data) < 0.6 * loss(skewed, data)


def test_a_larger_penalty_leaves_temperature_and_bias_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    generic, data = toy_head(), toy_examples()
    moved = []
    for l2_penalty in (BIAS_L2_PENALTY, 10.0, 1e6):
        monkeypatch.setattr("calibrate.fitting.candidates.BIAS_L2_PENALTY", l2_penalty)
        fitted = fit_bias(generic, data)
        bias = np.abs(fitted.fc3_bias - generic.fc3_bias).max()
        moved.append(max(float(bias), abs(np.log(fitted.temperature / generic.temperature))))
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 1e-5


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_fitting_twice_gives_the_same_numbers(candidate: Candidate) -> None:
    first, second = (candidate.head(toy_head(), toy_head(), toy_examples()).tensors() for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


WITH_LABELS = [candidate for candidate in CANDIDATES if candidate.fit not in (None, keep_baseline)]


@pytest.mark.parametrize("candidate", WITH_LABELS, ids=lambda candidate: candidate.name)
def test_each_candidate_that_uses_labels_lowers_the_loss_of_its_examples(candidate: Candidate) -> None:
    generic, start, data = toy_head(1), replace(toy_head(), temperature=1.0), toy_examples()
    assert loss(candidate.head(generic, start, data), data) < loss(start, data) - 0.01


def test_the_baseline_alone_is_a_candidate_that_uses_no_label() -> None:
    generic, start = toy_head(1), toy_head(2)
    assert CANDIDATES[1].name == "baseline"
    assert CANDIDATES[1].head(generic, start, toy_examples()) is start


def test_the_first_candidate_is_the_generic_head() -> None:
    generic = toy_head()
    assert CANDIDATES[0].head(generic, toy_head(1), toy_examples()) is generic
    assert (CANDIDATES[0].own_statistics, CANDIDATES[0].complexity_penalty) == (False, 0.0)


def coloured(colour: Array, frames: int, seed: int) -> Array:
    """Power spectra of one shape: constant level, 10 % fluctuation."""
    wobble = np.random.default_rng(seed).uniform(0.9, 1.1, (frames, BINS))
    return (np.exp(colour) * wobble).astype(np.float32)


GENERIC = InputNormalisation(
    GainConfig(), BinStatistics(np.zeros(BINS, np.float32), np.ones(BINS, np.float32))
)
COLOUR = np.array([1.0, 0.5, 0.0, -0.5, -2.0], np.float32)


def test_a_speaker_s_statistics_are_shrunk_by_the_amount_of_speech() -> None:
    frames = int(STATISTICS_PRIOR_FRAMES) // 2
    own = speaker_normalisation(GENERIC, [coloured(COLOUR, frames, 0), coloured(COLOUR, frames, 1)], [0, 1])
    level = np.log(np.exp(COLOUR).mean())
    assert own.levels.reference == pytest.approx(level, abs=0.01)
    # n = k: half way between the generic mean, 0, and the colour after the gain.
    np.testing.assert_allclose(own.statistics.mean, (COLOUR - level) / 2.0, atol=0.02)
    np.testing.assert_allclose(own.statistics.std, np.full(BINS, 0.5 + 0.058 / 2.0), atol=0.01)


def test_statistics_weigh_emotions_equally_whatever_the_number_of_takes() -> None:
    quiet, loud = coloured(COLOUR, 200, 0), coloured(COLOUR + 2.0, 200, 1)
    even = speaker_normalisation(GENERIC, [quiet, loud], [2, 3])
    uneven = speaker_normalisation(GENERIC, [quiet, loud, loud, loud], [2, 3, 3, 3])
    assert uneven.levels.reference == pytest.approx(
        even.levels.reference, rel=0, abs=float32_tolerance(200, largest(COLOUR + 2.0))
    )


def tried(
    lengths: Mapping[int, tuple[int, ...]], generic: Head | None = None, spectrum: Spectrum = "linear"
) -> list[str]:
    """Name the candidates of a session, given the samples of the takes of each emotion."""
    emotions = [emotion for emotion, sizes in lengths.items() for _ in sizes]
    sounds = [np.zeros(size, np.float32) for sizes in lengths.values() for size in sizes]
    found = candidates(takes_of(emotions), sounds, generic or toy_head(), spectrum)
    return [candidate.name for candidate in found]


WHOLE = dict.fromkeys(range(4), (100, 100))


def test_a_whole_session_supports_all_candidates_the_simplest_first() -> None:
    assert tried(WHOLE) == ["generic", "bias", "dimensions", "adapter", "statistics + adapter"]


def test_a_session_that_lacks_an_emotion_supports_no_fit() -> None:
    assert tried({0: (100, 100), 1: (100, 100), 3: (100, 100)}) == ["generic"]
    assert tried({0: (100, 100), 3: (100, 100)}) == ["generic"]


def test_an_unbalanced_session_does_not_support_statistics() -> None:
    uneven = {**WHOLE, 0: (900, 900)}
    assert tried(uneven) == ["generic", "bias", "dimensions", "adapter"]
    assert "statistics + adapter" in tried({**WHOLE, 0: (400, 400)})


def test_a_head_without_the_dimensions_classes_is_not_tuned_on_them() -> None:
    wide = replace(toy_head(), fc2_bias=np.zeros(8, np.float32))
    assert tried(WHOLE, wide) == ["generic", "bias", "adapter", "statistics + adapter"]


def test_the_baseline_is_a_candidate_where_the_head_reads_one() -> None:
    relative = replace(toy_head(), baseline_weight=np.zeros((6, 8), np.float32))
    assert tried(WHOLE, relative)[:3] == ["generic", "baseline", "bias"]


@pytest.mark.parametrize("spectrum", ["log_mel", "mel_power"])
def test_the_speaker_s_statistics_are_no_candidate_where_the_network_ignores_them(spectrum: Spectrum) -> None:
    assert tried(WHOLE, spectrum=spectrum) == ["generic", "bias", "dimensions", "embedding adapter"]
