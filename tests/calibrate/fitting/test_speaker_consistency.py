"""Which take of a session sounds like another person's."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibrate.fitting.speaker_consistency import (
    DISTANCE_PRIOR,
    NEIGHBOURS,
    OUTLIER_THRESHOLD,
    PITCH_SPREAD,
    SHORTEST_SESSION,
    find_outliers,
    outlier_scores,
    voice_features,
)
from edge.arrays import Array
from edge.features.frontend import FrontEnd
from tests.calibrate.session.synthetic_voices import room, speech
from tests.tolerances import float32_tolerance, largest

FRONT_END = FrontEnd()


def buzz(pitch_hz: float, ringing_hz: float = 0.0, seconds: float = 0.5) -> Array:
    """Harmonics that fall by 6 dB per octave, with a resonance at `ringing_hz`."""
    time_s = np.arange(round(16_000 * seconds)) / 16_000
    numbers = np.arange(1, int(4_000 / pitch_hz))
    sizes = 1.0 / numbers + (np.abs(numbers * pitch_hz - ringing_hz) < pitch_hz)
    tones = np.sin(2.0 * np.pi * pitch_hz * np.outer(time_s, numbers)) @ sizes
    sound: Array = (0.1 * tones).astype(np.float32) + room(seconds)
    return sound


def said_by(size: float, seed: int) -> Array:
    """Speech of a person whose vocal tract is shorter by the factor `size`: all frequencies are higher."""
    draw = np.random.default_rng(seed)
    spoken, pace = speech(), size * draw.uniform(0.97, 1.03)
    begin = draw.uniform(0.0, 0.2 * len(spoken))
    sound: Array = np.interp(
        np.arange(begin, len(spoken) - 1.0, pace), np.arange(len(spoken)), spoken
    ).astype(np.float32)
    return sound


def pitch_of(sound: Array) -> float:
    return float(2.0 ** (PITCH_SPREAD * voice_features(sound, FRONT_END)[0]))


@given(st.floats(80.0, 400.0))
def test_the_pitch_of_a_voice_is_found(pitch_hz: float) -> None:
    assert pitch_of(buzz(pitch_hz)) == pytest.approx(pitch_hz, rel=0.03)


@pytest.mark.parametrize("pitch_hz", [90.0, 110.0])
def test_a_resonance_is_not_mistaken_for_the_pitch(pitch_hz: float) -> None:
    assert pitch_of(buzz(pitch_hz, ringing_hz=4.0 * pitch_hz)) == pytest.approx(pitch_hz, rel=0.03)


@functools.cache
def spoken() -> tuple[Array, NDArray[np.float64]]:
    """A take and its voice features."""
    sound = speech(peak=0.6)
    return sound, voice_features(sound, FRONT_END)


@settings(max_examples=30)
@given(st.floats(0.01, 1.5))
def test_the_voice_features_do_not_depend_on_loudness(gain: float) -> None:
    sound, plain = spoken()
    louder = voice_features(np.float32(gain) * sound, FRONT_END)
    terms = FRONT_END.n_fft + FRONT_END.bins + len(sound) // FRONT_END.hop_length
    np.testing.assert_allclose(louder, plain, rtol=0, atol=float32_tolerance(terms, largest(plain)))


def test_a_take_without_pitch_is_described_too() -> None:
    hiss = room(1.0, 0.1)
    assert np.isfinite(voice_features(hiss, FRONT_END)).all()
    assert np.isfinite(voice_features(hiss[: FRONT_END.win_length], FRONT_END)).all()


def test_outlier_scores_are_distances_to_the_nearest_takes_relative_to_the_others() -> None:
    voices = np.random.default_rng(2).standard_normal((9, 4))

    def distance(index: int, among: list[int]) -> float:
        squares = [np.mean((voices[index] - voices[other]) ** 2) for other in among if other != index]
        return float(np.mean(sorted(squares)[:NEIGHBOURS]))

    for index, scores in enumerate(outlier_scores(voices)):
        others = [other for other in range(9) if other != index]
        usual = np.mean([distance(other, others) for other in others])
        assert scores == pytest.approx(distance(index, others) / (usual + DISTANCE_PRIOR))


@given(st.permutations(range(9)))
def test_the_order_of_the_takes_makes_no_difference(order: list[int]) -> None:
    voices = np.random.default_rng(3).standard_normal((9, 4))
    np.testing.assert_allclose(outlier_scores(voices[order]), outlier_scores(voices)[order])


def test_two_manners_of_one_person_are_not_two_persons() -> None:
    manners = np.repeat([[0.0] * 4, [8.0] * 4], 4, axis=0)
    voices = manners + 0.5 * np.random.default_rng(4).standard_normal((8, 4))
    assert (outlier_scores(voices) < OUTLIER_THRESHOLD).all()


def test_nearly_identical_takes_are_not_outliers() -> None:
    voices = 0.01 * np.random.default_rng(5).standard_normal((8, 4))
    voices[3] += 0.2
    assert (outlier_scores(voices) < OUTLIER_THRESHOLD).all()


@pytest.mark.parametrize("place", [0, 5, 7])
def test_the_take_of_another_person_is_suspected_and_no_other(place: int) -> None:
    sounds = [said_by(1.0, seed) for seed in range(8)]
    assert find_outliers(sounds) == []
    sounds[place] = said_by(1.6, place)
    assert find_outliers(sounds) == [place]


def test_a_session_with_too_few_takes_has_no_outliers() -> None:
    sounds = [*(said_by(1.0, seed) for seed in range(SHORTEST_SESSION - 2)), said_by(1.6, 9)]
    assert find_outliers(sounds) == []
    assert find_outliers([*sounds, said_by(1.0, 10)]) == [SHORTEST_SESSION - 2]
