"""The plan of a guided session, and its progress."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.session.session import TYPICAL_TAKE_S, Session, emotion_of
from edge.labels import EMOTIONS

NO_RATINGS = (None, None, None)


def session(takes: int = 2) -> Session:
    return Session("anna", "en", takes)


def with_takes(*indices: int, takes: int = 2) -> Session:
    made = session(takes)
    for index in indices:
        made = made.with_take(made.prompts[index], NO_RATINGS)
    return made


def test_every_sentence_is_said_in_every_emotion_before_the_next() -> None:
    prompts = session(3).prompts
    assert [prompt.emotion for prompt in prompts] == [0, 1, 2, 3] * 3
    assert [len({prompt.sentence for prompt in prompts[start : start + 4]}) for start in (0, 4, 8)] == [1] * 3
    assert len({prompt.sentence for prompt in prompts}) == 3
    assert [emotion_of(prompt.index) for prompt in prompts] == [prompt.emotion for prompt in prompts]


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    assert session(5).prompts[:8] == session(2).prompts


def test_what_is_next_is_the_first_that_is_neither_done_nor_skipped() -> None:
    made = with_takes(0, 1)
    assert made.next == made.prompts[2]
    made = made.without(made.prompts[2])
    assert made.next == made.prompts[3]
    assert made.with_skipped_again().next == made.prompts[2]


def test_a_complete_plan_has_no_next_prompt_until_it_is_extended() -> None:
    made = with_takes(*range(8))
    assert made.next is None
    assert made.enough
    assert replace(made, takes=3).next == session(3).prompts[8]


@pytest.mark.parametrize(
    ("done", "enough", "usable"),
    [
        ((), False, []),
        ((0, 4), False, [0, 4]),
        ((0, 1, 2, 3), False, []),
        ((0, 4, 1), False, [0, 4]),
        ((0, 4, 3, 7), True, [0, 3, 4, 7]),
        ((0, 4, 3, 7, 2), True, [0, 3, 4, 7]),
    ],
)
def test_enough_is_two_takes_of_two_emotions_and_single_ones_are_left_out(
    done: tuple[int, ...], enough: bool, usable: list[int]
) -> None:
    assert (with_takes(*done).enough, with_takes(*done).usable) == (enough, usable)


def test_the_time_left_follows_the_speaker_s_own_pace() -> None:
    made = with_takes(0, 1, 2, 3)
    assert made.seconds_left([]) == 4 * TYPICAL_TAKE_S
    assert made.seconds_left([TYPICAL_TAKE_S] * 4) == pytest.approx(4 * TYPICAL_TAKE_S)
    assert 40.0 < made.seconds_left([10.0] * 20) < 50.0
    assert with_takes(*range(8)).seconds_left([10.0]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 11), st.booleans())))
def test_what_was_done_counts_once_and_the_rest_stays_open(steps: list[tuple[int, bool]]) -> None:
    made = session(3)
    for index, kept in steps:
        prompt = made.prompts[index]
        made = made.with_take(prompt, NO_RATINGS) if kept else made.without(prompt)
    assert len(made.open) == 12 - len({*made.done, *made.skipped})
    assert sum(made.counts.values()) == len(made.done)
    assert set(made.counts) <= set(range(len(EMOTIONS)))
