from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.frontend import Array
from edge.speech import SpeechDetector, SpeechGate

GATE = SpeechGate()
ROOM, VOICE, MUTED = -60.0, -30.0, -147.0


def levels(*pieces: tuple[int, float]) -> Array:
    """Frame levels from (milliseconds, dBFS) pieces."""
    return np.concatenate([np.full(ms // GATE.hop_ms, level, np.float32) for ms, level in pieces])


def spoken(given: Array, gate: SpeechGate = GATE) -> list[tuple[int, int]]:
    """The stretches of speech in milliseconds: from when it was known to when it was over."""
    flags = np.concatenate([[False], SpeechDetector(gate).feed(given), [False]])
    edges = np.flatnonzero(np.diff(flags.astype(int))) * GATE.hop_ms
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def test_speech_begins_after_so_much_sound_and_ends_after_so_long_without() -> None:
    pieces = levels((1_000, ROOM), (1_500, VOICE), (2_000, ROOM))
    assert spoken(pieces) == [(1_000 + GATE.enter_ms - 10, 2_500 + GATE.leave_ms - 10)]


@pytest.mark.parametrize(("sound_ms", "count"), [(GATE.enter_ms - 10, 0), (GATE.enter_ms, 1)])
def test_a_click_is_not_speech(sound_ms: int, count: int) -> None:
    assert len(spoken(levels((1_000, ROOM), (sound_ms, VOICE), (2_000, ROOM)))) == count


@pytest.mark.parametrize(("pause_ms", "count"), [(GATE.leave_ms - 10, 1), (GATE.leave_ms, 2)])
def test_a_pause_between_words_does_not_end_speech(pause_ms: int, count: int) -> None:
    pieces = levels((1_000, ROOM), (1_000, VOICE), (pause_ms, ROOM), (1_000, VOICE), (1_000, ROOM))
    assert len(spoken(pieces)) == count


def test_sound_must_fall_into_the_memory_to_count() -> None:
    gap = GATE.memory_ms
    pieces = [(1_000, ROOM), *[(120, VOICE), (gap, ROOM)] * 5]
    assert spoken(levels(*pieces)) == []


@pytest.mark.parametrize(("above", "count"), [(9.0, 0), (11.0, 1)])
def test_speech_stands_out_from_the_background(above: float, count: int) -> None:
    assert len(spoken(levels((1_000, ROOM), (1_000, ROOM + above), (1_000, ROOM)))) == count


@pytest.mark.parametrize(("level", "count"), [(-66.0, 0), (-64.0, 1)])
def test_the_faintest_sound_is_no_speech_however_quiet_the_room(level: float, count: int) -> None:
    assert len(spoken(levels((1_000, -95.0), (1_000, level), (1_000, -95.0)))) == count


def test_a_noise_that_stays_becomes_background() -> None:
    ((_, last),) = spoken(levels((1_000, ROOM), (20_000, ROOM + 20)))
    assert 5_000 <= last - 1_000 <= 8_000


def test_a_room_that_turns_quiet_is_known_at_once() -> None:
    assert len(spoken(levels((2_000, -35.0), (200, -60.0), (1_000, -45.0), (1_000, -60.0)))) == 1


def test_a_muted_microphone_does_not_make_the_room_speech() -> None:
    cut = [(10, level) for level in (ROOM - 2, ROOM - 6, ROOM - 20)]
    pieces = levels((1_000, ROOM), *cut, (3_000, MUTED), *cut[::-1], (5_000, ROOM))
    assert spoken(pieces) == []


def test_speech_after_digital_silence_is_found() -> None:
    ((first, last),) = spoken(levels((1_000, MUTED), (10, -50.0), (1_000, VOICE), (2_000, MUTED)))
    assert 1_200 <= first <= 1_400
    assert last == pytest.approx(2_010 + GATE.leave_ms, abs=20)


def test_nothing_but_silence_is_not_speech() -> None:
    assert spoken(levels((5_000, MUTED))) == []
    assert spoken(levels((5_000, VOICE))) == []


@given(st.lists(st.floats(-147, 0), max_size=120), st.integers(0, 120))
def test_the_result_does_not_depend_on_the_blocks(values: list[float], cut: int) -> None:
    given = np.array(values, np.float32)
    blocks = SpeechDetector(GATE)
    pieces = [blocks.feed(given[:cut]), blocks.feed(given[cut:])]
    assert (np.concatenate(pieces) == SpeechDetector(GATE).feed(given)).all()


def test_reset_is_exact() -> None:
    detector, pieces = SpeechDetector(GATE), levels((500, ROOM), (1_000, VOICE), (300, ROOM))
    first = detector.feed(pieces)
    detector.reset()
    assert (detector.feed(pieces) == first).all()


def test_memory_is_bounded() -> None:
    detector = SpeechDetector(GATE)
    detector.feed(levels((60_000, VOICE)))
    assert len(detector._recent) == GATE.memory_ms // GATE.hop_ms
    assert len(detector._newest) == GATE.edge_frames
