"""Mel power under the running gain: independent of blocks and of the microphone's gain."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.features.frontend import MEL_POWER_BANDS, PowerStream, power_spectrogram
from edge.features.log_mel import has_mel_bands, mel_filters
from edge.features.mel_power import MEL_POWER, SPEECH_POWER, MelPower
from edge.features.network_input import network_input
from edge.features.normaliser import BinStatistics, GainConfig, frame_levels

UNIT = BinStatistics(np.zeros(MEL_POWER_BANDS, np.float32), np.ones(MEL_POWER_BANDS, np.float32))
PRETRAINED = Path(os.environ.get("MMTL_PRETRAINED", "../shared/pretrained"))


def noise(samples: int, scale: float = 0.1) -> Array:
    return scale * np.random.default_rng(0).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize("cuts", [(1,), (160, 163, 1999), (400, 401, 777)])
def test_a_stream_gives_the_frames_of_the_whole(cuts: tuple[int, ...]) -> None:
    whole, spectra = noise(4000), PowerStream(MEL_POWER)
    stream = network_input(MEL_POWER, GainConfig(), UNIT)
    blocks = [stream(spectra.feed(whole[first:last])) for first, last in pairwise((0, *cuts, len(whole)))]
    expected = network_input(MEL_POWER, GainConfig(), UNIT)(power_spectrogram(whole, MEL_POWER))
    assert expected.shape == (MEL_POWER.frames_in(4000), MEL_POWER.frame_size) == (23, 40)
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=1e-4, atol=0)


def test_speech_at_the_reference_has_the_level_of_the_encoder_at_once() -> None:
    power = power_spectrogram(noise(16_000), MEL_POWER)
    levels = GainConfig(reference=float(frame_levels(power).mean()))
    found = MelPower(levels, UNIT)(power)
    expected = SPEECH_POWER * np.exp(-levels.reference) * (power @ mel_filters(MEL_POWER_BANDS))
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), rtol=0.05)


@pytest.mark.parametrize("gain_db", [-20.0, 20.0])
def test_a_gain_that_lasts_is_divided_out(gain_db: float) -> None:
    usual, other = (
        MelPower(GainConfig(), UNIT)(power_spectrogram(noise(480_000, scale), MEL_POWER))[-100:]
        for scale in (0.1, 0.1 * 10.0 ** (gain_db / 20.0))
    )
    np.testing.assert_allclose(other.mean(axis=0), usual.mean(axis=0), rtol=0.05)


def test_reset_is_exact() -> None:
    power, stream = power_spectrogram(noise(4000), MEL_POWER), MelPower(GainConfig(), UNIT)
    first = stream(power)
    assert (stream(power) != first).any()
    stream.reset()
    assert (stream(power) == first).all()


def test_silence_is_finite() -> None:
    assert np.isfinite(MelPower(GainConfig(), UNIT)(np.zeros((50, MEL_POWER.bins), np.float32))).all()


def test_the_filters_of_forty_bands_have_unit_area_and_fit_the_frames() -> None:
    assert has_mel_bands(MEL_POWER)
    filters = mel_filters(MEL_POWER_BANDS)
    assert filters.shape == (MEL_POWER.bins, MEL_POWER_BANDS)
    np.testing.assert_allclose(filters[:, 20:].sum(axis=0) * 40.0, 1.0, rtol=0.1)


@pytest.mark.data
@pytest.mark.skipif(not PRETRAINED.is_dir(), reason=f"no reference in {PRETRAINED}")
def test_the_bands_are_those_of_the_reference() -> None:
    with np.load(PRETRAINED / "reference.npz") as reference:
        centred = np.pad(reference["waveform"], MEL_POWER.n_fft // 2)
        found = power_spectrogram(centred, MEL_POWER) @ mel_filters(MEL_POWER_BANDS)
        np.testing.assert_allclose(found, reference["resemblyzer.power_mel"], rtol=1e-3, atol=1e-6)
