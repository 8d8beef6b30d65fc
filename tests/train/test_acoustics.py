"""What is measured of a clip, on sounds whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.arrays import Array
from train.acoustics import NAMES, measures, pitch_track

RATE = 16_000


def buzz(hz: float, seconds: float = 1.0, beats: float = 0.0) -> Array:
    """A tone of many harmonics, like a voice, its level falling to nothing so many times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 12))
    level = 0.5 - 0.5 * np.cos(2 * np.pi * beats * time) if beats else 1.0
    noise = np.random.default_rng(0).standard_normal(len(time))
    samples: Array = (0.1 * level * tone + 0.003 * noise).astype(np.float32)
    return samples


def measure(samples: Array, name: str) -> float:
    return float(measures(samples)[NAMES.index(name)])


@pytest.mark.parametrize("hz", [80.0, 120.0, 200.0, 330.0])
def test_the_pitch_of_a_voice_is_found_without_octave_errors(hz: float) -> None:
    semitones = 12 * np.log2(hz / 100)
    assert measure(buzz(hz), "pitch") == pytest.approx(semitones, abs=0.3)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert pitch_track(noise)[1] < 0.05
    assert np.isnan(measure(np.zeros(RATE, np.float32), "pitch"))


def test_ten_times_the_amplitude_is_twenty_decibels_and_nothing_else() -> None:
    quiet, loud = measures(buzz(150.0, beats=4.0)), measures(10 * buzz(150.0, beats=4.0))
    assert loud[0] - quiet[0] == pytest.approx(20.0, abs=0.01)
    np.testing.assert_allclose(loud[1:], quiet[1:], atol=0.05)


@pytest.mark.parametrize("added", [0.3, 0.05 * np.sin(2 * np.pi * 50 * np.arange(64_000) / 16_000)])
def test_an_offset_and_hum_are_not_measured(added: float | NDArray[np.float64]) -> None:
    clip = buzz(150.0, beats=4.0)
    disturbed = clip + (added if isinstance(added, float) else added[: len(clip)])
    named = measures(disturbed.astype(np.float32))[: len(NAMES)]
    np.testing.assert_allclose(named, measures(clip)[: len(NAMES)], atol=0.2)


@pytest.mark.parametrize("beats", [2.0, 4.0, 6.0])
def test_the_rate_counts_the_beats_of_the_level(beats: float) -> None:
    assert measure(buzz(150.0, 3.0, beats), "rate") == pytest.approx(beats, rel=0.15)


@pytest.mark.parametrize("samples", [0, 1, 100, 399, 640, 1000])
def test_any_length_is_measured(samples: int) -> None:
    assert len(measures(buzz(150.0)[:samples])) == len(measures(buzz(150.0)))
