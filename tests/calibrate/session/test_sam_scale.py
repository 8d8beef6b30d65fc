"""The picture scale."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.session.sam_scale import CELL, SCALES, RatingScale, draw_scale, rating_of
from edge.labels import DIMENSIONS

each_scale = pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.dimension)


def test_the_questions_are_the_dimensions_in_their_order() -> None:
    assert tuple(scale.dimension for scale in SCALES) == DIMENSIONS


def test_the_keys_1_to_5_are_ratings_and_no_other_is() -> None:
    assert [rating_of(key) for key in "12345"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [rating_of(key) for key in ("0", "6", "", "12", "s", "enter", "٣", "²")] == [None] * 8


@each_scale
def test_five_different_pictures_fit_a_terminal_of_80_columns(scale: RatingScale) -> None:
    assert len(scale.words) == len(set(scale.pictures)) == 5
    rows = draw_scale(scale, 76)
    assert max(map(len, rows)) <= 76
    assert len(rows) <= 8
    assert rows[-2].split() == ["1", "2", "3", "4", "5"]
    assert all(len(word) < CELL for word in scale.words)


@each_scale
def test_the_pictures_are_ascii(scale: RatingScale) -> None:
    assert all(row.isascii() for row in draw_scale(scale, 76))


@each_scale
def test_where_it_is_narrow_the_answers_are_words(scale: RatingScale) -> None:
    assert draw_scale(scale, 5 * CELL - 1) == [f"{n} {word}" for n, word in enumerate(scale.words, 1)]


@given(st.text(max_size=3))
def test_any_key_gives_a_rating_in_range_or_none(key: str) -> None:
    rating = rating_of(key)
    assert rating is None or 1.0 <= rating <= 5.0
