"""A checkpoint of a network on a pretrained encoder becomes a bundle that runs by whole windows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch

from edge.diagnostics.verification import verify
from edge.engine_builder.candidates import candidates, largest_difference, reference_of
from edge.errors import VerificationError
from edge.features.log_mel import LOG_MEL
from edge.features.normaliser import GainConfig
from edge.inference.engine import WindowEngine
from edge.model.bundle import Bundle, load_bundle
from edge.model.engine_files import GOLDEN, engine_graph
from edge.model.manifest import WINDOW, BaselineConfig, Graphs, required_files
from export.bundling import export_bundle, put_bundle
from export.graphs import Network, window_graph
from export.parity import Checks, Parity, ParityRow, measure
from export.parity_audio import shipped_sound
from export.targets import PRETRAINED_VARIANTS, ExportRequest, export_target
from export.trained_model import TrainedModel, read_model
from export.triton import LARGEST_BATCH, ONNX_MODEL, config, write_repository
from tests.train.synthetic import TINY_PRETRAINED, tiny_checkpoint, tiny_pretrained
from train.checkpoint import Checkpoint
from train.pretrained_net import PretrainedNet

FORMS = ["stream", "stream with a baseline", "window.onnx"]
ENGINES = ["engine/window.fp32.onnx", "engine/window.fp16.onnx"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    return export_target(TrainedModel(tiny_pretrained()), ExportRequest("tensorrt", path), Checks())


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


def rows(parity: Parity) -> dict[str, ParityRow]:
    return {row.name: row for row in parity.rows}


def test_a_plain_bundle_has_the_window_graph_and_nothing_of_an_lstm(tmp_path: Path) -> None:
    parity = export_bundle(tiny_pretrained(), tmp_path / "plain", "tiny one")
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {*required_files("window"), "model.json"}
    assert list(rows(parity)) == FORMS
    manifest = load_bundle(tmp_path / "plain").manifest
    assert (manifest.front_end, manifest.levels, manifest.name) == (LOG_MEL, GainConfig(), "tiny one")
    assert manifest.licence == "CC BY-NC-SA 4.0 (not for commercial use)"
    assert manifest.graphs == Graphs(
        state_shapes=(),
        feature_size=8 * 80,
        embedding_size=3 * 64,
        frames_per_feature=8,
        frames_for_first=8,
        window_features=37,
        execution="window",
        first_window_features=19,
    )


def test_the_bundle_agrees_with_the_network_in_every_form(bundle: Bundle) -> None:
    found = rows(measure(tiny_pretrained().net, bundle, PRETRAINED_VARIANTS))
    assert list(found) == [*FORMS, *ENGINES]
    assert all(row.passed for row in found.values())
    assert found["engine/window.fp16.onnx"].difference > found["engine/window.fp32.onnx"].difference


def test_the_statistics_change_nothing_and_the_head_reads_a_baseline(bundle: Bundle) -> None:
    np.testing.assert_array_equal(bundle.statistics.mean, np.zeros(80))
    np.testing.assert_array_equal(bundle.statistics.std, np.ones(80))
    assert bundle.head.baseline_weight is not None
    assert bundle.head.temperature == pytest.approx(1.3)


@pytest.mark.parametrize(
    "part", ["encoder.conv2", "encoder.block.0.attention.qkv", "encoder.block.1.mlp.up", "head.meta.fc1"]
)
def test_a_change_to_any_part_is_noticed(bundle: Bundle, part: str) -> None:
    net = tiny_pretrained().net
    with torch.no_grad():
        net.get_submodule(part).get_parameter("weight").mul_(1.02)
    assert not any(row.passed for row in measure(net, bundle).rows)


def test_a_change_to_the_baseline_s_weights_alone_is_noticed(bundle: Bundle) -> None:
    net, size = tiny_pretrained().net, TINY_PRETRAINED.embedding_size
    with torch.no_grad():  # the sum of both halves, which is what a baseline of 0 reads, stays
        moved = 0.1 * torch.randn(8, size)
        net.head.meta.fc1.weight[:, :size] += moved
        net.head.meta.fc1.weight[:, size:] -= moved
    found = rows(measure(net, bundle))
    assert {name: row.passed for name, row in found.items()} == {
        "stream": True,
        "stream with a baseline": False,
        "window.onnx": True,
    }


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose head reads the speaker's deviation too."""
    folder = tmp_path_factory.mktemp("bundles") / "scaled"
    parity = export_bundle(tiny_scaled(), folder, "scaled")
    assert all(row.passed for row in parity.rows)
    return load_bundle(folder)


def tiny_scaled() -> Checkpoint[PretrainedNet]:
    return tiny_pretrained(replace(TINY_PRETRAINED, baseline="deviation"))


def test_a_network_trained_with_a_deviation_becomes_a_bundle_that_divides_by_it(
    scaled: Bundle, bundle: Bundle, tmp_path: Path
) -> None:
    assert scaled.manifest.baseline == BaselineConfig(scaled=True)
    assert bundle.manifest.baseline == BaselineConfig()
    assert verify(scaled, shipped_sound()).passed
    export_target(read_model(scaled.folder), ExportRequest("bundle", tmp_path / "again"), Checks())
    assert load_bundle(tmp_path / "again").fingerprint == scaled.fingerprint


def test_a_deviation_that_the_bundle_does_not_divide_by_is_noticed(scaled: Bundle) -> None:
    plain = replace(scaled, manifest=replace(scaled.manifest, baseline=BaselineConfig()))
    found = rows(measure(tiny_scaled().net, plain))
    assert {name: row.passed for name, row in found.items()} == {
        "stream": True,
        "stream with a baseline": False,
        "window.onnx": True,
    }


def test_a_graph_that_differs_is_refused_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(net: Network) -> onnx.ModelProto:
        model = window_graph(net)
        (bias,) = (item for item in model.graph.initializer if item.name == "fc3.bias")
        moved = onnx.numpy_helper.to_array(bias) + np.float32(1e-3)
        bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
        return model

    monkeypatch.setattr("export.bundling.window_graph", tampered)
    with pytest.raises(VerificationError, match="nothing was written"):
        export_bundle(tiny_pretrained(), tmp_path / "bad", "bad")
    assert list(tmp_path.iterdir()) == []


def test_layers_too_large_for_fp16_are_refused_in_fp16_alone(tmp_path: Path) -> None:
    checkpoint = tiny_pretrained()
    net = cast(Any, checkpoint.net)
    with torch.no_grad():
        net.encoder.block[0].mlp.up.weight.mul_(2e4)
        net.encoder.block[0].mlp.up.bias.mul_(2e4)
        net.encoder.block[0].mlp.down.weight.mul_(0.5e-4)
    with pytest.raises(VerificationError, match="add --no-fp16"):
        put_bundle(TrainedModel(checkpoint, "large"), tmp_path / "large", variants=PRETRAINED_VARIANTS)


def test_streaming_equals_offline(bundle: Bundle) -> None:
    report = verify(bundle, shipped_sound())
    assert report.passed
    assert report.windows > 10
    assert report.spread > 0.05


# For TensorRT and Triton


def test_for_tensorrt_there_is_one_graph_of_each_precision(bundle: Bundle) -> None:
    assert set(bundle.manifest.files) == {*required_files("window"), *ENGINES, GOLDEN}
    assert [item.graph for item in candidates(bundle, "auto")] == ENGINES
    assert [str(item) for item in candidates(bundle, "auto")] == ["fp32", "fp16"]
    assert [item.recurrence for item in candidates(bundle, "fp16")] == ["none"]


def test_without_such_graphs_engines_are_built_from_the_window_graph(bundle: Bundle) -> None:
    files = {name: digest for name, digest in bundle.manifest.files.items() if not name.startswith("engine")}
    plain = replace(bundle, manifest=replace(bundle.manifest, files=files))
    (candidate,) = candidates(plain, "auto")
    assert (candidate.graph, str(candidate)) == (WINDOW, "fp32")


def test_the_golden_windows_hold_the_network_s_outputs(bundle: Bundle) -> None:
    reference = reference_of(bundle)
    assert reference.frames.shape[1:] == (296, 80)
    net, frames = tiny_pretrained().net, torch.from_numpy(reference.frames)
    with torch.no_grad():
        outputs = (net.embedding(frames).numpy(), net(frames).numpy())
    assert largest_difference((reference.embedding, reference.logits), outputs) < 1e-4
    assert largest_difference(WindowEngine(bundle)(reference.frames), outputs) < 1e-4


def test_triton_serves_windows_of_its_sizes(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "triton")
    served = tmp_path / "triton" / "models" / ONNX_MODEL / "1" / "model.onnx"
    assert served.read_bytes() == bundle.graph(engine_graph("none", "fp32")).read_bytes()
    text = config(bundle, ONNX_MODEL)
    assert "dims: [ 296, 80 ]" in text
    assert "dims: [ 192 ]" in text
    assert f"max_batch_size: {LARGEST_BATCH}" in text


def test_a_bundle_exported_again_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    export_target(read_model(folder), ExportRequest("bundle", tmp_path / "again"), Checks())
    assert load_bundle(tmp_path / "again").fingerprint == load_bundle(folder).fingerprint


def test_a_bundle_of_the_older_schema_is_converted_when_it_is_exported(tmp_path: Path) -> None:
    export_bundle(tiny_checkpoint(), tmp_path / "new", "old one")
    described = _read(tmp_path / "new")
    described["schema_version"] = 1
    described.pop("baseline")
    described["front_end"].pop("spectrum")
    for key in ("execution", "first_window_features"):
        described["graphs"].pop(key)
    _write(tmp_path / "new", described)
    before = load_bundle(tmp_path / "new")
    export_target(read_model(tmp_path / "new"), ExportRequest("bundle", tmp_path / "again"), Checks())
    after = load_bundle(tmp_path / "again")
    assert _read(tmp_path / "again")["schema_version"] == 2
    assert (after.manifest.graphs.execution, after.manifest.name) == ("incremental", "old one")
    assert after.fingerprint == before.fingerprint


def _read(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
    return described


def _write(folder: Path, described: dict[str, Any]) -> None:
    (folder / "model.json").write_text(json.dumps(described), "utf-8")
