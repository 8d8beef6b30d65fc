from __future__ import annotations

import numpy as np
import pytest

from edge.arrays import Array
from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.normaliser import BinStatistics, GainConfig, Normaliser
from edge.inference import offline
from edge.inference.offline import full_windows, normalised_frames

FRONT_END = FrontEnd()


def normaliser() -> Normaliser:
    return Normaliser(GainConfig(), BinStatistics(np.full(200, -2.0, np.float32), np.ones(200, np.float32)))


def sound(seconds: float) -> Array:
    samples = np.random.default_rng(0).standard_normal(round(16_000 * seconds))
    return (0.1 * samples).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("piece", [1, 37, 6_000])
def test_the_frames_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(offline, "PIECE_FRAMES", piece)
    expected = normaliser()(power_spectrogram(filtered(sound(1.0), FRONT_END), FRONT_END))
    np.testing.assert_allclose(normalised_frames(sound(1.0), FRONT_END, normaliser()), expected, atol=1e-5)


def test_each_recording_is_a_new_stream() -> None:
    used = normaliser()
    normalised_frames(10.0 * sound(2.0), FRONT_END, used)
    expected = normalised_frames(sound(1.0), FRONT_END, normaliser())
    np.testing.assert_array_equal(normalised_frames(sound(1.0), FRONT_END, used), expected)


@pytest.mark.parametrize("samples", [0, 639])
def test_a_recording_shorter_than_a_frame_has_none(samples: int) -> None:
    assert normalised_frames(sound(1.0)[:samples], FRONT_END, normaliser()).shape == (0, 200)


def test_full_windows_are_a_step_apart_and_none_is_cut_off() -> None:
    frames = normalised_frames(sound(4.0), FRONT_END, normaliser())
    windows = full_windows(frames, FRONT_END, 24)
    assert windows.shape == (5, 297, 200)
    for index, window in enumerate(windows):
        np.testing.assert_array_equal(window, frames[24 * index : 24 * index + 297])
