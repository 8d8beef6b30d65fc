from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.events import (
    EVENT_VERSION,
    Device,
    Drift,
    EngineChange,
    Error,
    Event,
    Overrun,
    Session,
    Speech,
    StreamWarning,
    Summary,
    Utterance,
    Window,
    to_json,
)

PROBS = {"neutral": 0.1, "happy": 0.6, "sad": 0.1, "angry": 0.2}

EVERY = [
    Session("demo", "default", None, "cpu", tuple(PROBS), 3.0, 0.24, False),
    Window(0.0, 2.999, PROBS, PROBS, "happy", True, -20.0, {"encoder": 0.5}, 1.0),
    Utterance(0.5, 3.0, PROBS, "happy", 3),
    Speech(0.5, True),
    Overrun(1.0, 0.25),
    Device(2.0, "USB microphone", "lost"),
    Drift(2.0, "level", -12.5, 8.0, "dB", "speak closer to the microphone"),
    EngineChange(2.5, "cpu", "the GPU is gone"),
    StreamWarning(2.75, "lag", "events come 2.5 s late: use a longer step"),
    Error("16 clients are connected: try again later"),
    Summary(10.0, 30, 2, 1, {"p50": 1.0}, 0.01),
]


def strict(text: str) -> dict[str, object]:
    """Read JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read: dict[str, object] = json.loads(text, parse_constant=refuse)
    return read


def test_every_event_is_tried_here() -> None:
    assert {type(event) for event in EVERY} == set(Event.__subclasses__())


def test_the_types_differ() -> None:
    assert len({event.type for event in EVERY}) == len(EVERY)


@pytest.mark.parametrize("event", EVERY, ids=lambda event: event.type)
def test_an_event_is_one_line_of_json_with_version_type_and_all_fields(event: Event) -> None:
    text = to_json(event)
    assert "\n" not in text
    read = strict(text)
    assert (read["v"], read["type"]) == (EVENT_VERSION, event.type)
    assert set(read) == {"v", "type", *(field.name for field in fields(event))}


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(numbers, numbers, st.dictionaries(st.text(max_size=5), numbers, max_size=3), st.text(max_size=9))
def test_no_number_and_no_name_makes_invalid_json(
    one: float, other: float, many: dict[str, float], text: str
) -> None:
    window = Window(one, other, many, PROBS, text, True, one, many, other)
    for event in (window, Summary(one, 1, 1, 1, many, other), Device(one, text, "lost", text)):
        line = to_json(event)
        assert "\n" not in line
        assert line.isascii()
        strict(line)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null(value: float) -> None:
    read = strict(to_json(Overrun(value, 0.5)))
    assert read == {"v": EVENT_VERSION, "type": "overrun", "start_s": None, "lost_s": 0.5}


def test_numbers_are_rounded_to_what_they_can_mean() -> None:
    assert strict(to_json(Summary(1.0, 0, 0, 0, {}, 1 / 3)))["real_time_factor"] == 0.3333
    assert strict(to_json(EVERY[1]))["probs"] == PROBS


@given(st.integers(0, 30 * 86_400 * 16_000))
def test_a_time_tells_its_sample(sample: int) -> None:
    start_s = json.loads(to_json(Overrun(sample / 16_000, 0.5)))["start_s"]
    assert round(16_000 * start_s) == sample


def test_no_profile_is_null_and_the_emotions_keep_their_order() -> None:
    read = strict(to_json(EVERY[0]))
    assert read["profile"] is None
    assert read["emotions"] == ["neutral", "happy", "sad", "angry"]
