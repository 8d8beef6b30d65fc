from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edge.errors import ModelError
from edge.model.bundle import load_bundle
from edge.model.manifest import MANIFEST, WINDOW, write_manifest
from export.bundling import export_bundle
from export.trained_model import read_model
from tests.train.synthetic import tiny_checkpoint
from train.checkpoint import save_checkpoint


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    export_bundle(tiny_checkpoint(), path, "tiny one")
    return path


def refused(path: Path, *said: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_a_checkpoint_has_no_name_and_no_scores_yet(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.safetensors", tiny_checkpoint())
    model = read_model(tmp_path / "best.safetensors")
    assert (model.name, model.metrics) == ("", {})
    assert model.checkpoint.temperature == tiny_checkpoint().temperature


def test_a_run_brings_the_scores_of_its_held_out_speakers(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.safetensors", tiny_checkpoint())
    cross_fitted = {"none": {"mean_uar": 50.0, "corpora": {}}}
    scores = {"temperature": 1.2, "cross_fitted": cross_fitted, "test": {"uar": 0.3}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    assert read_model(tmp_path / "best.safetensors").metrics == {"cross_fitted": cross_fitted}
    (tmp_path / "best.safetensors").rename(tmp_path / "other.safetensors")
    assert read_model(tmp_path / "other.safetensors").metrics == {}


def test_damaged_scores_of_a_run_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.safetensors", tiny_checkpoint())
    (tmp_path / "scores.json").write_text('{"cross_fitted": ')
    refused(tmp_path / "best.safetensors", "scores.json is damaged")


def test_a_bundle_brings_its_weights_its_name_and_its_scores(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    manifest.metrics["none"] = {"command": "mmtl evaluate", "corpora": {}}
    write_manifest(bundle, manifest)
    model = read_model(bundle)
    assert (model.name, model.metrics) == ("tiny one", manifest.metrics)
    for name, value in tiny_checkpoint().net.state_dict().items():
        assert torch.equal(model.checkpoint.net.state_dict()[name], value)


@pytest.mark.parametrize("name", [WINDOW, "weights.safetensors"])
def test_a_bundle_that_was_changed_is_refused(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    refused(bundle, name, "SHA-256")


def test_a_bundle_of_another_version_is_refused(bundle: Path) -> None:
    (bundle / MANIFEST).write_text('{"schema_version": 3}')
    refused(bundle, "update mmtl")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_checkpoint_of_a_training_that_went_wrong_is_refused(tmp_path: Path, number: float) -> None:
    model = tiny_checkpoint()
    with torch.no_grad():
        model.net.meta.fc1.bias[0] = number
    save_checkpoint(tmp_path / "best.safetensors", model)
    refused(tmp_path / "best.safetensors", "not finite", "meta.fc1.bias")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "without a model", "best.safetensors", "folder of a bundle")


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, tiny_checkpoint())
    content = {"empty": b"", "text": b"weights", "truncated": path.read_bytes()[:-100]}
    path.unlink() if kind == "missing" else path.write_bytes(content[kind])
    refused(path, str(path))
