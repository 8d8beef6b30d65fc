from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edge.errors import VerificationError
from edge.model.bundle import load_bundle
from export.bundling import export_bundle, put_bundle
from export.parity import TOLERANCE, Checks, Parity, ParityRow, measure, require, table
from export.targets import VARIANTS
from export.trained_model import TrainedModel
from tests.train.synthetic import SAMPLE_RATE, tiny_checkpoint, voice

BOTH = ["stream", "window.onnx"]
ENGINES = [f"engine/window.{item.recurrence}.{item.precision}.onnx" for item in VARIANTS]
WINDOWS = (4.5 * 100 - 3 - 297) // 24 + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    put_bundle(TrainedModel(tiny_checkpoint(), "tiny"), path, variants=VARIANTS)
    return path


def row(difference: float, name: str = "stream") -> ParityRow:
    return ParityRow(name, "fp16" if "fp16" in name else "fp32", difference, same_labels=1.0)


def parity(*rows: ParityRow) -> Parity:
    return Parity(rows, windows=3, clips=0)


def test_what_was_exported_is_what_was_trained(folder: Path) -> None:
    found = measure(tiny_checkpoint().net, load_bundle(folder), VARIANTS)
    assert [item.name for item in found.rows] == [*BOTH, *ENGINES]
    assert all(item.passed for item in found.rows)
    assert {item.same_labels for item in found.rows} == {1.0}
    assert (found.windows, found.clips) == (WINDOWS, 0)


def test_fp16_is_seen_to_be_rounded(folder: Path) -> None:
    found = measure(tiny_checkpoint().net, load_bundle(folder), VARIANTS)
    half = {item.name: item.difference for item in found.rows if item.precision == "fp16"}
    assert list(half) == ENGINES[2:]
    assert all(difference > TOLERANCE["fp32"] for difference in half.values())


def test_a_bundle_of_its_own_is_compared_without_graphs_for_tensorrt(folder: Path) -> None:
    assert [item.name for item in measure(tiny_checkpoint().net, load_bundle(folder)).rows] == BOTH


def test_another_network_is_noticed_in_every_form(folder: Path) -> None:
    found = measure(tiny_checkpoint(seed=1).net, load_bundle(folder), VARIANTS)
    assert all(item.difference > 0.1 for item in found.rows)
    assert not any(item.passed for item in found.rows)
    assert min(item.same_labels for item in found.rows) < 1.0


@pytest.mark.parametrize("layer", ["blocks.0.conv", "projection", "lstm", "fc1", "fc2"])
def test_a_change_to_any_layer_is_noticed(folder: Path, layer: str) -> None:
    net = tiny_checkpoint().net
    with torch.no_grad():
        for parameter in net.meta.get_submodule(layer).parameters():
            parameter.add_(0.05)
    with pytest.raises(VerificationError):
        require(measure(net, load_bundle(folder)))


def test_the_temperature_is_not_taken_for_a_difference(tmp_path: Path) -> None:
    found = export_bundle(tiny_checkpoint(temperature=5.0), tmp_path / "hot", "hot")
    assert all(item.passed for item in found.rows)


def test_recordings_are_compared_on_too_short_ones_included(folder: Path, tmp_path: Path) -> None:
    clips = [tmp_path / "short.wav", tmp_path / "long.wav"]
    for clip, seconds in zip(clips, (0.4, 3.3), strict=True):
        soundfile.write(clip, voice(0, "happy", 0, seconds), SAMPLE_RATE)
    shares: list[float] = []
    checks = Checks(clips, progress=shares.append)
    found = measure(tiny_checkpoint().net, load_bundle(folder), VARIANTS[:1], checks)
    assert (found.windows, found.clips) == (WINDOWS + 1 + 2, 2)
    assert all(item.passed for item in found.rows)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_small_differences_pass() -> None:
    require(parity(row(TOLERANCE["fp32"]), row(TOLERANCE["fp16"], "fp16")))


@pytest.mark.parametrize("worst", [1.01 * TOLERANCE["fp32"], 1.0, math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 1])
def test_a_large_difference_of_any_form_is_refused_as_is_one_that_is_no_number(
    worst: float, place: int
) -> None:
    rows = [row(0.0), row(0.0)]
    rows[place] = row(worst, "window.onnx")
    with pytest.raises(VerificationError, match=r"differ from the trained network .*window\.onnx") as caught:
        require(parity(*rows))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("nothing was written")
    assert ": report this" in str(caught.value)
    assert caught.value.exit_code == 7


def test_where_only_fp16_differs_the_remedy_is_to_leave_it_out() -> None:
    half = row(1.01 * TOLERANCE["fp16"], "fp16")
    with pytest.raises(VerificationError, match="add --no-fp16"):
        require(parity(row(0.0), half))
    with pytest.raises(VerificationError, match="report this"):
        require(parity(half, row(1.0)))


def test_the_tolerance_of_fp16_moves_no_probability_by_more_than_is_said() -> None:
    """softmax changes most where two classes are even and their logits part."""
    logits = np.zeros(2)
    moved = np.exp(logits + TOLERANCE["fp16"] * np.array([1, -1]))
    assert abs(moved[0] / moved.sum() - 0.5) <= 0.01


def test_the_table_has_a_line_for_each_form_and_says_what_was_compared() -> None:
    rows = (row(1e-6), row(0.003, "engine/window.lstm.fp16.onnx"), replace(row(0.5), same_labels=0.987))
    head, torch_line, *lines, sounds, note = table(Parity(rows, windows=48, clips=7)).splitlines()
    assert head.split() == ["differs", "by", "same", "label", "allowed"]
    assert torch_line.split() == ["torch", "0", "100.0", "%"]
    assert [line.split() for line in lines] == [
        ["stream", "1.0e-06", "100.0", "%", "0.0001", "passed"],
        ["engine/window.lstm.fp16.onnx", "3.0e-03", "100.0", "%", "0.02", "passed"],
        ["stream", "5.0e-01", "98.7", "%", "0.0001", "REFUSED"],
    ]
    assert "48 windows of the demo clip and noise, and 7 recordings" in sounds
    assert "no GPU was asked" in note


def test_the_table_fits_a_terminal_and_says_nothing_of_fp16_where_there_is_none() -> None:
    told = table(Parity(tuple(row(1e-6, name) for name in [*BOTH, *ENGINES]), windows=3, clips=0))
    assert max(map(len, told.splitlines())) <= 90
    assert "FP16" not in table(parity(row(0.0)))


def test_measuring_leaves_the_network_as_it_was(folder: Path) -> None:
    net = tiny_checkpoint().net
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    measure(net, load_bundle(folder))
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
