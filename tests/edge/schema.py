"""Checks events against the schema that ships with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema

from edge.events import Event, to_json

SCHEMA: dict[str, Any] = json.loads(
    resources.files("edge").joinpath("events.schema.json").read_text(encoding="utf-8")
)

_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def problems(event: Any) -> list[str]:
    """List what is wrong with an event's JSON, read."""
    if isinstance(event, dict) and event.get("type") in SCHEMA["$defs"]:
        own = _VALIDATOR.evolve(schema={**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{event['type']}"}]})
        return [error.message for error in own.iter_errors(event)]
    return [error.message for error in _VALIDATOR.iter_errors(event)]


def checked(line: str) -> dict[str, Any]:
    """Read a line of JSON Lines as the standard has it (no NaN) and check it against the schema."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    event: dict[str, Any] = json.loads(line, parse_constant=refuse)
    assert problems(event) == [], line
    return event


def checked_event(event: Event) -> Event:
    """Check an event against the schema."""
    checked(to_json(event))
    return event
