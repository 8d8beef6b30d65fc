"""The schema agrees with the dataclasses: it is written by hand, so that a change is noticed."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonschema
import pytest

from edge.audio.sources import DemoSource
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
    to_json,
)
from edge.events import Window as WindowEvent
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from tests.edge.schema import SCHEMA, checked_event, problems

PROBS = {"neutral": 0.1, "happy": 0.6, "sad": 0.1, "angry": 0.2}
TIMES = {"p50": 1.0}

EVERY: list[Event] = [
    Session("demo", "default", "anna", "cpu", tuple(PROBS), 3.0, 0.24, False, 0.155, "asked for"),
    WindowEvent(0.0, 2.999, PROBS, PROBS, "happy", True, -20.0, {"encoder": 0.5}, 1.0),
    Utterance(0.5, 3.0, PROBS, "happy", 3),
    Speech(0.5, True),
    Overrun(1.0, 0.25),
    Device(2.0, "USB microphone", "lost"),
    Drift(2.0, "level", -12.5, 8.0, "dB", "speak closer to the microphone"),
    EngineChange(2.5, "cpu", "the GPU is gone"),
    StreamWarning(2.75, "lag", "events come 2.5 s late: use a longer step"),
    Error("try again later"),
    Summary(10.0, 30, 2, 1, TIMES, 0.01, TIMES),
]

BY_TYPE = [pytest.param(event, id=event.type) for event in EVERY]

OTHER_TYPES: dict[type, list[Any]] = {
    str: [3, ["a"], {}],
    bool: [1, "true", None],
    int: [1.5, "1", None, True, -1],
    float: ["1.0", True, [], {}],
    dict: [[], 1.0, "a", None, {"happy": "a"}, {"happy": True}],
    tuple: [[], {}, "happy", [1], ["sad", "sad"]],
}
"""Values that a field of a type must not have."""


def written(event: Event) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(to_json(event))
    return read


def test_the_schema_is_valid_and_of_the_version_that_is_written() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("draft/2020-12/schema")
    assert SCHEMA["properties"]["v"] == {"const": EVENT_VERSION}
    assert SCHEMA["$id"].endswith(f":{EVENT_VERSION}")


def test_every_type_of_event_has_its_definition_and_no_other_has() -> None:
    assert {type(event) for event in EVERY} == set(Event.__subclasses__())
    named = [choice["$ref"].rpartition("/")[2] for choice in SCHEMA["oneOf"]]
    assert sorted(named) == sorted(event.type for event in EVERY)


@pytest.mark.parametrize("event", BY_TYPE)
def test_a_definition_has_the_fields_of_the_dataclass_all_required(event: Event) -> None:
    definition = SCHEMA["$defs"][event.type]
    names = {field.name for field in fields(event)}
    assert set(definition["required"]) == names
    assert set(definition["properties"]) == {"type", *names}


@pytest.mark.parametrize("event", BY_TYPE)
def test_what_is_written_is_valid_and_without_any_of_its_fields_is_not(event: Event) -> None:
    whole = written(event)
    assert problems(whole) == []
    jsonschema.validate(whole, SCHEMA, jsonschema.Draft202012Validator)
    for name in whole:
        assert problems({key: value for key, value in whole.items() if key != name}), name


@pytest.mark.parametrize("event", BY_TYPE)
def test_a_field_of_another_type_is_found(event: Event) -> None:
    whole = written(event)
    for field in fields(event):
        for value in OTHER_TYPES[type(getattr(event, field.name))]:
            if not (field.name.endswith("_ms") and value in ([], {})):
                assert problems(whole | {field.name: value}), (field.name, value)


@pytest.mark.parametrize("event", BY_TYPE)
def test_the_words_of_a_field_are_those_of_its_type_in_the_same_order(event: Event) -> None:
    in_code = {
        name: list(get_args(kind))
        for name, kind in get_type_hints(type(event)).items()
        if get_origin(kind) is Literal
    }
    described = SCHEMA["$defs"][event.type]["properties"]
    in_schema = {name: item["enum"] for name, item in described.items() if "enum" in item}
    assert in_schema == in_code
    for name in in_code:
        assert problems(written(event) | {name: "mood"})


@pytest.mark.parametrize("event", BY_TYPE)
def test_fields_to_come_are_allowed_as_readers_must_ignore_them(event: Event) -> None:
    assert problems(written(event) | {"mood_of_the_cat": 1}) == []


@pytest.mark.parametrize("change", [{"v": 2}, {"v": "1"}, {"type": "mood"}, {"type": 3}, {"end_s": -0.1}])
def test_another_version_type_or_a_negative_time_is_found(change: dict[str, Any]) -> None:
    assert problems(written(EVERY[1]) | change)


@pytest.mark.parametrize("event", [[], 3, None, {}, "session"])
def test_what_is_no_event_is_found(event: object) -> None:
    assert problems(event)


def test_a_measurement_may_be_null_and_a_time_may_not() -> None:
    window = written(EVERY[1])
    assert problems(window | {"level_dbfs": None, "lag_ms": None, "latency_ms": {"queue": None}}) == []
    assert problems(window | {"start_s": None})


def test_every_event_of_a_recognizer_is_valid(bundle: Bundle) -> None:
    recognizer = Recognizer(bundle, provider="cpu")
    with DemoSource() as demo:
        events = [event for block in demo for event in recognizer.feed(block.samples)]
    events += [*recognizer.report_gap(16_000), *recognizer.flush()]
    assert {checked_event(event).type for event in events} == {"window", "speech", "utterance", "overrun"}


def test_the_schema_ships_beside_the_code() -> None:
    import edge

    assert (Path(edge.__file__).parent / "events.schema.json").is_file()
