"""ONNX graphs, made byte by byte, that name other files: refused before a runtime reads them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import BundleError, ModelError
from edge.model.bundle import load_bundle
from edge.model.manifest import CLASSIFIER, ENCODER, WINDOW, read_manifest, write_manifest
from edge.model.onnx_file import DEEPEST, require_self_contained
from tests.cnn_lstm import CNN_LSTM

EXTERNAL, INSIDE = 1, 0


def varint(number: int) -> bytes:
    data = b""
    while number > 0x7F:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def held(number: int, content: bytes) -> bytes:
    """A field that holds a message, a string or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(number: int, content: int) -> bytes:
    return varint(number << 3) + varint(content)


def entry(key: bytes, text: bytes) -> bytes:
    return held(13, held(1, key) + held(2, text))


PLAIN = value(1, 4) + value(2, 1) + held(8, b"w") + held(9, bytes(16))
"""A tensor: four floats, by name, with their bytes."""
ELSEWHERE = value(1, 4) + value(2, 1) + held(8, b"w") + entry(b"location", b"../../etc/passwd")


def placed(tensor: bytes) -> dict[str, bytes]:
    """Models that hold a tensor, by where."""
    attribute = held(1, held(5, held(1, b"value") + held(5, tensor)))
    inner = held(1, held(5, held(6, held(5, tensor))))
    nested = held(1, held(5, held(11, inner)))
    return {
        "initializer": held(7, held(5, tensor)),
        "second initializer": held(7, held(5, PLAIN) + held(5, tensor)),
        "attribute": held(7, attribute),
        "tensors of an attribute": held(7, held(1, held(5, held(10, PLAIN) + held(10, tensor)))),
        "graph of an attribute": held(7, inner),
        "graphs of an attribute": held(7, nested),
        "values of a sparse tensor": held(7, held(15, held(1, tensor))),
        "indices of a sparse tensor": held(7, held(15, held(1, PLAIN) + held(2, tensor))),
        "sparse attribute": held(7, held(1, held(5, held(22, held(1, tensor))))),
        "function": held(7, b"") + held(25, held(7, held(5, held(5, tensor)))),
        "training": held(7, b"") + held(20, held(1, held(5, tensor))),
        "after unknown fields": value(99, 3) + held(98, b"x") + held(7, held(5, tensor)),
    }


@pytest.mark.parametrize("where", list(placed(b"")))
@pytest.mark.parametrize(
    "tensor",
    [ELSEWHERE, PLAIN + value(14, EXTERNAL), ELSEWHERE + value(14, EXTERNAL)],
    ids=["name", "flag", "both"],
)
def test_data_in_another_file_is_refused_wherever_it_is_named(where: str, tensor: bytes) -> None:
    with pytest.raises(ModelError, match="names data in another file"):
        require_self_contained(placed(tensor)[where])
    require_self_contained(placed(PLAIN)[where])
    require_self_contained(placed(PLAIN + value(14, INSIDE))[where])


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"graph", b"\x80" * 20, held(7, b"")[:1], b"\x3a\x05", b"\x3b\x00", value(7, 1)),
        *(
            held(7, b"")[:-1] + b"\xff" * 10,
            held(7, held(5, b"\xff")),
            b"\x39" + bytes(4),
            held(2, b"pytorch"),
        ),
    ],
)
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="is no ONNX graph"):
        require_self_contained(data)


def test_graphs_inside_each_other_without_end_are_refused() -> None:
    graph = b""
    for _ in range(DEEPEST):
        graph = held(1, held(5, held(6, graph)))
    with pytest.raises(ModelError, match="nested too deeply"):
        require_self_contained(held(7, graph))


@settings(max_examples=500, deadline=None)
@given(
    where=st.sampled_from(list(placed(b""))),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    kept=st.floats(0.0, 1.0),
)
def test_any_bytes_are_a_graph_or_refused(where: str, changes: list[tuple[int, int]], kept: float) -> None:
    data = bytearray(placed(ELSEWHERE)[where])
    for place, byte in changes:
        data[place % len(data)] = byte
    with contextlib.suppress(ModelError):
        require_self_contained(bytes(data[: round(kept * len(data))]))


def test_the_shipped_graphs_hold_all_their_data() -> None:
    for name in (ENCODER, CLASSIFIER, WINDOW):
        require_self_contained((CNN_LSTM / name).read_bytes())


@pytest.mark.parametrize("name", [ENCODER, CLASSIFIER, WINDOW, "engine/window.lstm.fp16.onnx"])
def test_a_bundle_whose_graph_names_another_file_is_refused(bundle_folder: Path, name: str) -> None:
    secret = bundle_folder.parent / "secret"
    secret.write_bytes(bytes(64))
    (bundle_folder / name).parent.mkdir(exist_ok=True)
    (bundle_folder / name).write_bytes(placed(ELSEWHERE)["initializer"])
    manifest = read_manifest(bundle_folder)
    write_manifest(bundle_folder, replace(manifest, files={**manifest.files, name: ""}))
    with pytest.raises(BundleError, match=rf"{name} names data in another file.*: export the model again"):
        load_bundle(bundle_folder)


def test_what_onnx_itself_writes_with_external_data_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install -e '.[export]')")
    model = onnx.load(str(CNN_LSTM / CLASSIFIER))
    onnx.save(model, str(tmp_path / "a.onnx"))
    require_self_contained((tmp_path / "a.onnx").read_bytes())
    onnx.save(
        model, str(tmp_path / "b.onnx"), save_as_external_data=True, location="b.data", size_threshold=0
    )
    assert (tmp_path / "b.data").stat().st_size > 0
    with pytest.raises(ModelError, match="names data in another file"):
        require_self_contained((tmp_path / "b.onnx").read_bytes())
