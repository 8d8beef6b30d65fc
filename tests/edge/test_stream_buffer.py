from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.stream_buffer import StreamBuffer


def numbers(*lengths: int) -> StreamBuffer:
    history, count = StreamBuffer(np.zeros((0, 2), np.float32)), 0
    for length in lengths:
        rows = np.arange(count, count + length, dtype=np.float32)
        history.append(np.stack([rows, -rows], axis=1))
        count += length
    return history


def test_rows_keep_their_numbers_when_earlier_ones_are_forgotten() -> None:
    history = numbers(3, 0, 4)
    history.forget(5)
    assert history.end == 7
    assert history[5:7].tolist() == [[5.0, -5.0], [6.0, -6.0]]
    assert history[6:6].shape == (0, 2)


def test_a_forgotten_row_cannot_be_read() -> None:
    history = numbers(7)
    history.forget(5)
    with pytest.raises(AssertionError, match="dropped"):
        history[4:6]


def test_forgetting_goes_forwards_only() -> None:
    history = numbers(7)
    history.forget(5)
    history.forget(2)
    assert history[5:7].shape == (2, 2)


def test_forgetting_what_is_yet_to_come_forgets_all_there_is() -> None:
    history = numbers(7)
    history.forget(100)
    assert history.end == 7
    history.append(np.ones((1, 2), np.float32))
    assert history[7:8].tolist() == [[1.0, 1.0]]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=20))
def test_it_agrees_with_an_array_that_forgets_nothing(moves: list[tuple[int, int]]) -> None:
    history, everything, first = StreamBuffer(np.zeros(0, np.int64)), np.zeros(0, np.int64), 0
    for length, before in moves:
        rows = np.arange(len(everything), len(everything) + length)
        history.append(rows)
        everything = np.concatenate([everything, rows])
        history.forget(before)
        first = max(first, min(before, len(everything)))
        assert history.end == len(everything)
        assert (history[first : history.end] == everything[first:]).all()


def test_memory_is_bounded() -> None:
    history = StreamBuffer(np.zeros((0, 128), np.float32))
    for _ in range(2_000):
        history.append(np.zeros((3, 128), np.float32))
        history.forget(history.end - 32)
    assert history.end == 6_000
    assert history.capacity <= 2 * 35


def test_a_steady_stream_allocates_no_buffer() -> None:
    history, buffers = numbers(64), set()
    for _ in range(500):
        history.append(np.zeros((8, 2), np.float32))
        history.forget(history.end - 56)
        buffers.add(id(history._buffer))
    assert len(buffers) == 1


def test_the_room_of_a_large_piece_is_given_back() -> None:
    history = StreamBuffer(np.zeros(0, np.float32))
    for length in (100_000, *[1_000] * 150):
        history.append(np.zeros(length, np.float32))
        history.forget(history.end - 500)
    assert history.capacity <= 4_000


def test_what_is_appended_is_a_copy() -> None:
    history, rows = StreamBuffer(np.zeros(0, np.float32)), np.ones(4, np.float32)
    history.append(rows)
    rows[:] = 2.0
    assert history[0:4].tolist() == [1.0] * 4
