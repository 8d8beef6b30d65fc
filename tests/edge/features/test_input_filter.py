from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.frontend import FrontEnd, filtered
from edge.features.input_filter import BLOCK, InputFilter
from tests.tolerances import float32_tolerance, largest

RATE = 16_000
FRONT_END = FrontEnd()


def default_filter() -> InputFilter:
    return FRONT_END.input_filter()


def noise(samples: int, seed: int = 0) -> Array:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def tone(hz: float, seconds: float = 2.0) -> Array:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def rms_db(sound: Array) -> float:
    return float(10 * np.log10(np.square(sound, dtype=np.float64).mean()))


def gain_db(hz: float) -> float:
    """Of the second second of a tone, when the filter has settled."""
    sound = tone(hz)
    return rms_db(default_filter().feed(sound)[RATE:]) - rms_db(sound[RATE:])


def analogue_response(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """|H|^2 of the analogue prototypes, at the frequencies that the bilinear transform maps to."""
    power = np.ones_like(hz)
    warped = np.tan(np.pi * hz / RATE)
    for centre_hz in (50.0, 60.0):
        ratio = warped / np.tan(np.pi * centre_hz / RATE)
        blocked = np.square(1.0 - ratio**2)
        power *= blocked / (blocked + np.square(ratio / FRONT_END.hum_notch_q))
    power /= 1.0 + (np.tan(np.pi * FRONT_END.high_pass_hz / RATE) / warped) ** 8
    return power


def test_the_response_is_that_of_a_butterworth_high_pass_and_two_notches() -> None:
    impulse = np.zeros(4 * RATE, np.float32)
    impulse[1] = 1.0  # not the first sample, which counts as an offset
    spectrum = np.fft.rfft(default_filter().feed(impulse).astype(np.float64))[1:]
    expected = analogue_response(np.arange(1, len(spectrum)) * RATE / len(impulse))
    np.testing.assert_allclose(np.abs(spectrum[:-1]) ** 2, expected, atol=1e-5)


@pytest.mark.parametrize("offset", [0.002, 0.3, -1.0, 1e-30])
def test_an_offset_is_gone_from_the_first_sample_on(offset: float) -> None:
    assert np.abs(default_filter().feed(np.full(RATE, offset, np.float32))).max() < 1e-9


def test_an_offset_does_not_change_the_sound_beside_it() -> None:
    sound = noise(RATE)
    sound[0] = 0.0
    shifted = sound + np.float32(0.25)
    beside, tolerance = default_filter().feed(shifted), float32_tolerance(1, largest(shifted))
    np.testing.assert_allclose(beside, default_filter().feed(sound), rtol=0, atol=tolerance)


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_hum_at_the_mains_frequency_is_gone(hz: float) -> None:
    assert gain_db(hz) < -80.0
    assert gain_db(hz + 0.2) < -20.0, "a mains frequency is not exact"


@pytest.mark.parametrize("hz", [5.0, 10.0, 15.0])
def test_rumble_is_attenuated(hz: float) -> None:
    assert gain_db(hz) < -20.0


@pytest.mark.parametrize("hz", [100.0, 150.0, 300.0, 1_000.0, 4_000.0, 7_900.0])
def test_speech_is_left_as_it_was(hz: float) -> None:
    assert abs(gain_db(hz)) < 0.3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=8), st.integers(0, 3))
def test_the_blocks_do_not_change_a_bit(sizes: list[int], seed: int) -> None:
    sound, stream, pieces, done = noise(3_000, seed), default_filter(), [], 0
    for size in cycle(sizes):
        pieces.append(stream.feed(sound[done : done + size]))
        done += size
        if done >= len(sound):
            break
    assert (np.concatenate(pieces) == filtered(sound, FRONT_END)).all()


def test_the_future_does_not_change_a_sample() -> None:
    sound = noise(1_000)
    changed = np.concatenate([sound[:500], noise(500, seed=1)])
    before, after = filtered(sound, FRONT_END), filtered(changed, FRONT_END)
    assert (before[:500] == after[:500]).all()
    assert (before[500:] != after[500:]).any()


def test_reset_is_exact() -> None:
    stream, sound = default_filter(), noise(777)
    first = stream.feed(sound)
    stream.reset()
    assert (stream.feed(sound) == first).all()


def test_streams_do_not_touch_each_other() -> None:
    one, other, sound = default_filter(), default_filter(), noise(1_000)
    pieces = []
    for start in range(0, 1_000, 100):
        pieces.append(one.feed(sound[start : start + 100]))
        other.feed(noise(77, seed=start))
    assert (np.concatenate(pieces) == filtered(sound, FRONT_END)).all()


def test_digital_silence_becomes_exactly_silent() -> None:
    stream = default_filter()
    stream.feed(noise(1_000))
    stream.feed(np.zeros(3 * RATE, np.float32))
    assert (stream.feed(np.zeros(RATE, np.float32)) == 0.0).all()
    assert not stream._given.any(), "subnormal states would make each product slow"


def test_without_constants_nothing_is_filtered() -> None:
    sound = noise(1_000)
    assert (InputFilter(RATE, 0.0, 0.0).feed(sound) == sound).all()


def test_no_samples_give_none_and_do_not_begin_the_stream() -> None:
    stream = default_filter()
    assert stream.feed(np.zeros(0, np.float32)).shape == (0,)
    assert np.abs(stream.feed(np.full(100, 0.5, np.float32))).max() < 1e-9
