"""Cross-validation folds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.fitting.folds import MOST_FOLDS, Folds, hold_out
from tests.calibrate.fitting.toys import EIGHT, takes_of

COUNTS = [(2, 2, 2, 2), (10, 10, 10, 10), (2, 9, 3, 30), (2, 2, 0, 0), (3, 0, 2, 5)]


def emotions_of(counts: Sequence[int]) -> list[int]:
    return [emotion for emotion, count in enumerate(counts) for _ in range(count)]


def assert_sound(folds: Folds, emotions: Sequence[int]) -> None:
    """Each take is held out once a round, and every emotion is left to fit on."""
    held_out_times = np.zeros((len(folds.rounds), len(emotions)), int)
    for index, held_out in folds:
        held_out_times[index] += held_out
        assert set(np.array(emotions)[~held_out].tolist()) == set(emotions)
    assert (held_out_times == 1).all()
    assert all(int(fold_of_take.max()) < MOST_FOLDS for fold_of_take in folds.rounds)


@pytest.mark.parametrize("counts", COUNTS)
def test_every_take_is_held_out_once_a_round_and_every_emotion_is_left(counts: tuple[int, ...]) -> None:
    emotions = emotions_of(counts)
    folds = hold_out(takes_of(emotions))
    assert folds.held_out_by == "take"
    assert_sound(folds, emotions)


@given(
    counts=st.lists(st.integers(2, 12) | st.just(0), min_size=4, max_size=4).filter(any),
    order=st.randoms(use_true_random=False),
    sentences=st.integers(1, 6),
)
def test_folds_are_sound_for_any_order_and_any_sentences(
    counts: list[int], order: object, sentences: int
) -> None:
    emotions = emotions_of(counts)
    order.shuffle(emotions)  # type: ignore[attr-defined]
    texts = [str(sum(emotions[:index]) % sentences) for index in range(len(emotions))]
    assert_sound(hold_out(takes_of(emotions)), emotions)
    assert_sound(hold_out(takes_of(emotions, texts)), emotions)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_as_many_of_each_emotion_are_held_out_at_a_time(count: int) -> None:
    """Without that balance the fit is biased against the emotion of the held-out take."""
    emotions = [0, 1, 2, 3] * count
    for _, held_out in hold_out(takes_of(emotions)):
        assert len(set(np.bincount(np.array(emotions)[held_out], minlength=4).tolist())) == 1


def test_takes_of_two_emotions_that_are_together_in_one_round_are_apart_in_another() -> None:
    emotions = np.array(EIGHT)
    rounds = hold_out(takes_of(EIGHT)).rounds
    for first, second in combinations(range(len(EIGHT)), 2):
        together = [bool(fold_of_take[first] == fold_of_take[second]) for fold_of_take in rounds]
        if emotions[first] == emotions[second]:
            assert not any(together), "with two takes of an emotion, one is left for the other"
        else:
            assert set(together) == {True, False}, (first, second)


def test_takes_are_held_out_by_sentence_where_each_is_said_in_every_emotion() -> None:
    folds = hold_out(takes_of(EIGHT, ["The lid.", "The dog."] * 4))
    assert folds.held_out_by == "sentence"
    assert [fold_of_take.tolist() for fold_of_take in folds.rounds] == [[0, 1] * 4]


def test_no_sentence_is_both_held_out_and_fitted_on() -> None:
    emotions = [0, 1, 2, 3] * 14
    texts = [f"sentence {index // 4 % 7}" for index in range(len(emotions))]
    folds = hold_out(takes_of(emotions, texts))
    assert folds.held_out_by == "sentence"
    assert len(list(folds)) == MOST_FOLDS
    for _, held_out in folds:
        said = np.array(texts)
        assert not set(said[held_out]) & set(said[~held_out])


def test_a_sentence_is_the_same_however_it_is_spaced_and_capitalised() -> None:
    texts = ["the  lid", "The dog", "The lid ", "the dog"] * 2
    folds = hold_out(takes_of(EIGHT, texts))
    assert (folds.held_out_by, folds.rounds[0].tolist()) == ("sentence", [0, 1] * 4)


@pytest.mark.parametrize(
    ("texts", "one_sentence"),
    [
        ([], False),
        (["The lid.", "the  lid."] * 4, True),
        (["The lid."] * 7 + [""], False),
        (["Fine.", "Fine.", "Great!", "Great!", "Alas.", "Alas.", "Out!", "Out!"], False),
        (["The lid.", "The dog."] * 3 + ["The lid.", "The lid."], False),
    ],
    ids=["unknown", "one sentence", "one missing", "a sentence for each emotion", "one not in all emotions"],
)
def test_takes_are_held_out_by_take_where_sentences_do_not_allow_it(
    texts: list[str], *, one_sentence: bool
) -> None:
    folds = hold_out(takes_of(EIGHT, texts))
    assert folds.held_out_by == "take"
    assert folds.one_sentence is one_sentence
    assert len(folds.rounds) > 1
    assert_sound(folds, EIGHT)


def test_the_first_round_is_one_of_them() -> None:
    folds = hold_out(takes_of(EIGHT, ["The lid."] * 8))
    first = folds.first_round()
    assert [fold_of_take.tolist() for fold_of_take in first.rounds] == [folds.rounds[0].tolist()]
    assert (first.held_out_by, first.one_sentence) == ("take", True)
    assert {index for index, _ in first} == {0}
