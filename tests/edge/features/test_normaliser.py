from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import Array
from edge.errors import ModelError
from edge.features.normaliser import (
    DECIBEL,
    BinStatistics,
    GainConfig,
    Normaliser,
    for_speaker,
    frame_levels,
    initial_state,
    log_power,
    track_gain,
)
from tests.tolerances import float32_tolerance, largest

LEVELS = GainConfig(reference=2.0)
BINS = 8
STATISTICS = BinStatistics(
    np.linspace(-2, 1, BINS, dtype=np.float32), np.linspace(1, 3, BINS, dtype=np.float32)
)


def spectra(frames: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).exponential(7.0, (frames, BINS)).astype(np.float32)


def steady(frames: int, level: float) -> Array:
    return np.full(frames, level, np.float32)


@given(st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=50, deadline=None)
def test_the_result_does_not_depend_on_the_blocks(cuts: list[int]) -> None:
    power = spectra(40)
    whole, blocks = Normaliser(LEVELS, STATISTICS), Normaliser(LEVELS, STATISTICS)
    expected = whole(power)
    edges = [0, *sorted(cuts), 40]
    pieces = [blocks(power[first:last]) for first, last in pairwise(edges)]
    assert (np.concatenate(pieces) == expected).all()
    assert blocks.state == whole.state


def test_the_future_does_not_change_a_frame() -> None:
    power = spectra(40)
    changed = power.copy()
    changed[20:] *= 1000
    before, after = Normaliser(LEVELS, STATISTICS)(power), Normaliser(LEVELS, STATISTICS)(changed)
    assert (before[:20] == after[:20]).all()
    assert (before[20:] != after[20:]).any()


def test_reset_is_exact() -> None:
    normaliser, power = Normaliser(LEVELS, STATISTICS), spectra(40)
    first = normaliser(power)
    normaliser.reset()
    assert normaliser.state == initial_state(LEVELS)
    assert (normaliser(power) == first).all()


def test_speech_at_the_reference_level_is_left_there() -> None:
    estimates, _ = track_gain(steady(100, LEVELS.reference), initial_state(LEVELS), LEVELS)
    np.testing.assert_allclose(estimates, LEVELS.reference, rtol=float32_tolerance(1, 1.0))


@pytest.mark.parametrize("gain_db", [-30.0, 30.0])
def test_a_gain_that_lasts_is_divided_out(gain_db: float) -> None:
    power = spectra(10_000)
    plain = Normaliser(LEVELS, STATISTICS)(power)
    amplified = Normaliser(LEVELS, STATISTICS)(power * np.float32(10.0 ** (gain_db / 10.0)))
    assert np.abs(amplified[:10] - plain[:10]).max() > 1.0
    assert np.abs(amplified[-10:] - plain[-10:]).max() < 0.1


def test_the_first_guess_is_worth_its_frames() -> None:
    above = LEVELS.reference + 1.0
    estimates, _ = track_gain(steady(20, above), initial_state(LEVELS), LEVELS)
    assert estimates[-1] == pytest.approx(LEVELS.reference + 0.5, abs=1e-3)


def test_the_memory_is_bounded() -> None:
    _, state = track_gain(steady(5_000, LEVELS.reference), initial_state(LEVELS), LEVELS)
    assert state.weight == LEVELS.memory_frames


def test_a_pause_does_not_move_the_level() -> None:
    _, spoken = track_gain(steady(100, LEVELS.reference), initial_state(LEVELS), LEVELS)
    _, after = track_gain(steady(100, LEVELS.reference - 40 * DECIBEL), spoken, LEVELS)
    assert after.level == spoken.level


def test_an_hour_of_a_muted_microphone_does_not_move_the_level() -> None:
    silence = frame_levels(np.zeros((360_000, 1), np.float32))
    _, after = track_gain(silence, initial_state(LEVELS), LEVELS)
    assert after.level == LEVELS.reference


def test_speech_40_db_below_the_reference_is_followed_all_the_same() -> None:
    quiet = LEVELS.reference - 40 * DECIBEL
    estimates, _ = track_gain(steady(8_000, quiet), initial_state(LEVELS), LEVELS)
    assert estimates[-1] == pytest.approx(quiet, abs=2 * DECIBEL)


def test_silence_is_finite() -> None:
    assert np.isfinite(Normaliser(LEVELS, STATISTICS)(np.zeros((300, BINS), np.float32))).all()


def test_no_frames_are_no_frames() -> None:
    assert Normaliser(LEVELS, STATISTICS)(np.zeros((0, BINS), np.float32)).shape == (0, BINS)


def test_the_level_is_the_logarithm_of_the_mean_power() -> None:
    power = spectra(5)
    expected = np.log(power.astype(np.float64).mean(axis=1))
    # A logarithm errs by its argument's relative error, and is rounded.
    tolerance = float32_tolerance(BINS, 1.0) + float32_tolerance(1, largest(expected))
    np.testing.assert_allclose(frame_levels(power), expected, rtol=0, atol=tolerance)


def test_log_power_divides_by_the_level_before_the_logarithm() -> None:
    power, level = spectra(5), np.arange(5, dtype=np.float32)
    expected = np.log(power.astype(np.float64) / np.exp(level)[:, None] + 1e-5)
    tolerance = float32_tolerance(4, largest(1.0, expected))  # exp, quotient, sum, log
    np.testing.assert_allclose(log_power(power, level, 1e-5), expected, rtol=0, atol=tolerance)


def test_the_statistics_make_unit_variance() -> None:
    generator = np.random.default_rng(0)
    power = np.exp(generator.normal(STATISTICS.mean, STATISTICS.std, (5_000, BINS))).astype(np.float32)
    fixed = replace(LEVELS, reference=0.0, memory_frames=1e9, prior_frames=1e9, eps=1e-12)
    normalised = Normaliser(fixed, STATISTICS)(power)
    np.testing.assert_allclose(normalised.mean(axis=0), 0.0, atol=0.1)
    np.testing.assert_allclose(normalised.std(axis=0), 1.0, atol=0.1)


@pytest.mark.parametrize(("frames", "share"), [(1.0, 0.01), (99.0, 0.5), (9_801.0, 0.99)])
def test_a_speaker_counts_as_far_as_the_amount_of_speech_allows(frames: float, share: float) -> None:
    ones, zeros = np.ones(BINS, np.float32), np.zeros(BINS, np.float32)
    moved = BinStatistics(zeros, ones).shrunk(BinStatistics(ones, 3 * ones), frames, 99.0)
    np.testing.assert_allclose(moved.mean, share, rtol=float32_tolerance(3, 1.0))
    np.testing.assert_allclose(moved.std, 1.0 + 2.0 * share, rtol=float32_tolerance(3, 1.0))


def test_a_known_speaker_starts_at_their_own_level() -> None:
    started = initial_state(for_speaker(LEVELS, level=-1.5, prior_frames=200.0))
    assert (started.level, started.weight) == (-1.5, 200.0)


def test_statistics_are_read_back_as_they_were_stored() -> None:
    again = BinStatistics.from_tensors(STATISTICS.tensors())
    assert (again.mean == STATISTICS.mean).all()
    assert (again.std == STATISTICS.std).all()


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (np.zeros(3), np.ones(4), "shapes"),
        (np.zeros((1, 3)), np.ones((1, 3)), "shape .*expected 1 axes"),
        (np.zeros(3), np.zeros(3), "not usable"),
        (np.zeros(3), np.full(3, np.inf), "not usable"),
        (np.full(3, np.nan), np.ones(3), "not usable"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused(mean: Array, std: Array, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        BinStatistics.from_tensors({"statistics.mean": mean, "statistics.std": std})


def test_missing_statistics_are_refused() -> None:
    with pytest.raises(ModelError, match="missing"):
        BinStatistics.from_tensors({"statistics.mean": np.zeros(3, np.float32)})
