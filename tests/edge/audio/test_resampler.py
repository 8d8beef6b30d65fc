from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.downmix import Downmix
from edge.audio.resampler import AudioConverter, Resampler
from tests.tolerances import float32_tolerance

FOURIER_ROUNDING = float32_tolerance(2 * 13, 1.0)
"""Error of sound resampled there and back by Fourier transforms of at most 2^13 samples."""


def tone(rate: int, duration_s: float = 1.0, frequency_hz: float = 440.0, level: float = 0.5) -> Array:
    times_s = np.arange(round(rate * duration_s)) / rate
    return (level * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def in_blocks(converter: AudioConverter | Resampler, samples: Array, sizes: list[int]) -> Array:
    pieces, at = [], 0
    while at < len(samples):
        for size in sizes:
            pieces.append(converter.feed(samples[at : at + size]))
            at += size
    return np.concatenate([*pieces, converter.flush()])


# Resampling


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_a_tone_keeps_its_pitch_level_and_place_at_any_rate(rate: int) -> None:
    resampled = in_blocks(Resampler(rate), tone(rate), [round(0.02 * rate)])
    expected = tone(SAMPLE_RATE)
    assert abs(len(resampled) - SAMPLE_RATE) <= 1
    middle = slice(800, 15_200)
    np.testing.assert_allclose(resampled[middle], expected[middle], atol=2e-3)


def test_what_16_khz_cannot_carry_does_not_fold_back() -> None:
    resampled = in_blocks(Resampler(44_100), tone(44_100, frequency_hz=11_000.0), [882])
    assert np.abs(resampled[800:15_200]).max() < 1e-3


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=6),
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
)
def test_resampling_does_not_depend_on_the_blocks(sizes: list[int], rate: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 9_001).astype(np.float32)
    whole = in_blocks(Resampler(rate), noise, [len(noise)])
    blockwise = in_blocks(Resampler(rate), noise, sizes)
    np.testing.assert_allclose(blockwise, whole, rtol=0, atol=FOURIER_ROUNDING)


def test_blocks_of_one_sample_resample_to_the_same() -> None:
    noise = np.random.default_rng(1).uniform(-0.9, 0.9, 3_001).astype(np.float32)
    whole = in_blocks(Resampler(44_100), noise, [len(noise)])
    singly = in_blocks(Resampler(44_100), noise, [1])
    np.testing.assert_allclose(singly, whole, rtol=0, atol=FOURIER_ROUNDING)


def test_flush_emits_the_tail() -> None:
    resampler = Resampler(44_100)
    early = len(resampler.feed(tone(44_100)))
    assert early < SAMPLE_RATE
    assert early + len(resampler.flush()) == SAMPLE_RATE


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_what_the_resampler_held_back_arrived_when_it_was_fed(rate: int) -> None:
    converter, piece_s, out, late = AudioConverter(rate), 0.02, 0, []
    for number, start in enumerate(range(0, rate, round(piece_s * rate)), start=1):
        samples = converter.feed(tone(rate)[start : start + round(piece_s * rate)], number * piece_s)
        out += len(samples)
        if len(samples):
            newest_s = (out - 1) / SAMPLE_RATE
            assert newest_s - 1e-9 < converter.arrived_s <= newest_s + piece_s + 1e-9
            late.append(number * piece_s - converter.arrived_s)
    assert (max(late) > 0.0) == (rate != SAMPLE_RATE)
    converter.flush()
    assert converter.arrived_s == pytest.approx(1.0)


def test_overshoot_of_the_filter_stays_within_full_scale() -> None:
    square = np.sign(tone(44_100, frequency_hz=500.0))
    resampled = in_blocks(Resampler(44_100), square, [882])
    assert np.abs(resampled).max() == 1.0


# Cleaning


def test_two_channels_are_averaged_and_any_number_on_request() -> None:
    sound = np.stack([np.full(100, 0.5), np.full(100, -0.1), np.full(100, 0.2)], axis=1).astype(np.float32)
    converter = AudioConverter(SAMPLE_RATE)
    mixed = np.concatenate([converter.feed(sound[:, :2]), converter.flush()])
    np.testing.assert_allclose(mixed, np.full(100, 0.2), rtol=0, atol=float32_tolerance(3, 0.5))
    everything = AudioConverter(SAMPLE_RATE, Downmix(SAMPLE_RATE, "mix")).feed(sound)
    np.testing.assert_allclose(everything, np.full(100, 0.2), rtol=0, atol=float32_tolerance(3, 0.5))


def test_nan_and_infinity_become_silence_and_are_counted() -> None:
    converter = AudioConverter(SAMPLE_RATE)
    sound = np.array([0.1, np.nan, np.inf, -np.inf, 0.2], np.float32)
    np.testing.assert_array_equal(converter.feed(sound), np.array([0.1, 0, 0, 0, 0.2], np.float32))
    assert (converter.not_finite, converter.clipped) == (3, 0)


def test_values_beyond_full_scale_are_cut_and_counted_over_the_stream() -> None:
    converter = AudioConverter(SAMPLE_RATE)
    converter.feed(np.array([1.0, -1.0, 1.5], np.float32))
    cut = converter.feed(np.array([-3.0, 0.5], np.float32))
    np.testing.assert_array_equal(cut, np.array([-1.0, 0.5], np.float32))
    assert converter.clipped == 2


def test_cleaning_leaves_the_input_as_it_was() -> None:
    sound = np.array([np.nan, 2.0], np.float32)
    AudioConverter(SAMPLE_RATE).feed(sound)
    assert np.isnan(sound[0])
    assert sound[1] == 2.0
