from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edge.errors import UsageError, VerificationError
from edge.labels import EMOTIONS
from edge.model.bundle import load_bundle
from edge.model.head import softmax
from edge.model.manifest import read_manifest, required_files
from export import graphs
from export.bundling import export_bundle, head_of
from tests.tolerances import logits_tolerance
from tests.train.synthetic import TINY, tiny_checkpoint
from train.checkpoint import load_checkpoint
from train.model import Architecture, EmotionNet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    export_bundle(tiny_checkpoint(), path, "tiny one")
    return path


def test_an_exported_bundle_is_complete_and_says_what_it_is(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*required_files("incremental"), "model.json"}
    manifest, model = load_bundle(folder).manifest, tiny_checkpoint()
    assert manifest.name == "tiny one"
    assert manifest.emotions == EMOTIONS
    assert (manifest.front_end, manifest.levels) == (model.front_end, model.normalisation.levels)
    assert manifest.temperature_fitted
    assert manifest.training == model.training
    shapes = manifest.graphs
    assert (shapes.frames_per_feature, shapes.frames_for_first, shapes.window_features) == (8, 49, 32)
    assert (shapes.feature_size, shapes.embedding_size) == (8, 16)


def test_the_head_is_the_networks_last_layers(folder: Path) -> None:
    head, net = load_bundle(folder).head, tiny_checkpoint().net
    embedding = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    with torch.no_grad():
        expected = net.transfer(net.meta.classify(torch.from_numpy(embedding))).numpy()
    tolerance = logits_tolerance(head, embedding)
    np.testing.assert_allclose(head.logits(embedding), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(head.probs(embedding), softmax(expected / 1.3), rtol=0, atol=tolerance / 1.3)


def test_a_temperature_that_was_never_fitted_is_1_and_said_to_be_so(tmp_path: Path) -> None:
    export_bundle(tiny_checkpoint(temperature=None), tmp_path / "a", "a")
    bundle = load_bundle(tmp_path / "a")
    assert bundle.head.temperature == 1.0
    assert not bundle.manifest.temperature_fitted


def test_the_head_does_not_follow_the_network_afterwards() -> None:
    net = tiny_checkpoint().net
    head = head_of(net, None)
    with torch.no_grad():
        net.meta.fc1.bias.add_(1.0)
    assert not np.array_equal(head.fc1_bias, net.meta.fc1.bias.detach().numpy())


def test_the_weights_in_a_bundle_are_a_checkpoint_to_go_on_from(folder: Path) -> None:
    weights, model = load_checkpoint(folder / "weights.safetensors"), tiny_checkpoint()
    for key, value in model.net.state_dict().items():
        assert torch.equal(weights.net.state_dict()[key], value)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["CC0 1.0", "CC BY-NC-SA 4.0 (nEMO)"], "CC BY-NC-SA 4.0 (not for commercial use)"),
        (["CC0 1.0"], "as the recordings it was trained on"),
        ([], "as the recordings it was trained on"),
    ],
)
def test_the_most_restrictive_licence_holds(tmp_path: Path, licences: list[str], expected: str) -> None:
    corpora = [{"name": "x", "licence": name, "clips": 1, "ratings": "human"} for name in licences]
    model = tiny_checkpoint()
    model = replace(model, training={**model.training, "corpora": corpora})
    export_bundle(model, tmp_path / "a", "a")
    assert read_manifest(tmp_path / "a").licence == expected


def tampered(net: EmotionNet) -> onnx.ModelProto:
    model = graphs.window_graph(net)
    (bias,) = (item for item in model.graph.initializer if item.name == "fc3.bias")
    bias.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1e-3), bias.name)
    )
    return model


def tampered_encoder(net: EmotionNet) -> onnx.ModelProto:
    model = graphs.encoder_graph(net)
    (bias,) = (item for item in model.graph.initializer if item.name == "blocks.1.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    return model


TAMPERED: dict[str, Any] = {"window_graph": tampered, "encoder_graph": tampered_encoder}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_graph_that_differs_is_refused_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(f"export.bundling.{name}", TAMPERED[name])
    with pytest.raises(VerificationError, match="nothing was written"):
        export_bundle(tiny_checkpoint(), tmp_path / "bad", "bad")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_bundle_that_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_bundle(folder).fingerprint
    monkeypatch.setattr("export.bundling.window_graph", tampered)
    with pytest.raises(VerificationError):
        export_bundle(tiny_checkpoint(seed=1), folder, "bad", replace=True)
    assert load_bundle(folder).fingerprint == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_bundle_that_is_there_is_replaced_only_when_asked(folder: Path) -> None:
    before = load_bundle(folder).fingerprint
    with pytest.raises(UsageError, match="already holds a bundle: add --replace"):
        export_bundle(tiny_checkpoint(seed=1), folder, "other")
    assert load_bundle(folder).fingerprint == before
    export_bundle(tiny_checkpoint(seed=1), folder, "other", replace=True)
    assert load_bundle(folder).fingerprint != before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("replacing", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path: Path, *, replacing: bool) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        export_bundle(tiny_checkpoint(), tmp_path / "photos", "a", replace=replacing)
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match="not a bundle"):
        export_bundle(tiny_checkpoint(), tmp_path / "a", "a", replace=True)


def test_a_damaged_bundle_may_be_replaced(folder: Path) -> None:
    (folder / "window.onnx").write_bytes(b"")
    export_bundle(tiny_checkpoint(), folder, "tiny", replace=True)
    load_bundle(folder)


def test_a_bundle_may_be_moved(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    load_bundle(tmp_path / "elsewhere")


def test_the_papers_own_layers_are_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    paper = Architecture.paper()
    small = replace(paper, channels=TINY.channels, hidden=8, fully_connected=8)
    with pytest.raises(UsageError, match="train without --paper"):
        export_bundle(tiny_checkpoint(small), tmp_path / "paper", "paper")
    assert list(tmp_path.iterdir()) == []
