from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.labels import (
    DIMENSION_CLASSES,
    EMOTIONS,
    SCALE,
    UNSURE,
    derived_ratings,
    dimension_class,
)

RATED = ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised", "calm")


@pytest.mark.parametrize(
    ("rating", "number"),
    [(1.0, 0), (1.99, 0), (2.0, 1), (2.99, 1), (3.0, 2), (3.99, 2), (4.0, 3), (4.5, 3), (5.0, 3)],
)
def test_a_rating_falls_into_the_class_of_its_interval(rating: float, number: int) -> None:
    assert dimension_class(rating) == number


@given(st.floats(*SCALE), st.floats(*SCALE))
def test_a_higher_rating_never_has_a_lower_class(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= dimension_class(low) <= dimension_class(high) < DIMENSION_CLASSES


@pytest.mark.parametrize("rating", [0.99, 5.01, -1.0, math.nan, math.inf, -math.inf])
def test_a_rating_off_the_scale_is_refused(rating: float) -> None:
    with pytest.raises(ValueError, match="expected 1 to 5"):
        dimension_class(rating)


@pytest.mark.parametrize("emotion", RATED)
@pytest.mark.parametrize("intensity", ["", "normal", "strong"])
def test_derived_ratings_are_on_the_scale(emotion: str, intensity: str) -> None:
    ratings = derived_ratings(emotion, intensity)
    assert ratings is not None
    assert all(SCALE[0] <= rating <= SCALE[1] for rating in ratings)


def test_neutral_is_in_the_middle_whatever_its_intensity() -> None:
    assert derived_ratings("neutral") == derived_ratings("neutral", "strong") == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("emotion", RATED)
def test_a_strong_intensity_moves_away_from_the_middle(emotion: str) -> None:
    normal, strong = derived_ratings(emotion), derived_ratings(emotion, "strong")
    assert normal
    assert strong
    for weaker, stronger in zip(normal, strong, strict=True):
        assert abs(stronger - 3.0) >= abs(weaker - 3.0)
        assert (stronger - 3.0) * (weaker - 3.0) >= 0.0


def test_the_norms_order_the_emotions_as_people_do() -> None:
    happy, sad, angry = (derived_ratings(emotion) for emotion in ("happy", "sad", "angry"))
    assert happy
    assert sad
    assert angry
    assert happy[0] > 3.0 > max(sad[0], angry[0])
    assert min(happy[1], angry[1]) > 3.0 > sad[1]


def test_an_emotion_without_norms_has_no_ratings() -> None:
    assert derived_ratings("boredom") is None


def test_unsure_is_not_an_emotion() -> None:
    assert UNSURE not in EMOTIONS
    assert len(set(EMOTIONS)) == 4
