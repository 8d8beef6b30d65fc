"""Check of ONNX graphs before a runtime reads them: none may refer to data in other files.

ONNX lets a tensor name a file and a place in it. Runtimes resolve that name against the folder of the
graph; old ones also follow "../". A bundle's graphs hold all their data, so each such name is refused.

The protocol buffer is parsed here, because the device has no package for it. Payloads are skipped, so the
time depends on the number of nodes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge.errors import ModelError

DEEPEST: Final = 64
"""Most nested messages; a graph inside a graph takes three."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        **dict.fromkeys((5, 10), "tensor"),
        **dict.fromkeys((6, 11), "graph"),
        **dict.fromkeys((22, 23), "sparse tensor"),
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
"""Fields, by number, that hold messages in which a tensor can be (onnx.proto, IR version 10)."""
_EXTERNAL: Final = {13, 14}
"""Fields of a tensor: external_data and data_location, which no tensor without external data needs."""


def require_self_contained(data: bytes) -> None:
    """Check that an ONNX model names no other file.

    Args:
        data: the model's protocol buffer.

    Raises:
        ModelError: it does, or is no ONNX model. The caller puts the name of the file before the message.
    """
    waiting = [("model", memoryview(data), 1)]
    graphs = 0
    while waiting:
        kind, message, depth = waiting.pop()
        graphs += kind == "graph"
        if depth > DEEPEST:
            raise ModelError("is nested too deeply for an ONNX graph")
        inner = _MESSAGES[kind]
        for number, content in _fields(message):
            if kind == "tensor" and number in _EXTERNAL and content not in (0, b""):
                raise ModelError("names data in another file, expected a graph that holds all its data")
            if number in inner:
                if not isinstance(content, memoryview):
                    raise ModelError("is no ONNX graph")
                waiting.append((inner[number], content, depth + 1))
    if not graphs:
        raise ModelError("is no ONNX graph")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number of each field of a message, and its value or its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ModelError("is no ONNX graph")
        if number == 0 or at + size > len(message):
            raise ModelError("is no ONNX graph")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number of variable length; return it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ModelError("is no ONNX graph")
