from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.bundle import load_bundle
from edge.errors import VerificationError
from export.bundling import export_bundle
from export.parity import TOLERANCE, Parity, measure, require
from tests.train.synthetic import tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(tiny_checkpoint(), path, "tiny")
    return path


def test_what_was_exported_is_what_was_trained(folder: Path) -> None:
    parity = measure(tiny_checkpoint().net, load_bundle(folder))
    assert parity.torch_to_onnx <= TOLERANCE
    assert parity.window_to_stream <= TOLERANCE
    assert parity.same_labels == 1.0
    assert parity.windows == (4.5 * 100 - 3 - 297) // 8 + 1


def test_another_network_is_noticed(folder: Path) -> None:
    assert measure(tiny_checkpoint(seed=1).net, load_bundle(folder)).torch_to_onnx > 10 * TOLERANCE


@pytest.mark.parametrize("layer", ["blocks.0.conv", "projection", "lstm", "fc1", "fc2"])
def test_a_change_to_any_layer_is_noticed(folder: Path, layer: str) -> None:
    net = tiny_checkpoint().net
    with torch.no_grad():
        for parameter in net.meta.get_submodule(layer).parameters():
            parameter.add_(0.05)
    with pytest.raises(VerificationError):
        require(measure(net, load_bundle(folder)))


def test_the_temperature_is_not_taken_for_a_difference(tmp_path: Path) -> None:
    model = tiny_checkpoint(temperature=5.0)
    assert export_bundle(model, tmp_path / "hot", "hot").window_to_stream <= TOLERANCE


def test_small_differences_pass() -> None:
    require(Parity(torch_to_onnx=TOLERANCE, window_to_stream=0.0, same_labels=1.0, windows=3))


@pytest.mark.parametrize("worst", [1.01 * TOLERANCE, 1.0, math.inf, math.nan])
def test_a_large_difference_of_either_kind_is_refused_as_is_one_that_is_no_number(worst: float) -> None:
    for pair in ((worst, 0.0), (0.0, worst)):
        with pytest.raises(VerificationError, match="differ from the trained network") as caught:
            require(Parity(*pair, same_labels=1.0, windows=3))
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 7


def test_measuring_leaves_the_network_as_it_was(folder: Path) -> None:
    net = tiny_checkpoint().net
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    measure(net, load_bundle(folder))
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
