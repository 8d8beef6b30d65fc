from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.frontend import FrontEnd, PowerStream, power_spectrogram
from tests.tolerances import float32_tolerance, largest

DEFAULT = FrontEnd()
LONG = FrontEnd(win_length_ms=200)


def noise(samples: int, seed: int = 0) -> Array:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def naive(waveform: Array, front_end: FrontEnd) -> NDArray[np.float64]:
    """The definition, term by term: |sum_n w_n x_n exp(-2 pi i k n / n_fft)|^2."""
    n, k = np.arange(front_end.win_length), np.arange(front_end.bins)
    window = 0.54 - 0.46 * np.cos(2.0 * np.pi * n / front_end.win_length)
    kernel = window[:, None] * np.exp(-2j * np.pi * np.outer(n, k) / front_end.n_fft)
    starts = range(0, len(waveform) - front_end.win_length + 1, front_end.hop_length)
    frames = np.stack([waveform[start : start + front_end.win_length] for start in starts])
    power: NDArray[np.float64] = np.abs(frames.astype(np.float64) @ kernel) ** 2
    return power


def power_tolerance(front_end: FrontEnd, power: NDArray[Any]) -> float:
    """Of |X|^2, where X is a sum of a window's samples: twice |X| times what X errs by."""
    return 2.0 * float32_tolerance(front_end.win_length, largest(power))


@pytest.mark.parametrize("win_length_ms", [20, 40, 50, 60, 100, 200])
def test_the_spectra_are_the_discrete_fourier_transform(win_length_ms: int) -> None:
    front_end = FrontEnd(win_length_ms=win_length_ms)
    waveform = noise(8_000)
    expected = naive(waveform, front_end)
    computed = power_spectrogram(waveform, front_end)
    assert computed.shape == expected.shape
    tolerance = power_tolerance(front_end, expected)
    np.testing.assert_allclose(computed, expected, rtol=0, atol=tolerance)


def test_a_tone_is_in_the_bin_of_its_frequency() -> None:
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    assert (power_spectrogram(tone, DEFAULT).argmax(axis=1) == 50).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3_001), min_size=1, max_size=8), st.sampled_from([DEFAULT, LONG]))
def test_a_stream_gives_the_same_spectra_for_any_blocks(sizes: list[int], front_end: FrontEnd) -> None:
    waveform, stream, pieces, done = noise(9_000), PowerStream(front_end), [], 0
    for size in cycle(sizes):
        pieces.append(stream.feed(waveform[done : done + size]))
        done += size
        if done >= len(waveform):
            break
    whole = power_spectrogram(waveform, front_end)
    tolerance = power_tolerance(front_end, whole)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=tolerance)


def test_a_stream_of_single_samples_gives_the_same_spectra() -> None:
    waveform, stream = noise(1_000), PowerStream(DEFAULT)
    pieces = [stream.feed(waveform[index : index + 1]) for index in range(len(waveform))]
    whole = power_spectrogram(waveform, DEFAULT)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=power_tolerance(DEFAULT, whole))


def test_a_frame_comes_with_its_last_sample_and_not_before() -> None:
    waveform, stream = noise(640), PowerStream(DEFAULT)
    assert len(stream.feed(waveform[:639])) == 0
    assert len(stream.feed(waveform[639:])) == 1


def test_the_future_does_not_change_a_frame() -> None:
    waveform = noise(4_000)
    changed = waveform.copy()
    changed[DEFAULT.samples_in(10) :] = 0.9
    before, after = power_spectrogram(waveform, DEFAULT), power_spectrogram(changed, DEFAULT)
    assert (before[:10] == after[:10]).all()
    assert (before[10] != after[10]).any()


def test_reset_forgets_the_samples_kept() -> None:
    waveform, stream = noise(2_000), PowerStream(DEFAULT)
    first = stream.feed(waveform)
    stream.reset()
    assert (stream.feed(waveform) == first).all()


def test_a_stream_does_not_keep_a_large_block_for_long() -> None:
    stream = PowerStream(DEFAULT)
    stream.feed(noise(100_000))
    for _ in range(100):
        stream.feed(noise(1_280))
    assert stream._samples.capacity < 4 * (1_280 + DEFAULT.win_length)


@pytest.mark.parametrize("samples", [0, 1, 639])
def test_less_than_a_frame_has_no_spectra(samples: int) -> None:
    assert power_spectrogram(noise(samples), DEFAULT).shape == (0, 200)


@given(st.integers(0, 100_000))
def test_frames_and_samples_count_each_other(samples: int) -> None:
    frames = DEFAULT.frames_in(samples)
    assert DEFAULT.samples_in(frames) <= samples or frames == 0
    assert DEFAULT.samples_in(frames + 1) > samples
    assert DEFAULT.frames_in(DEFAULT.samples_in(frames)) == frames


def test_the_sizes_are_those_of_the_design() -> None:
    assert (DEFAULT.win_length, DEFAULT.hop_length, DEFAULT.window_frames) == (640, 160, 297)
    assert LONG.win_length == 3_200


def test_full_scale_power_is_the_mean_bin_power_of_sound_at_full_scale() -> None:
    frequencies = np.fft.rfftfreq(160_000, 1 / 16_000)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(160_000))
    band = np.fft.irfft(np.where(frequencies < 4_000, spectrum, 0.0))
    waveform = (band / np.sqrt(np.mean(band**2))).astype(np.float32)
    measured = power_spectrogram(waveform, DEFAULT).mean()
    assert measured == pytest.approx(DEFAULT.full_scale_power, rel=0.05)


def test_silence_has_no_power() -> None:
    assert (power_spectrogram(np.zeros(16_000, np.float32), DEFAULT) == 0).all()


def test_the_window_shared_by_all_streams_cannot_be_changed() -> None:
    from edge.features.frontend import _analysis_window

    with pytest.raises(ValueError, match="read-only"):
        _analysis_window(DEFAULT)[0] = 1.0
