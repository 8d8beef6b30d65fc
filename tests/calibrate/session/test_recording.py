"""Recording a take from the stream."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.quality import measure, refusal
from calibrate.session.recording import MARGIN_S, SILENCE_TIMEOUT_S, Recorder, RecorderState
from calibrate.take_limits import LONGEST_PROMPTED_S
from edge.arrays import Array
from tests.calibrate.session.synthetic_voices import LoudVoice, room, tone
from tests.tolerances import float32_tolerance, largest


def fed(sound: Array, size: int = 320) -> Recorder:
    recorder = Recorder(LoudVoice())
    for start in range(0, len(sound), size):
        recorder.feed(sound[start : start + size])
    return recorder


def test_a_take_begins_before_the_voice_and_ends_after_the_pause() -> None:
    recorder = fed(np.concatenate([room(2.0), tone(1.5), room(2.0)]))
    assert recorder.state is RecorderState.DONE
    loud = np.flatnonzero(np.abs(recorder.sound) > 0.05) / 16_000
    assert MARGIN_S <= loud[0] <= MARGIN_S + 0.3
    assert loud[-1] - loud[0] == pytest.approx(1.5, abs=0.01)
    assert len(recorder.sound) / 16_000 - loud[-1] == pytest.approx(MARGIN_S, abs=0.1)


def test_an_offset_does_not_count_as_voice_and_stays_in_the_take() -> None:
    sound = np.concatenate([room(2.0), tone(1.5), room(2.0)])
    plain, beside = fed(sound), fed(sound + np.float32(0.3))
    assert beside.state is RecorderState.DONE
    expected = plain.sound + np.float32(0.3)
    np.testing.assert_allclose(beside.sound, expected, rtol=0, atol=float32_tolerance(1, largest(expected)))


def test_a_pause_inside_the_sentence_does_not_end_it() -> None:
    recorder = fed(np.concatenate([room(0.5), tone(0.7), room(0.9), tone(0.7), room(2.0)]))
    assert recorder.state is RecorderState.DONE
    assert np.abs(recorder.sound[-16_000:]).max() > 0.05
    assert len(recorder.sound) / 16_000 == pytest.approx(2.3 + 2 * MARGIN_S, abs=0.3)


def test_it_waits_for_a_voice_and_then_gives_up() -> None:
    recorder = fed(room(SILENCE_TIMEOUT_S - 0.1))
    assert recorder.state is RecorderState.WAITING
    assert recorder.feed(room(0.2)) is RecorderState.DONE
    assert refusal(measure(recorder.sound)).startswith("Nothing was heard")


def test_a_key_ends_a_take_without_voice_and_keeps_all_of_it() -> None:
    recorder = fed(room(1.0, 0.005))
    recorder.stop()
    assert recorder.state is RecorderState.DONE
    assert len(recorder.sound) == 16_000


def test_a_key_ends_a_take_at_once() -> None:
    recorder = fed(np.concatenate([room(1.0), tone(1.0)]))
    recorder.stop()
    assert np.abs(recorder.sound[-160:]).max() > 0.05


def test_speech_without_end_is_stopped_and_refused() -> None:
    recorder = fed(tone(LONGEST_PROMPTED_S + 5.0), 8_000)
    assert recorder.state is RecorderState.DONE
    assert "lasts more than" in refusal(measure(recorder.sound, LoudVoice()))


def test_what_comes_after_the_end_is_ignored() -> None:
    recorder = fed(np.concatenate([tone(1.0), room(2.0)]))
    before = recorder.sound
    recorder.feed(tone(1.0))
    np.testing.assert_array_equal(recorder.sound, before)


SPOKEN = np.concatenate([room(0.7), tone(1.0), room(1.6)])


@functools.cache
def in_one_size() -> Array:
    return fed(SPOKEN).sound


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7_000), min_size=1, max_size=20))
def test_a_take_does_not_depend_on_the_block_sizes(sizes: list[int]) -> None:
    recorder, position = Recorder(LoudVoice()), 0
    while position < len(SPOKEN):
        size = sizes[position % len(sizes)]
        recorder.feed(SPOKEN[position : position + size])
        position += size
    np.testing.assert_array_equal(recorder.sound, in_one_size())
