"""The log mel spectrogram equals Whisper's, whole and as a stream."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import Array
from edge.features.log_mel import (
    DYNAMIC_RANGE,
    HOP_LENGTH,
    MAXIMUM,
    MEL_BANDS,
    N_FFT,
    LogMelStream,
    log_mel_spectrogram,
    mel_filters,
    normalised_window,
)
from tests.tolerances import float32_tolerance

PRETRAINED = Path(os.environ.get("MMTL_PRETRAINED", "../shared/pretrained"))

ROUNDING = 2.0 * float32_tolerance(N_FFT, 1.0)
"""Of the logarithm of a band of noise: its relative error, where |X|^2 errs twice as far as X."""


def noise(samples: int, seed: int = 0) -> Array:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def in_blocks(samples: Array, sizes: list[int]) -> Array:
    stream, start, frames = LogMelStream(), 0, []
    for size in sizes:
        frames.append(stream.feed(samples[start : start + size]))
        start += size
    return np.concatenate([*frames, stream.feed(samples[start:]), stream.flush()])


@given(st.integers(0, 3000), st.lists(st.integers(0, 700), max_size=12))
def test_a_stream_gives_the_frames_of_the_whole_for_any_blocks(samples: int, sizes: list[int]) -> None:
    whole = noise(samples)
    np.testing.assert_allclose(in_blocks(whole, sizes), log_mel_spectrogram(whole), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("size", [1, 157, 160, 400])
def test_a_stream_gives_the_frames_of_the_whole_for_blocks_of_one_size(size: int) -> None:
    whole = noise(2000)
    np.testing.assert_allclose(
        in_blocks(whole, [size] * (len(whole) // size)),
        log_mel_spectrogram(whole),
        rtol=0,
        atol=ROUNDING,
    )


def test_a_frame_depends_on_no_sample_after_its_end() -> None:
    stream, other = LogMelStream(), LogMelStream()
    first = stream.feed(noise(1600))
    assert len(first) == (1600 - N_FFT // 2) // HOP_LENGTH + 1
    again = other.feed(np.append(noise(1600), noise(800, 1)))[: len(first)]
    np.testing.assert_allclose(first, again, rtol=0, atol=ROUNDING)


def test_reset_and_flush_forget_the_stream() -> None:
    stream = LogMelStream()
    stream.feed(noise(1234, 1))
    stream.reset()
    np.testing.assert_array_equal(stream.feed(noise(1000)), LogMelStream().feed(noise(1000)))
    stream.flush()
    np.testing.assert_array_equal(stream.feed(noise(1000)), LogMelStream().feed(noise(1000)))


def test_there_is_one_frame_for_each_whole_hop() -> None:
    for samples, frames in ((0, 0), (159, 0), (160, 1), (319, 1), (48_000, 300)):
        assert log_mel_spectrogram(noise(samples)).shape == (frames, MEL_BANDS)


def test_a_tone_is_in_the_band_around_its_pitch() -> None:
    time = np.arange(16_000) / 16_000
    for hz in (200.0, 1000.0, 4000.0):
        loudest = log_mel_spectrogram(np.sin(2 * np.pi * hz * time).astype(np.float32))[50].argmax()
        assert mel_filters()[round(hz / 40), loudest] > 0


def test_a_window_does_not_depend_on_the_gain() -> None:
    quiet = normalised_window(log_mel_spectrogram(noise(16_000)))
    loud = normalised_window(log_mel_spectrogram(7.0 * noise(16_000)))
    np.testing.assert_allclose(quiet, loud, rtol=0, atol=ROUNDING)
    assert quiet.max() == pytest.approx((MAXIMUM + 4) / 4)


def test_what_is_far_below_the_maximum_of_a_window_is_cut_off() -> None:
    silent = np.append(noise(8000), np.zeros(8000, np.float32))
    window = normalised_window(log_mel_spectrogram(silent))
    assert window.min() == pytest.approx((MAXIMUM - DYNAMIC_RANGE + 4) / 4)
    assert np.isfinite(normalised_window(log_mel_spectrogram(np.zeros(1600, np.float32)))).all()


@pytest.mark.data
@pytest.mark.skipif(not PRETRAINED.is_dir(), reason=f"no reference in {PRETRAINED}")
def test_it_equals_the_reference() -> None:
    with np.load(PRETRAINED / "reference.npz") as reference:
        log_mel = log_mel_spectrogram(reference["waveform"])
        whisper = (np.maximum(log_mel, log_mel.max() - 8.0) + 4.0) / 4.0
        np.testing.assert_allclose(whisper.T, reference["log_mel"], atol=5e-5)
