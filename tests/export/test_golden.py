from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from edge.audio.sources import demo_clip
from edge.model.engine_files import GOLDEN
from edge.model.manifest import WEIGHTS
from export.golden import COUNT, write_golden
from export.graphs import window_graph
from export.onnx_builder import write_graph
from export.parity import TOLERANCE
from tests.cnn_lstm import CNN_LSTM
from tests.train.synthetic import tiny_checkpoint
from train.checkpoint import load_cnn_lstm


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_graph(window_graph(tiny_checkpoint().net), folder / "window.onnx")
    write_golden(tiny_checkpoint(), folder / GOLDEN)
    return folder / GOLDEN


def test_golden_windows_are_what_a_device_can_check_an_engine_by(path: Path) -> None:
    golden = load_file(path)
    assert {name: array.shape for name, array in golden.items()} == {
        "frames": (COUNT, 297, 200),
        "embedding": (COUNT, 16),
        "logits": (COUNT, 4),
    }
    assert {array.dtype for array in golden.values()} == {np.dtype(np.float32)}
    session = onnxruntime.InferenceSession(str(path.parents[1] / "window.onnx"))
    embedding, logits = session.run(None, {"frames": golden["frames"]})
    np.testing.assert_allclose(embedding, golden["embedding"], atol=TOLERANCE["fp32"])
    np.testing.assert_allclose(logits, golden["logits"], atol=TOLERANCE["fp32"])


def test_golden_windows_of_the_default_model_differ_by_far_more_than_any_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that are all alike would let an engine pass that ignores its input."""
    monkeypatch.setattr("export.parity_audio.demo_clip", demo_clip)
    write_golden(load_cnn_lstm(CNN_LSTM / WEIGHTS), tmp_path / "golden.safetensors")
    logits = load_file(tmp_path / "golden.safetensors")["logits"]
    assert np.ptp(logits, axis=0).min() > 20 * max(TOLERANCE.values())


def test_the_tolerances_go_along(path: Path) -> None:
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["mmtl"]) == {"tolerance": TOLERANCE}


def test_the_same_network_gives_the_same_file(path: Path, tmp_path: Path) -> None:
    write_golden(tiny_checkpoint(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
