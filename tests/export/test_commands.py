from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from edge.cli.main import main
from edge.model.bundle import load_bundle
from export import graphs
from tests.train.synthetic import TINY, tiny_checkpoint, write_corpus
from train.checkpoint import save_checkpoint
from train.model import EmotionNet


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, tiny_checkpoint())
    return path


def export(*arguments: object) -> int:
    """Call `mmtl export` and return its exit code."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["mmtl", "export", *map(str, arguments)])
            main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_a_checkpoint_is_exported_and_its_parity_is_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(checkpoint, "--out", tmp_path / "model") == 0
    told = capsys.readouterr().out
    assert told.endswith(f"bundle {tmp_path / 'model'}\n")
    for name in ("torch", "stream", "window.onnx"):
        assert re.search(rf"^{name} .* 100\.0 %", told, re.MULTILINE)
    assert "FP16" not in told
    assert load_bundle(tmp_path / "model").manifest.name == "model"


def test_an_export_for_tensorrt_tells_the_parity_of_each_graph(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(checkpoint, "--out", tmp_path / "model", "--format", "tensorrt") == 0
    told = capsys.readouterr().out
    assert told.count("passed") == 6
    for graph in (tmp_path / "model" / "engine").glob("*.onnx"):
        assert re.search(rf"^engine/{re.escape(graph.name)} .*passed$", told, re.MULTILINE)
    assert told.endswith(f"tensorrt {tmp_path / 'model'}\n")


def test_fp16_can_be_left_out(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, "--out", tmp_path / "model", "--format", "tensorrt", "--no-fp16") == 0
    names = {path.name for path in (tmp_path / "model" / "engine").glob("*.onnx")}
    assert names == {"window.lstm.fp32.onnx", "window.unrolled.fp32.onnx"}


def test_recordings_can_be_added(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", speakers=1, takes=1)
    assert export(checkpoint, "--out", tmp_path / "model", "--clips", corpus) == 0
    assert "and 4 recordings" in capsys.readouterr().out


def test_recordings_that_are_not_there_have_exit_code_2(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(checkpoint, "--out", tmp_path / "model", "--clips", tmp_path / "none") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_a_bundle_can_be_exported_again(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, "--out", tmp_path / "first") == 0
    assert export(tmp_path / "first", "--out", tmp_path / "second", "--format", "tensorrt") == 0
    first, second = load_bundle(tmp_path / "first"), load_bundle(tmp_path / "second")
    assert (second.manifest.name, second.fingerprint) == ("first", first.fingerprint)


def test_a_folder_of_something_else_has_exit_code_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path, "--out", tmp_path / "model") == 4
    assert "is a folder without a model" in capsys.readouterr().err


def test_a_name_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, "--out", tmp_path / "model", "--name", "mine") == 0
    assert load_bundle(tmp_path / "model").manifest.name == "mine"


def test_an_export_over_a_bundle_asks_for_replace(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (checkpoint, "--out", tmp_path / "model")
    assert export(*arguments) == 0
    assert export(*arguments) == 2
    assert "add --replace" in capsys.readouterr().err
    assert export(*arguments, "--replace") == 0


@pytest.mark.parametrize("replace", [(), ("--replace",)])
def test_what_an_export_reads_is_not_what_it_writes(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], replace: tuple[str, ...]
) -> None:
    folder, link = tmp_path / "model", tmp_path / "link"
    assert export(checkpoint, "--out", folder) == 0
    link.symlink_to(folder)
    before = load_bundle(folder).fingerprint
    for source, out in ((folder, folder), (folder / "weights.safetensors", folder), (link, folder)):
        assert export(source, "--out", out, *replace) == 2
        assert "--out would overwrite" in capsys.readouterr().err
    assert load_bundle(folder).fingerprint == before


def test_a_missing_checkpoint_has_exit_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "none", "--out", tmp_path / "model") == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_a_network_of_the_papers_own_layers_has_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = replace(TINY, time_padding="same", batch_norm=False, pooling="last")
    save_checkpoint(tmp_path / "best.safetensors", tiny_checkpoint(arch))
    assert export(tmp_path / "best.safetensors", "--out", tmp_path / "model") == 2
    assert "train without --paper" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_graph_that_differs_has_exit_code_7_and_leaves_nothing(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def of_another(_: EmotionNet) -> onnx.ModelProto:
        return graphs.window_graph(tiny_checkpoint(seed=1).net)

    monkeypatch.setattr("export.bundling.window_graph", of_another)
    assert export(checkpoint, "--out", tmp_path / "model") == 7
    told, message = capsys.readouterr()
    assert re.search(r"^stream .*passed\nwindow\.onnx .*REFUSED$", told, re.MULTILINE)
    assert message.startswith("mmtl: nothing was written: the exported graphs differ")
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_format_that_there_is_not_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, "--out", tmp_path / "model", "--format", "pickle") == 2
    assert not (tmp_path / "model").exists()
