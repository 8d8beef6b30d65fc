"""Ranges of numbers and types of tensors, as they are checked when a file is read."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import Array
from edge.bounds import build, one_line, read_tensors, require_shallow, shown, tensor, within
from edge.errors import ModelError
from tests.edge.model.hostile import hostile

# Ranges


@dataclass(frozen=True)
class Constants:
    count: int = field(metadata=within(1, 10))
    share: float = field(default=0.5, metadata=within(0.0, 1.0))
    sizes: tuple[tuple[int, ...], ...] = field(default=((1, 2),), metadata=within(1, 4))
    size: int | None = field(default=None, metadata=within(1, 4))
    fast: bool = False
    way: Literal["up", "down"] = "up"
    name: str = ""


def test_what_is_within_its_range_is_built() -> None:
    described = {"count": 10, "share": 1, "sizes": ((4,), ()), "size": 4, "fast": True, "way": "down"}
    assert build(Constants, described) == Constants(10, 1, ((4,), ()), 4, True, "down")
    assert build(Constants, {"count": 1}) == Constants(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, r"count cannot be 0, expected a whole number from 1 to 10"),
        ({"count": 11}, "count cannot be 11"),
        ({"count": 1.0}, "count cannot be 1.0"),
        ({"count": True}, "count cannot be True"),
        ({"count": 10**400}, r"count cannot be 10{50,}\.\.\., expected"),
        ({"share": -1e-45}, "share cannot be -"),
        ({"share": float("nan")}, "share cannot be nan, expected from 0 to 1"),
        ({"share": float("inf")}, "share cannot be inf"),
        ({"share": "0.5"}, "share cannot be '0.5'"),
        ({"share": None}, "share cannot be None"),
        ({"sizes": ((1, 5),)}, "sizes cannot be 5"),
        ({"sizes": ([1],)}, r"sizes cannot be \[1\]"),
        ({"size": 0}, "size cannot be 0"),
        ({"fast": 1}, "fast cannot be 1"),
        ({"way": "left\n"}, r"way cannot be 'left\\n'"),
        ({"way": ["up"]}, "way cannot be"),
    ],
)
def test_what_is_not_is_refused_with_what_was_expected(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(Constants, {"count": 5, **change})


@pytest.mark.parametrize("described", [[], None, 3, "x", {}, {"count": 1, "surprise": 2}])
def test_other_fields_are_refused(described: object) -> None:
    with pytest.raises(TypeError):
        build(Constants, described)


@given(value=st.one_of(hostile, st.binary(), st.text()))
def test_any_value_is_shown_in_one_bounded_line(value: object) -> None:
    for text in (shown(value), one_line(str(value))):
        assert text.isprintable()
        assert len(text) <= 203


def test_deep_nesting_is_refused() -> None:
    require_shallow("report", json.loads("[" * 20 + "]" * 20))
    for text in ("[" * 25 + "]" * 25, '{"a":' * 25 + "1" + "}" * 25):
        with pytest.raises(ValueError, match="report is nested more than 20 levels"):
            require_shallow("report", json.loads(text))


# Tensors


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "missing"),
        (np.zeros((1, 1), np.float32), r"shape \(1, 1\), expected 1 axes"),
        (np.zeros(0, np.float32), r"shape \(0,\)"),
        *((np.full(3, value, np.float32), "not usable") for value in (np.nan, np.inf, -np.inf, 1.5, -1.5)),
    ],
)
def test_a_tensor_that_cannot_be_used_is_refused(values: Array | None, said: str) -> None:
    tensors = {} if values is None else {"x": values}
    with pytest.raises(ModelError, match=said):
        tensor(tensors, "x", 1, -1.0, 1.0)
    assert tensor({"x": np.ones(3, np.float32)}, "x", 1, -1.0, 1.0).tolist() == [1.0, 1.0, 1.0]


def raw_tensors(path: Path, dtype: str, size: int) -> None:
    """Write a safetensors file of a type that NumPy may not have."""
    header = json.dumps({"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("F64", 16), ("F16", 4), ("BF16", 4), ("F8_E4M3", 2), ("I64", 16), ("I32", 8), ("BOOL", 2), ("U8", 2)],
)
def test_only_float32_is_read(tmp_path: Path, dtype: str, size: int) -> None:
    raw_tensors(tmp_path / "x", dtype, size)
    with pytest.raises(ModelError, match=rf"the tensor 'x' is of type '{dtype}', expected 'F32'"):
        read_tensors(tmp_path / "x")
    raw_tensors(tmp_path / "x", "F32", 8)
    assert read_tensors(tmp_path / "x")[0]["x"].tolist() == [0.0, 0.0]
