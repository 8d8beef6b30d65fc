"""Validation of numbers and tensors from files, once, when a file is read.

A file may come from an untrusted source, or be damaged in a way that its format does not detect. Each number
has a range beside its declaration; a value outside would exhaust memory or cause NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from edge.errors import ModelError

Made = TypeVar("Made")
Array = NDArray[np.float32]

DEEPEST: Final = 20
"""Most levels of nesting in the parts of a file that are only shown."""
LONGEST_SHOWN: Final = 60
"""Characters of a value in a message."""
LONGEST_LINE: Final = 200
"""Characters of a list, or of another program's words, in a message."""
UNREADABLE: Final = (ModelError, OSError, ValueError, RecursionError)
"""Errors that reading a file and the JSON in it may raise."""
_RANGE: Final = "range"


def within(least: float, most: float) -> Mapping[str, tuple[float, float]]:
    """Return the metadata of a dataclass field whose values must lie in [least, most]."""
    return {_RANGE: (least, most)}


def build(kind: type[Made], described: Any) -> Made:
    """Build a dataclass from the fields in a file: numbers within their ranges, words among those declared.

    Args:
        kind: the dataclass; fields of type float also take whole numbers, those of int no others.
        described: its fields by name.

    Raises:
        TypeError: a field is missing or unknown.
        ValueError: a value is of another type, or outside its range.
    """
    if not isinstance(described, dict):
        raise TypeError(f"{shown(described)} arrived, expected the fields of {kind.__name__}")
    made, hints = kind(**described), get_type_hints(kind)
    for item in fields(made):  # type: ignore[arg-type]  # kind is a dataclass
        value, hint = getattr(made, item.name), hints[item.name]
        if bounds := item.metadata.get(_RANGE):
            for number in _leaves(value):
                _require_number(item.name, number, bounds, str(item.type))
        word_fits = get_origin(hint) is not Literal or value in get_args(hint)
        if not word_fits or (hint is bool and type(value) is not bool):
            raise ValueError(f"{item.name} cannot be {shown(value)}")
    return made


def require_shallow(name: str, value: Any) -> None:
    """Check that lists and tables are not nested more than `DEEPEST` levels.

    Raises:
        ValueError: they are, and showing them could exceed the recursion limit.
    """
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for item in level for inner in _inside(item)]
    if level:
        raise ValueError(f"{name} is nested more than {DEEPEST} levels deep")


def shown(value: object) -> str:
    """Write a value for a message: in one line of bounded length, strings in quotes."""
    return one_line(repr(value), LONGEST_SHOWN)


def one_line(text: object, longest: int = LONGEST_LINE) -> str:
    """Write a text from a file or a library for a message: in one line of bounded length."""
    words = " ".join(str(text).split())
    line = "".join(character if character.isprintable() else "?" for character in words[:longest])
    return line if len(words) <= longest else f"{line}..."


def read_tensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file of float32 tensors, and its metadata.

    Raises:
        ModelError: it is damaged, or a tensor has another type. The caller adds the remedy.
    """
    try:
        with safe_open(path, "numpy") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118
                _require_type(name, file.get_slice(name).get_dtype())
                tensors[name] = file.get_tensor(name)
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"it cannot be read: {one_line(error)}") from error


def require_size(path: Path, most: int) -> None:
    """Check that a file is small enough to be read at once.

    Raises:
        ModelError: it has more than `most` bytes.
        OSError: its size cannot be read.
    """
    if path.stat().st_size > most:
        raise ModelError(f"it has more than {most} bytes")


def tensor(tensors: Mapping[str, Array], name: str, ndim: int, least: float, most: float) -> Array:
    """Return a tensor whose values all lie in [least, most].

    Args:
        tensors: of a file, by name.
        name: of the tensor.
        ndim: number of its axes.
        least: smallest value.
        most: largest value.

    Raises:
        ModelError: it is missing, has another number of axes or is empty, or a value is NaN or out of range.
    """
    found = tensors.get(name)
    if found is None:
        raise ModelError(f"the tensor {name} is missing")
    if found.ndim != ndim or found.size == 0:
        raise ModelError(f"the tensor {name} has the shape {found.shape}, expected {ndim} axes")
    if not (found >= least).all() or not (found <= most).all():  # NaN is neither
        raise ModelError(f"numbers of {name} are not usable, expected {least:g} to {most:g}")
    return np.asarray(found, np.float32)


def _require_type(name: str, found: str) -> None:
    if found != "F32":
        raise ModelError(f"the tensor {shown(name)} is of type {shown(found)}, expected 'F32'")


def _require_number(name: str, value: Any, bounds: tuple[float, float], declared: str) -> None:
    if value is None and "None" in declared:
        return
    whole, (least, most) = "int" in declared, bounds
    fits = type(value) is int or (type(value) is float and not whole)
    if not fits or not least <= value <= most:  # NaN is neither
        kind = "a whole number " if whole else ""
        raise ValueError(f"{name} cannot be {shown(value)}, expected {kind}from {least:g} to {most:g}")


def _leaves(value: Any) -> Iterator[Any]:
    """Yield a number, or the numbers of nested tuples."""
    if isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _inside(value: Any) -> list[Any]:
    """Return the lists and tables in a list or table."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]
