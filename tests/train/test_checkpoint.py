from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from edge.errors import ModelError
from edge.model.bundle import shipped_bundle
from edge.model.manifest import WEIGHTS
from tests.train.synthetic import TINY, TINY_PRETRAINED, tiny_checkpoint, tiny_pretrained
from train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_cnn_lstm,
    load_pretrained,
    save_checkpoint,
)
from train.model import Architecture

SEPARATE = replace(TINY, heads="separate", emotions="direct", dimensions=2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, tiny_checkpoint())
    return path


def described_in(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        described: dict[str, Any] = json.loads(file.metadata()["mmtl"])
        return described


def rewrite(path: Path, **changes: Any) -> None:
    described = described_in(path) | changes
    kept = {key: value for key, value in described.items() if value is not ...}
    save_file(load_file(path), path, {"mmtl": json.dumps(kept)})


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("arch", [TINY, SEPARATE, replace(TINY, projection=None, batch_norm=False)])
@pytest.mark.parametrize("temperature", [None, 1.7])
def test_a_checkpoint_comes_back_as_it_was(
    tmp_path: Path, arch: Architecture, temperature: float | None
) -> None:
    kept = tiny_checkpoint(arch, temperature)
    save_checkpoint(tmp_path / "a.safetensors", kept)
    found = load_checkpoint(tmp_path / "a.safetensors")
    assert_same(found, kept)
    assert not found.net.training


def assert_same(found: Checkpoint, kept: Checkpoint) -> None:
    assert found.net.arch == kept.net.arch
    assert (found.front_end, found.temperature) == (kept.front_end, kept.temperature)
    assert found.training == kept.training
    assert found.normalisation.levels == kept.normalisation.levels
    for name in ("mean", "std"):
        statistics = (getattr(item.normalisation.statistics, name) for item in (found, kept))
        np.testing.assert_array_equal(*statistics)
    weights, wanted = found.net.state_dict(), kept.net.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_weights_in_channels_last_are_stored_too(tmp_path: Path) -> None:
    kept = tiny_checkpoint()
    kept.net.to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "a.safetensors", kept)
    assert_same(load_checkpoint(tmp_path / "a.safetensors"), kept)


def test_saving_leaves_nothing_but_the_checkpoint(saved: Path) -> None:
    save_checkpoint(saved, tiny_checkpoint(seed=1))
    assert list(saved.parent.iterdir()) == [saved]


def test_a_missing_checkpoint_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert "best.safetensors of a run folder" in refusal(tmp_path / "none.safetensors")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "there is no checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_cut_off_checkpoint_is_refused(saved: Path, size: int) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    assert "damaged" in refusal(saved)


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert "not a checkpoint of mmtl" in refusal(tmp_path / "a.safetensors")


def test_another_version_is_refused(saved: Path) -> None:
    rewrite(saved, checkpoint_version=99)
    assert "version 99, this program reads version 1" in refusal(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": ...},
        {"architecture": {"channels": [2, 3, 4], "kernels": [[12, 16], [8, 12], [5, 7]], "unknown": 1}},
        {"architecture": {"channels": [2, 3, 5], "kernels": [[12, 16], [8, 12], [5, 7]]}},
        {"architecture": {"channels": [2, 3, 4], "kernels": [], "emotions": "direct"}},
        {"front_end": {"hop": 1}},
        {"levels": ...},
        {"training": ...},
        {"temperature": ...},
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved: Path, change: dict[str, Any]) -> None:
    rewrite(saved, **change)
    assert "does not describe a model" in refusal(saved)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *(("architecture", "hidden", value) for value in (0, -1, 9, 2**31, 10**400, 8.0, True, "8", None)),
        *(("architecture", "projection", value) for value in (0, 2**31, 1.5, False)),
        *(("architecture", "channels", value) for value in ([2, 3], [2, 3, 2**31], [2, 3, 0], "234", 5)),
        *(("architecture", "kernels", value) for value in ([[12, 16]], [[12, 16], [8, 12], [5, 2**31]], [5])),
        *(("architecture", "dropout", value) for value in (-0.1, 1.0, float("nan"), "0")),
        *(("architecture", "pooling", value) for value in ("max", None, 1)),
        ("architecture", "batch_norm", 1),
        *(("front_end", "n_fft", value) for value in (0, 2**31, 800.0, True)),
        ("front_end", "sample_rate", 2),
        *(("levels", "eps", value) for value in (0, 1e-45, float("inf"), 10**400)),
        *((None, "temperature", value) for value in (0.0, 1e-45, -1, float("nan"), 10**400, "1", True)),
        *((None, "training", value) for value in ((), 3, None)),
        *((None, "checkpoint_version", value) for value in (True, 1.0, "1\n", 10**400)),
    ],
)
def test_a_number_that_cannot_be_used_is_refused_in_one_line(
    saved: Path, part: str | None, key: str, value: object
) -> None:
    described = described_in(saved)
    rewrite(saved, **({part: {**described[part], key: value}} if part else {key: value}))
    assert len(refusal(saved)) < 600


@pytest.mark.parametrize(
    "change",
    [
        *(lambda weight, value=value: weight.fill_(value) for value in (float("nan"), float("inf"))),
        *(lambda weight, kind=kind: weight.to(kind) for kind in (torch.float64, torch.int32, torch.bfloat16)),
        lambda weight: weight[:-1],
        lambda weight: weight[None],
    ],
)
@pytest.mark.parametrize("name", ["meta.fc1.weight", "meta.lstm.bias_hh_l0"])
def test_a_tensor_that_cannot_be_used_is_refused_in_one_line(
    saved: Path, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    tensors, described = load_file(saved), described_in(saved)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, saved, {"mmtl": json.dumps(described)})
    assert name in refusal(saved)


@pytest.mark.parametrize("value", [float("nan"), 0.0, 1e-45, -1.0, 1e30])
def test_statistics_that_cannot_be_used_are_refused(saved: Path, value: float) -> None:
    tensors, described = load_file(saved), described_in(saved)
    tensors["statistics.std"][3] = value
    save_file(tensors, saved, {"mmtl": json.dumps(described)})
    assert "statistics.std are not usable" in refusal(saved)


def test_a_description_of_another_kind_is_refused(saved: Path) -> None:
    save_file(load_file(saved), saved, {"mmtl": "[1, 2]"})
    assert "not a checkpoint of mmtl" in refusal(saved)


@pytest.mark.parametrize("missing", ["statistics.mean", "meta.fc1.weight"])
def test_a_checkpoint_without_a_tensor_is_refused(saved: Path, missing: str) -> None:
    described, tensors = described_in(saved), load_file(saved)
    del tensors[missing]
    save_file(tensors, saved, {"mmtl": json.dumps(described)})
    refusal(saved)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickled_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    path, sprung = tmp_path / "evil.safetensors", tmp_path / "sprung"
    torch.save({"weights": Trap(sprung)}, path)
    assert "not a checkpoint of mmtl" in refusal(path)
    assert not sprung.exists()
    torch.load(io.BytesIO(path.read_bytes()), weights_only=False)  # the trap does work
    assert sprung.exists()


def test_a_stored_checkpoint_is_safetensors_and_json_alone(saved: Path) -> None:
    header_size = int.from_bytes(saved.read_bytes()[:8], "little")
    header = json.loads(saved.read_bytes()[8 : 8 + header_size])
    assert set(header["__metadata__"]) == {"mmtl"}
    assert json.loads(header["__metadata__"]["mmtl"])["checkpoint_version"] == 1


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    path = tmp_path / "pretrained.safetensors"
    save_checkpoint(path, tiny_pretrained())
    return path


def test_a_network_on_a_pretrained_encoder_comes_back_as_it_was(pretrained: Path) -> None:
    found = load_pretrained(pretrained)
    assert_same(found, tiny_pretrained())
    assert not found.net.training
    assert all(value.dtype == torch.float32 for value in found.net.state_dict().values())


def test_the_kind_of_baseline_is_kept_and_is_the_mean_in_an_older_checkpoint(pretrained: Path) -> None:
    arch = described_in(pretrained)["architecture"]
    assert arch.pop("baseline") == "mean"
    rewrite(pretrained, architecture=arch)
    assert load_pretrained(pretrained).net.arch.baseline == "mean"
    save_checkpoint(pretrained, tiny_pretrained(replace(TINY_PRETRAINED, baseline="deviation")))
    assert load_pretrained(pretrained).net.arch.baseline == "deviation"


def test_the_encoder_is_stored_in_float16_only_where_that_is_exact(tmp_path: Path) -> None:
    kept = tiny_pretrained()
    with torch.no_grad():
        kept.net.encoder.state_dict()["conv1.bias"][0] = 1.0 + 2.0**-20
    save_checkpoint(tmp_path / "a.safetensors", kept)
    kinds = {name: tensor.dtype for name, tensor in load_file(tmp_path / "a.safetensors").items()}
    assert kinds["encoder.conv1.bias"] == torch.float32
    assert kinds["encoder.conv1.weight"] == kinds["encoder.block.1.mlp.up.weight"] == torch.float16
    assert kinds["head.meta.fc1.weight"] == kinds["embedding_mean"] == torch.float32
    assert_same(load_checkpoint(tmp_path / "a.safetensors"), kept)


def test_each_kind_is_refused_where_the_other_is_needed(saved: Path, pretrained: Path) -> None:
    assert_same(load_cnn_lstm(saved), tiny_checkpoint())
    with pytest.raises(ModelError, match="a pretrained encoder, and a CNN-LSTM is needed here: give the"):
        load_cnn_lstm(pretrained)
    recurrent = shipped_bundle("small") / WEIGHTS
    with pytest.raises(ModelError, match=r"a recurrent encoder, and a CNN-LSTM .* a run without --encoder$"):
        load_cnn_lstm(recurrent)
    with pytest.raises(ModelError, match="pretrained encoder is needed here: give the checkpoint of a run w"):
        load_pretrained(saved)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *(("architecture", "width", value) for value in (0, -64, 65, 2**31, 64.0, True, "64", None)),
        *(("architecture", "blocks", value) for value in (0, 3, 2**31, 2.0, True, None)),
        *(("architecture", "fully_connected", value) for value in (0, 9, 2**31, "8")),
        *(("architecture", "dropout", value) for value in (-0.1, 1.0, float("nan"))),
        *(("architecture", "baseline", value) for value in ("none", 1, None)),
        ("architecture", "unknown", 1),
        *(("front_end", "spectrum", value) for value in ("linear", "mel", None)),
        ("front_end", "hop_length_ms", 20),
    ],
)
def test_a_pretrained_network_that_cannot_be_is_refused_in_one_line(
    pretrained: Path, part: str, key: str, value: object
) -> None:
    rewrite(pretrained, **{part: {**described_in(pretrained)[part], key: value}})
    assert len(refusal(pretrained)) < 600


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder.conv1.weight", lambda weight: weight.fill_(float("nan"))),
        ("encoder.conv1.weight", lambda weight: weight.to(torch.bfloat16)),
        ("encoder.conv1.weight", lambda weight: weight[:-1]),
        ("encoder.positions", lambda weight: weight[:100]),
        ("head.meta.fc2.weight", lambda weight: weight.half()),
        ("head.transfer.bias", lambda weight: weight.fill_(float("inf"))),
        ("embedding_std", lambda weight: weight.fill_(0.0)),
        ("embedding_std", lambda weight: -weight),
        ("embedding_mean", lambda weight: weight.fill_(float("nan"))),
    ],
)
def test_a_tensor_of_a_pretrained_network_that_cannot_be_used_is_refused(
    pretrained: Path, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    tensors, described = load_file(pretrained), described_in(pretrained)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, pretrained, {"mmtl": json.dumps(described)})
    assert name in refusal(pretrained)


def test_statistics_of_another_number_of_bands_are_refused(pretrained: Path) -> None:
    tensors, described = load_file(pretrained), described_in(pretrained)
    tensors |= {f"statistics.{name}": torch.ones(200) for name in ("mean", "std")}
    save_file(tensors, pretrained, {"mmtl": json.dumps(described)})
    assert "statistics of 200 values, not of 80 mel bands" in refusal(pretrained)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_cut_off_pretrained_checkpoint_is_refused(pretrained: Path, size: int) -> None:
    pretrained.write_bytes(pretrained.read_bytes()[:size])
    assert "damaged" in refusal(pretrained)
