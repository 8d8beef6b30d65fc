"""The requests of a page that makes a profile, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from calibrate.session.sentences import MOST_TAKES, language_of_locale, languages
from calibrate.session.workflow import DEFAULT_TAKES
from calibrate.takes import FEWEST_TAKES
from edge.audio.resampler import HIGHEST_RATE, LOWEST_RATE
from edge.errors import UsageError

LONGEST: Final = 1_024
"""Characters of a request."""

Kind = Literal["ordinary", "labelled"]
Unfinished = Literal["ask", "continue", "discard"]


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The request that begins a session."""

    name: str
    """As typed; not checked."""
    kind: Kind
    rate: int
    """Hz of the sound."""
    agreed: bool
    """Whether the person who will speak agrees."""
    takes: int = DEFAULT_TAKES
    """Of each emotion, in a labelled session."""
    language: str = field(default_factory=language_of_locale)
    """Of the sentences."""
    replace: bool = False
    """Whether an existing profile may be replaced."""
    unfinished: Unfinished = "ask"
    """What becomes of an unfinished session."""
    keep: bool = False
    """Whether the recordings stay on the device."""


_TYPES: Final = {
    "name": str,
    "kind": str,
    "rate": int,
    "agreed": bool,
    "takes": int,
    "language": str,
    "replace": bool,
    "unfinished": str,
    "keep": bool,
}
"""Of the fields of `Beginning`, as JSON has them."""


def read_request(text: str) -> dict[str, Any]:
    """Read a request.

    Raises:
        UsageError: it is too long, or no object of JSON with the text `do`.
    """
    try:
        request = json.loads(text) if len(text) <= LONGEST else None
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise UsageError('a request is not as expected: {"do": "begin"}, "press", "lost", "keep" or "stop"')
    return request


def read_beginning(request: Mapping[str, Any]) -> Beginning:
    """Read the request that begins a session, without its key `do`.

    Raises:
        UsageError: a value is missing, of another type or out of range, or the person has not agreed.
    """
    for name, value in request.items():
        if name not in _TYPES or type(value) is not _TYPES[name]:
            raise UsageError(f"{name[:40]} of {str(value)[:40]} is not as expected")
    try:
        beginning = Beginning(**request)
    except TypeError as error:
        raise UsageError("the request to begin lacks name, kind, rate or agreed") from error
    choices: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("kind", beginning.kind, get_args(Kind)),
        ("unfinished", beginning.unfinished, get_args(Unfinished)),
        ("language", beginning.language, languages()),
    )
    for name, value, allowed in choices:
        if value not in allowed:
            raise UsageError(f"{name} is {str(value)[:40]!r}, expected one of {', '.join(map(str, allowed))}")
    _require_range("takes", beginning.takes, FEWEST_TAKES, MOST_TAKES)
    _require_range("rate", beginning.rate, LOWEST_RATE, HIGHEST_RATE)
    if not beginning.agreed:
        raise UsageError("nothing is recorded unless the person who will speak agrees")
    return beginning


def _require_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} of {value} arrived, expected {low} to {high}")
