"""Bands and their long-term spectrum, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import Array
from edge.features.frontend import FrontEnd, power_spectrogram
from edge.features.long_term_spectrum import BANDS, FLOOR, SPECTRUM_SIZE, band_powers, long_term_spectrum
from tests.tolerances import float32_tolerance, largest

FRONT_END = FrontEnd()


def spoken(frames: int, seed: int = 0) -> Array:
    """Random band powers around those of speech."""
    draw = np.random.default_rng(seed)
    return np.exp(draw.normal(0.0, 1.0, (frames, BANDS))).astype(np.float32)


@pytest.mark.parametrize(("hz", "band"), [(100, 0), (125, 1), (500, 7), (1000, 10), (2500, 14), (3960, 16)])
def test_a_tone_is_in_the_band_of_its_frequency(hz: int, band: int) -> None:
    tone = 0.1 * np.sin(2.0 * np.pi * hz * np.arange(16_000) / 16_000)
    power = power_spectrogram(tone.astype(np.float32), FRONT_END)
    bins = np.array([1, 2, 1, 3, 3, 3, 5, 6, 7, 9, 12, 14, 19, 23, 29, 38, 22])[None]
    inside = band_powers(power, FRONT_END) * bins
    assert set(inside.argmax(axis=1)) == {band}


def test_each_bin_from_the_first_band_on_counts_in_one_band() -> None:
    shares = band_powers(np.eye(FRONT_END.bins, dtype=np.float32), FRONT_END)
    assert ((shares > 0.0).sum(axis=1) == (np.arange(FRONT_END.bins) * 20 > 88)).all()
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, rtol=float32_tolerance(FRONT_END.bins, 1.0))


def test_it_is_the_mean_and_deviation_of_each_band_against_the_mean_of_all() -> None:
    bands = spoken(7)
    logs = [[np.log(value / bands.mean() + FLOOR) for value in row] for row in bands.astype(float)]
    mean = [sum(column) / 7 for column in zip(*logs, strict=True)]
    spread = [
        (sum((value - middle) ** 2 for value in column) / 7) ** 0.5
        for column, middle in zip(zip(*logs, strict=True), mean, strict=True)
    ]
    found = long_term_spectrum(bands, np.zeros(7, np.float32))
    assert found.shape == (SPECTRUM_SIZE,)
    assert found.dtype == np.float32
    tolerance = float32_tolerance(7 * BANDS + 7, largest(logs))
    np.testing.assert_allclose(found, mean + spread, rtol=0, atol=tolerance)


@given(gain_db=st.floats(-50.0, 30.0), shift_db=st.floats(-100.0, 100.0))
def test_it_does_not_depend_on_how_loud_the_sound_is(gain_db: float, shift_db: float) -> None:
    bands, levels = spoken(20), np.linspace(-30.0, 0.0, 20).astype(np.float32)
    louder = long_term_spectrum(bands * np.float32(10.0 ** (gain_db / 10.0)), levels + np.float32(shift_db))
    plain = long_term_spectrum(bands, levels)
    tolerance = float32_tolerance(20 * BANDS + 20, largest(plain))
    np.testing.assert_allclose(louder, plain, rtol=0, atol=tolerance)


@given(pauses=st.lists(st.floats(-90.0, -20.1), max_size=20), seed=st.integers(0, 100))
def test_pauses_do_not_change_it(pauses: list[float], seed: int) -> None:
    bands, silent = spoken(10, seed), spoken(len(pauses), seed + 1)
    levels = np.linspace(-19.0, 0.0, 10).astype(np.float32)
    found = long_term_spectrum(
        np.concatenate([bands, silent]), np.concatenate([levels, np.array(pauses, np.float32)])
    )
    np.testing.assert_array_equal(found, long_term_spectrum(bands, levels))


def test_digital_silence_has_a_spectrum_too() -> None:
    silence = np.zeros((5, BANDS), np.float32)
    assert np.isfinite(long_term_spectrum(silence, np.full(5, -120.0, np.float32))).all()
