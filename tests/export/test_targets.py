from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from edge.errors import BundleError, UsageError, VerificationError
from edge.model.bundle import Bundle, load_bundle
from edge.model.engine_files import GOLDEN
from edge.model.manifest import required_files
from export.graphs import Variant, window_graph
from export.parity import Checks, Parity
from export.targets import VARIANTS, ExportFormat, ExportRequest, export_target
from export.trained_model import TrainedModel, read_model
from tests.train.synthetic import TINY, tiny_checkpoint
from train.model import EmotionNet

ENGINES = {
    "engine/window.lstm.fp32.onnx",
    "engine/window.unrolled.fp32.onnx",
    "engine/window.lstm.fp16.onnx",
    "engine/window.unrolled.fp16.onnx",
}


@pytest.fixture
def model() -> TrainedModel:
    return TrainedModel(tiny_checkpoint(), metrics={"none": {"command": "c", "corpora": {}}})


@pytest.fixture
def for_tensorrt(model: TrainedModel, tmp_path: Path) -> Path:
    return export_target(model, ExportRequest("tensorrt", tmp_path / "trt"), Checks())


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_for_tensorrt_is_a_bundle_with_the_graphs_of_every_encoding(for_tensorrt: Path) -> None:
    manifest = load_bundle(for_tensorrt).manifest
    assert set(manifest.files) == {*required_files("incremental"), *ENGINES, GOLDEN}
    assert files_of(for_tensorrt) == {*manifest.files, "model.json"}
    for name in ENGINES:
        onnx.checker.check_model(str(for_tensorrt / name), full_check=True)


def test_without_fp16_it_has_the_others(model: TrainedModel, tmp_path: Path) -> None:
    export_target(model, ExportRequest("tensorrt", tmp_path / "trt", fp16=False), Checks())
    assert files_of(tmp_path / "trt") == {
        *required_files("incremental"),
        *(name for name in ENGINES if "fp32" in name),
        GOLDEN,
        "model.json",
    }


def test_a_profile_of_the_plain_bundle_fits_the_one_for_tensorrt(
    model: TrainedModel, for_tensorrt: Path, tmp_path: Path
) -> None:
    export_target(model, ExportRequest("bundle", tmp_path / "plain"), Checks())
    plain = load_bundle(tmp_path / "plain")
    assert set(plain.manifest.files) == set(required_files("incremental"))
    assert plain.fingerprint == load_bundle(for_tensorrt).fingerprint


@pytest.mark.parametrize("name", [GOLDEN, *sorted(ENGINES)])
def test_the_graphs_for_tensorrt_are_checked_as_the_others_are(for_tensorrt: Path, name: str) -> None:
    content = bytearray((for_tensorrt / name).read_bytes())
    content[len(content) // 2] ^= 1
    (for_tensorrt / name).write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(for_tensorrt)
    (for_tensorrt / name).unlink()
    with pytest.raises(BundleError, match="lacks"):
        load_bundle(for_tensorrt)


@pytest.mark.parametrize("first", ["bundle", "tensorrt"])
@pytest.mark.parametrize("second", ["bundle", "tensorrt"])
def test_a_bundle_exported_again_is_the_same_model(
    model: TrainedModel, tmp_path: Path, first: ExportFormat, second: ExportFormat
) -> None:
    export_target(model, ExportRequest(first, tmp_path / "first", name="anna"), Checks())
    again = read_model(tmp_path / "first")
    export_target(again, ExportRequest(second, tmp_path / "second"), Checks())
    bundles = [load_bundle(tmp_path / name) for name in ("first", "second")]
    assert bundles[0].fingerprint == bundles[1].fingerprint
    assert [bundle.manifest.name for bundle in bundles] == ["anna", "anna"]
    assert bundles[0].manifest.metrics == bundles[1].manifest.metrics == model.metrics
    assert (tmp_path / "first" / "CARD.md").read_bytes() == (tmp_path / "second" / "CARD.md").read_bytes()


def test_a_bundle_may_be_replaced_by_what_is_made_of_it(for_tensorrt: Path) -> None:
    with pytest.raises(UsageError, match="add --replace"):
        export_target(read_model(for_tensorrt), ExportRequest("bundle", for_tensorrt), Checks())
    assert GOLDEN in files_of(for_tensorrt)
    export_target(read_model(for_tensorrt), ExportRequest("bundle", for_tensorrt, replace=True), Checks())
    assert files_of(for_tensorrt) == {*required_files("incremental"), "model.json"}


@pytest.mark.parametrize(
    ("out", "given", "of_source", "expected"),
    [
        ("model", "", "", "model"),
        ("v1.2", "", "", "v1.2"),
        ("model", "mine", "theirs", "mine"),
        ("model", "", "theirs", "theirs"),
    ],
)
def test_the_model_is_called_what_is_given_or_what_it_was_called_or_after_the_folder(
    tmp_path: Path, out: str, given: str, of_source: str, expected: str
) -> None:
    model = TrainedModel(tiny_checkpoint(), of_source)
    written = export_target(model, ExportRequest("bundle", tmp_path / out, name=given), Checks())
    assert load_bundle(written).manifest.name == expected


def tampered(layer: str, variant: Variant) -> Callable[..., onnx.ModelProto]:
    """Return what draws the window graphs, one of them with a changed bias."""

    def draw(net: EmotionNet, request: Variant | None = None, frames: int | None = None) -> onnx.ModelProto:
        model = window_graph(net) if request is None else window_graph(net, request, frames)
        if request == variant:
            (bias,) = (item for item in model.graph.initializer if item.name == layer)
            value = onnx.numpy_helper.to_array(bias)
            bias.CopyFrom(onnx.numpy_helper.from_array(value + value.dtype.type(0.5), layer))
        return model

    return draw


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_encoding_that_differs_is_refused_and_nothing_is_left_behind(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    monkeypatch.setattr("export.bundling.window_graph", tampered("blocks.2.bias", variant))
    told: list[Parity] = []
    with pytest.raises(VerificationError, match=rf"window\.{variant.recurrence}\.{variant.precision}\.onnx"):
        export_target(model, ExportRequest("tensorrt", tmp_path / "bad"), Checks(report=told.append))
    assert list(tmp_path.iterdir()) == []
    assert [row.passed for row in told[0].rows].count(False) == 1


def test_a_network_too_large_for_fp16_is_refused_and_written_without(tmp_path: Path) -> None:
    model = TrainedModel(tiny_checkpoint())
    with torch.no_grad():
        model.checkpoint.net.get_parameter("meta.blocks.0.conv.weight").mul_(1e6)
    with pytest.raises(VerificationError, match="add --no-fp16"):
        export_target(model, ExportRequest("tensorrt", tmp_path / "large"), Checks())
    export_target(model, ExportRequest("tensorrt", tmp_path / "large", fp16=False), Checks())
    load_bundle(tmp_path / "large")


Writer = tuple[str, str]
WRITERS: dict[ExportFormat, Writer] = {
    "triton": ("export.triton", "write_repository"),
    "jetson": ("export.jetson", "write_package"),
}


@pytest.mark.parametrize("export_format", WRITERS)
def test_triton_and_jetson_get_a_whole_bundle_for_tensorrt(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_format: ExportFormat
) -> None:
    asked: list[tuple[Any, ...]] = []

    def write(bundle: Bundle, *rest: Any, replace: bool) -> Path:
        assert GOLDEN in load_bundle(bundle.folder).manifest.files
        asked.append((bundle.manifest.name, *rest, replace))
        return tmp_path / "written"

    monkeypatch.setattr(".".join(WRITERS[export_format]), write)
    out = tmp_path / "model.tar.gz"
    written = export_target(model, ExportRequest(export_format, out, replace=True), Checks())
    assert asked == [("model", out, True)]
    assert written == (tmp_path / "written" if export_format == "jetson" else out)


@pytest.mark.parametrize("export_format", ["bundle", "tensorrt", "triton", "jetson"])
def test_the_papers_own_layers_are_refused_in_every_form(tmp_path: Path, export_format: ExportFormat) -> None:
    arch = replace(TINY, time_padding="same", batch_norm=False, pooling="last")
    with pytest.raises(UsageError, match="train without --paper"):
        export_target(
            TrainedModel(tiny_checkpoint(arch)), ExportRequest(export_format, tmp_path / "paper"), Checks()
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_one_line(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write") as caught:
        export_target(model, ExportRequest("bundle", tmp_path / "file" / "model"), Checks())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("export_format", ["triton", "jetson"])
def test_what_is_in_the_way_is_said_before_anything_is_compared(
    model: TrainedModel, tmp_path: Path, export_format: ExportFormat
) -> None:
    out = tmp_path / "there.tar.gz"
    out.write_bytes(b"in the way")
    told: list[Parity] = []
    with pytest.raises(UsageError, match=r"there\.tar\.gz (already|exists)"):
        export_target(model, ExportRequest(export_format, out), Checks(report=told.append))
    assert told == []
