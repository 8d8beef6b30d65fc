"""The log mel spectrogram equals Whisper's, and a stream's frames are those of the whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.features.frontend import MEL_BANDS, FrontEnd, PowerStream, power_spectrogram
from edge.features.log_mel import LOG_MEL, has_mel_bands, log_mel, log_mel_spectrogram, mel_filters
from edge.features.network_input import network_input
from edge.features.normaliser import BinStatistics, GainConfig
from tests.tolerances import float32_tolerance

PRETRAINED = Path(os.environ.get("MMTL_PRETRAINED", "../shared/pretrained"))

ROUNDING = 2.0 * float32_tolerance(LOG_MEL.n_fft, 1.0)
"""Of the logarithm of a band of noise: its relative error, where |X|^2 errs twice as far as X."""


def noise(samples: int, seed: int = 0) -> Array:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize("frames", [0, 1, 16, 50])
def test_bands_are_the_product_with_the_filters_for_any_number_of_frames(frames: int) -> None:
    power = power_spectrogram(noise(LOG_MEL.samples_in(50)), LOG_MEL)[:frames]
    expected = np.log10(np.maximum(power.astype(np.float64) @ mel_filters(), 1e-10))
    found = log_mel(power)
    assert found.shape == (frames, MEL_BANDS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("size", [1, 157, 160, 400])
def test_a_stream_gives_the_frames_of_the_whole_for_blocks_of_one_size(size: int) -> None:
    whole = noise(2000)
    spectra = PowerStream(LOG_MEL)
    unit = BinStatistics(np.zeros(MEL_BANDS, np.float32), np.ones(MEL_BANDS, np.float32))
    frames = network_input(LOG_MEL, GainConfig(), unit)
    blocks = [frames(spectra.feed(whole[start : start + size])) for start in range(0, len(whole), size)]
    expected = log_mel(power_spectrogram(whole, LOG_MEL))
    assert expected.shape == (LOG_MEL.frames_in(2000), LOG_MEL.frame_size)
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=ROUNDING)


def test_there_is_one_frame_for_each_whole_hop() -> None:
    for samples, frames in ((0, 0), (159, 0), (160, 1), (319, 1), (48_000, 300)):
        assert log_mel_spectrogram(noise(samples)).shape == (frames, MEL_BANDS)


def test_a_tone_is_in_the_band_around_its_pitch() -> None:
    time = np.arange(16_000) / 16_000
    for hz in (200.0, 1000.0, 4000.0):
        loudest = log_mel_spectrogram(np.sin(2 * np.pi * hz * time).astype(np.float32))[50].argmax()
        assert mel_filters()[round(hz / 40), loudest] > 0


def test_a_frame_of_a_stream_is_whispers_of_the_same_samples() -> None:
    whole = noise(2000)
    streamed = log_mel(power_spectrogram(whole[120:], LOG_MEL))  # whose first centre is at 320 = 2 hops
    np.testing.assert_allclose(streamed[:8], log_mel_spectrogram(whole)[2:10], rtol=0, atol=ROUNDING)


def test_mel_filters_fit_one_kind_of_frame_only() -> None:
    assert has_mel_bands(LOG_MEL)
    assert has_mel_bands(replace(LOG_MEL, window_ms=2000, high_pass_hz=0.0))
    assert not has_mel_bands(replace(LOG_MEL, n_fft=512))
    assert not has_mel_bands(FrontEnd(spectrum="log_mel"))


@pytest.mark.data
@pytest.mark.skipif(not PRETRAINED.is_dir(), reason=f"no reference in {PRETRAINED}")
def test_it_equals_the_reference() -> None:
    with np.load(PRETRAINED / "reference.npz") as reference:
        log_mel = log_mel_spectrogram(reference["waveform"])
        whisper = (np.maximum(log_mel, log_mel.max() - 8.0) + 4.0) / 4.0
        np.testing.assert_allclose(whisper.T, reference["log_mel"], atol=5e-5)
