"""`mmtl tables`: cells, folds, resuming, and the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from tests.command_line import exit_code_of
from tests.train.synthetic import write_corpus, write_encoder, write_iemocap
from train.adaptation_curve import PAPER_TUNING
from train.command_inputs import labelled_clips
from train.corpora import Clip
from train.head_training import HeadOptions
from train.metrics import ClassificationScores
from train.model import MetaLearner
from train.segments import SpectraMemory, read_spectra
from train.speaker_protocols import CalibrationDraw, SpeakerProtocols
from train.splits import leave_one_session_out, leave_one_speaker_out, refuse_shared_recordings, speakers_of
from train.systems.base import System
from train.table_rows import PAPER_ROWS as ROWS
from train.table_rows import TABLE_3
from train.tables import (
    Cell,
    Silent,
    TableOptions,
    adapted,
    cells_of,
    claim,
    compute,
    finished,
    precision_of,
    train_cell,
)
from train.tables_report import CellResult, row_scores
from train.training import Training

OPTIONS = TableOptions(epochs=2, augment=0.0)


@pytest.fixture(autouse=True)
def brief_paper_tuning() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.speaker_protocols.PAPER_TUNING", replace(PAPER_TUNING, inner_steps=1))
        yield


def clips_in(folder: Path) -> list[Clip]:
    return labelled_clips([folder], [], improvised_only=True, excited_as_happy=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), speakers=3, takes=1, seconds=0.6)


def tables(corpus: Path, out: Path, *options: object) -> int:
    return exit_code_of("tables", corpus, "--out", out, "--epochs", 1, "--augment", 0, *options)


def scores_of(uar: float, confusion: list[list[int]]) -> ClassificationScores:
    return ClassificationScores(uar, 0.5, 0.5, 0.1, tuple(map(tuple, confusion)), 4, {})


def test_the_rows_are_those_of_the_paper() -> None:
    assert {row.key for row in TABLE_3} == {
        f"mmtl-{tasks}" for tasks in ("v", "a", "d", "vd", "ad", "va", "vad")
    }
    assert ROWS["mmtl-va"].auxiliary == ("valence", "arousal")
    assert ROWS["mmtl-va"].paper == (74.61, 77.74)
    assert len(ROWS) == 13


@pytest.mark.parametrize("key", sorted(ROWS))
def test_every_system_trains_and_is_scored(key: str, corpus: Path, tmp_path: Path) -> None:
    folds = dict(leave_one_speaker_out(clips_in(corpus)))
    (cell,) = cells_of([ROWS[key]], ["s0"], [0])
    train_cell(cell, folds["s0"], tmp_path, TableOptions(epochs=1, augment=0.0), SpectraMemory())
    scores = finished(tmp_path, cell)
    assert scores is not None
    assert list(scores.per_speaker) == ["s0"]
    assert scores.clips == 4
    protocols = adapted(tmp_path, cell)
    assert protocols is not None
    assert (protocols.paper is not None) == key.startswith(("mmtl", "cnn-lstm-mtl"))
    assert not protocols.calibrated  # one clip of each emotion, which is left to score
    built = ROWS[key].network(TableOptions().of(ROWS[key], 0)[0])
    assert isinstance(built, System) == (key in {"angular", "seqcap", "gap-attention", "self-attention"})
    assert 50_000 < sum(parameter.numel() for parameter in built.parameters()) < 1_000_000


def test_a_finished_cell_is_not_computed_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--rows", "self-attention", "--folds", "s0,s1")
    assert tables(corpus, tmp_path, *asked) == 0
    first = capsys.readouterr().out

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("train.tables.train_cell", refuse)
    assert tables(corpus, tmp_path, *asked) == 0
    assert capsys.readouterr().out == first
    with (tmp_path / "tables.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["system"], row["folds"], row["seeds"]) == ("self-attention", "2", "1")
    assert "| Self Attention | 2 x 1 |" in first
    assert "paper" not in first.split("## Table 2")[1]
    assert "calibrated" not in first.split("## Table 2")[1]


def test_an_interrupted_cell_continues_as_if_it_had_not_been(corpus: Path, tmp_path: Path) -> None:
    folds = dict(leave_one_speaker_out(clips_in(corpus)))
    cell = Cell(ROWS["self-attention"], "s1", 3)
    train_cell(cell, folds["s1"], tmp_path / "whole", OPTIONS, SpectraMemory())

    def stop_after_an_epoch(self: Training) -> Iterator[tuple[float, float | None]]:
        if self.epochs_done == 1:
            raise KeyboardInterrupt
        yield from epoch(self)

    epoch = Training.epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "epoch", stop_after_an_epoch)
        with pytest.raises(KeyboardInterrupt):
            train_cell(cell, folds["s1"], tmp_path / "parts", OPTIONS, SpectraMemory())
    assert finished(tmp_path / "parts", cell) is None
    train_cell(cell, folds["s1"], tmp_path / "parts", OPTIONS, SpectraMemory())
    whole, parts = (cell.folder(tmp_path / name) for name in ("whole", "parts"))
    assert parts.metrics.read_text() == whole.metrics.read_text()
    assert parts.scores.read_text() == whole.scores.read_text()
    assert not parts.state.exists()


def test_two_jobs_give_the_cells_of_one(corpus: Path, tmp_path: Path) -> None:
    from train.console import ConsoleProgress

    folds = dict(leave_one_speaker_out(clips_in(corpus)))
    cells = cells_of([ROWS["self-attention"]], ["s0", "s2"], [0])
    for jobs in (1, 2):
        compute(cells, folds, tmp_path / str(jobs), OPTIONS, ConsoleProgress(), jobs)
    for cell in cells:
        one, two = finished(tmp_path / "1", cell), finished(tmp_path / "2", cell)
        assert one is not None
        assert one == two


def test_a_cell_that_another_command_trains_is_refused(corpus: Path, tmp_path: Path) -> None:
    folds = dict(leave_one_speaker_out(clips_in(corpus)))
    cell = Cell(ROWS["self-attention"], "s0", 0)
    with cell.folder(tmp_path).locked(), pytest.raises(UsageError, match="another run is using"):
        train_cell(cell, folds["s0"], tmp_path, OPTIONS, SpectraMemory())


def test_a_cell_that_another_command_trains_is_left_to_it(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell(ROWS["self-attention"], "s0", 0)
    with cell.folder(tmp_path).locked():
        assert tables(corpus, tmp_path, "--rows", "self-attention", "--folds", "s0,s1") == 0
    shown = capsys.readouterr()
    assert "| Self Attention | 1 x 1 |" in shown.out
    assert "1 cells are being trained by another command" in shown.err
    assert finished(tmp_path, cell) is None


def test_a_finished_cell_without_protocols_gets_them_without_training(tmp_path: Path) -> None:
    clips = clips_in(write_corpus(tmp_path / "corpus", speakers=3, takes=2, seconds=0.6))
    folds = dict(leave_one_speaker_out(clips))
    cell, root = Cell(ROWS["mmtl-va"], "s0", 0), tmp_path / "out"
    train_cell(cell, folds["s0"], root, TableOptions(epochs=1, augment=0.0), SpectraMemory())
    first, kept = adapted(root, cell), cell.folder(root).best.read_bytes()
    assert first is not None
    assert len(first.calibrated) == 5
    assert [draw.shots for draw in first.calibrated] == [4] * 5  # two clips of each, one left to score
    assert all(draw.before.clips == draw.after.clips == 4 for draw in first.calibrated)
    assert first.paper is not None
    assert first.paper.clips == 8
    (cell.folder(root).path / "protocols.json").unlink()
    assert adapted(root, cell) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.tables.Training", None)
        train_cell(cell, folds["s0"], root, TableOptions(epochs=1, augment=0.0), SpectraMemory())
    assert adapted(root, cell) == first
    assert cell.folder(root).best.read_bytes() == kept


def test_a_folder_that_lacks_a_newer_option_has_its_default(corpus: Path, tmp_path: Path) -> None:
    clips = clips_in(corpus)
    claim(tmp_path, OPTIONS, clips, "speaker")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["options"]["double_softmax"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    claim(tmp_path, OPTIONS, clips, "speaker")
    with pytest.raises(UsageError, match="different options"):
        claim(tmp_path, replace(OPTIONS, double_softmax=True), clips, "speaker")


def test_a_new_folder_is_computed_in_the_faster_precision_and_then_stays_with_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.tables.measured_precisions", lambda *_: {"bfloat16": 2.0, "float32": 1.0})
    assert precision_of(tmp_path, OPTIONS, Silent()) == "float32"
    claim(tmp_path, replace(OPTIONS, precision="float32"), clips_in(corpus), "speaker")
    monkeypatch.setattr("train.tables.measured_precisions", lambda *_: {"bfloat16": 1.0, "float32": 2.0})
    assert precision_of(tmp_path, OPTIONS, Silent()) == "float32"
    config = json.loads((tmp_path / "config.json").read_text())
    del config["options"]["precision"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert precision_of(tmp_path, OPTIONS, Silent()) == "bfloat16"


def test_every_deviation_from_the_paper_has_an_option_and_one_option_sets_them_all(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TableOptions] = []

    def record(cells: object, folds: object, root: object, options: TableOptions, *_: object) -> None:
        asked.append(options)

    monkeypatch.setattr("train.tables.compute", record)
    monkeypatch.setattr("train.tables.measured_precisions", lambda *_: {"bfloat16": 2.0, "float32": 1.0})
    of_the_input = ("--paper-layers", "--normalisation", "window", "--zero-padding", "--win-length-ms", "200")
    letter = (
        *of_the_input,
        "--optimiser",
        "adam",
        "--no-clipping",
        "--no-averaging",
        "--schedule",
        "constant",
    )
    assert tables(corpus, tmp_path / "one", *letter) == 0
    assert tables(corpus, tmp_path / "all", "--paper") == 0
    assert tables(corpus, tmp_path / "some", "--paper", "--win-length-ms", "40", "--clipping") == 0
    named, whole, some = asked
    assert named == whole == replace(TableOptions.to_the_letter(), epochs=1)
    assert some == replace(whole, win_length_ms=40, clipping=True)
    assert tables(corpus, tmp_path / "one", "--paper") == 0
    assert tables(corpus, tmp_path / "one") == 2


def test_a_coarser_spectrogram_spans_the_same_band_and_time() -> None:
    fine, coarse = TableOptions(), TableOptions(hop_length_ms=20, bins=100)
    arch, chosen = coarse.of(ROWS["mmtl-va"], 0)
    assert (arch.bins, chosen.draw.window) == (100, 149)
    for options in (fine, coarse):
        front_end = options.front_end
        assert front_end.bins / front_end.n_fft * front_end.sample_rate == 4_000
        assert front_end.samples_in(front_end.window_frames) == pytest.approx(48_000, abs=320)


def test_a_cell_is_trained_by_the_papers_letter(corpus: Path, tmp_path: Path) -> None:
    folds = dict(leave_one_speaker_out(clips_in(corpus)))
    cell = Cell(ROWS["mmtl-vad"], "s0", 0)
    options = replace(TableOptions.to_the_letter(), epochs=1, samples=4)
    arch, chosen = options.of(cell.row, 0)
    assert (arch.time_padding, arch.batch_norm, chosen.draw.window) == ("same", False, 281)
    seen: set[tuple[int, ...]] = set()
    forward = MetaLearner.forward

    def watched(self: MetaLearner, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        assert lengths is not None
        seen.add((frames.shape[1], *lengths.tolist()))
        return forward(self, frames, lengths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetaLearner, "forward", watched)
        train_cell(cell, folds["s0"], tmp_path, options, SpectraMemory())
    assert {length for shape in seen for length in shape} == {300}
    assert finished(tmp_path, cell) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        ("--win-length-ms", "501"),
        ("--optimiser", "sgd"),
        ("--normalisation", "none"),
        ("--schedule", "linear"),
        ("--augment", "2"),
    ],
)
def test_options_out_of_range_are_refused(wrong: tuple[str, str], corpus: Path, tmp_path: Path) -> None:
    assert tables(corpus, tmp_path / "out", *wrong) == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_options_is_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--rows", "self-attention", "--folds", "s0")
    assert tables(corpus, tmp_path, *asked) == 0
    assert tables(corpus, tmp_path, *asked, "--query", "disjoint") == 2
    assert "different options" in capsys.readouterr().err


def test_a_folder_of_other_folds_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_iemocap(tmp_path / "release", sessions=2, takes=1)
    asked = (tmp_path / "release", tmp_path / "out", "--rows", "self-attention", "--folds", "Ses01_M")
    assert tables(*asked) == 0
    assert tables(*asked, "--scheme", "speaker") == 2
    assert "different folds" in capsys.readouterr().err
    assert tables(*asked, "--scheme", "sessions-both") == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--rows", "lstm"), "--rows names 'lstm'"),
        (("--folds", "s9"), "--folds names 's9'"),
        (("--seeds", "one"), "--seeds 'one' is invalid"),
        (("--only", "other"), "--only names 'other'"),
        (("--scheme", "session"), "speakers, but one is to be tested"),
    ],
)
def test_names_that_do_not_exist_are_refused(
    options: tuple[str, str], problem: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables(corpus, tmp_path / "out", *options) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_iemocap_has_a_fold_a_session_and_the_figures_of_the_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_iemocap(tmp_path / "release", sessions=2, takes=1)
    assert tables(tmp_path / "release", tmp_path / "out", "--rows", "cnn-lstm,self-attention") == 0
    shown = capsys.readouterr().out
    assert "| UAR, paper | accuracy, paper |" in shown
    assert "| 56.60 | 65.80 |" in shown
    folders = sorted(path.name for path in (tmp_path / "out" / "cells" / "cnn-lstm").iterdir())
    assert folders == ["Ses01_M", "Ses02_M"]
    assert (tmp_path / "out" / "confusion.png").stat().st_size > 0


def test_a_session_is_tested_by_one_speaker_or_by_both(tmp_path: Path) -> None:
    write_iemocap(tmp_path, sessions=3, takes=1)
    clips = clips_in(tmp_path)
    one, both = dict(leave_one_session_out(clips)), dict(leave_one_session_out(clips, both=True))
    assert list(one) == ["Ses01_M", "Ses02_M", "Ses03_M"]
    assert list(both) == [f"Ses0{session}_{letter}" for session in (1, 2, 3) for letter in "FM"]
    split = both["Ses02_F"]
    assert speakers_of(split.test) == ["Ses02_F"]
    assert speakers_of(split.validation) == ["Ses02_M"]
    assert speakers_of(split.train) == ["Ses01_F", "Ses01_M", "Ses03_F", "Ses03_M"]


def test_a_recording_of_two_speakers_is_refused(tmp_path: Path) -> None:
    clips = clips_in(write_corpus(tmp_path, speakers=3, takes=1, seconds=0.6))
    refuse_shared_recordings(clips)
    clips[-1].path.write_bytes(clips[0].path.read_bytes())
    with pytest.raises(UsageError, match="are the same recording"):
        refuse_shared_recordings(clips)


def test_kept_spectra_are_those_that_are_read(corpus: Path) -> None:
    clips = clips_in(corpus)[:3]
    memory, front_end = SpectraMemory(), FrontEnd()
    memory(clips[:2], front_end, 49)
    again, read = memory(clips, front_end, 49, (0.9,)), read_spectra(clips, front_end, 49, speeds=(0.9,))
    assert [(item.clip, item.speed) for item in again] == [(item.clip, item.speed) for item in read]
    assert all(np.array_equal(one.logs, two.logs) for one, two in zip(again, read, strict=True))
    assert all(one is two for one, two in zip(again, memory(clips, front_end, 49, (0.9,)), strict=True))


def test_a_row_is_the_mean_over_its_cells() -> None:
    row, right = ROWS["cnn-lstm"], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    wrong = [[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    uars = {("a", 0): 1.0, ("a", 1): 0.5, ("b", 0): 0.25, ("b", 1): 0.25}
    found = {
        Cell(row, fold, seed): CellResult(scores_of(uar, right if uar == 1.0 else wrong), SpeakerProtocols())
        for (fold, seed), uar in uars.items()
    }
    (summed,) = row_scores(found)
    assert (summed.folds, summed.seeds) == (2, 2)
    assert summed.uar == pytest.approx(50.0)
    assert summed.uar_deviation == pytest.approx(float(np.std([100, 50, 25, 25], ddof=1)))
    assert summed.interval == pytest.approx((25.0, 75.0))
    assert summed.recalls == (25.0, 100.0, 25.0, 25.0)


def test_protocols_with_adaptation_are_compared_with_none_on_the_same_clips() -> None:
    matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    found = {}
    for fold, gain in (("a", 0.1), ("b", 0.3)):
        draws = tuple(
            CalibrationDraw(8, scores_of(before, matrix), scores_of(before + gain, matrix))
            for before in (0.2, 0.4)
        )
        found[Cell(ROWS["mmtl-va"], fold, 0)] = CellResult(
            scores_of(0.5, matrix), SpeakerProtocols(draws, scores_of(0.25, matrix))
        )
    none, calibrated, paper = row_scores(found)
    assert (none.protocol, calibrated.protocol, paper.protocol) == ("none", "calibrated", "paper")
    assert none.gain is None
    assert calibrated.before == pytest.approx(30.0)
    assert calibrated.uar == pytest.approx(50.0)
    assert calibrated.gain == pytest.approx(20.0)
    assert calibrated.gain_interval == pytest.approx((10.0, 30.0))
    assert paper.before == pytest.approx(50.0)
    assert paper.gain == pytest.approx(-25.0)


def test_heads_on_an_encoder_are_rows_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", speakers=3, takes=2, seconds=0.6)
    encoder = write_encoder(tmp_path / "encoder.safetensors")
    monkeypatch.setattr("train.encoder_cells.HeadOptions", partial(HeadOptions, steps=5))
    asked = ("--rows", "ear-erm,ear-mtl,ear-mmtl,ear-mmtl-paper", "--folds", "s0", "--encoder", encoder)
    assert tables(corpus, tmp_path / "out", *asked) == 0
    shown = capsys.readouterr().out
    section = shown.split("## Heads on a pretrained encoder, without adaptation")[1]
    assert section.count("| 1 x 1 |") == 4 + 4 + 3
    with (tmp_path / "out" / "tables.csv").open(newline="") as file:
        lines = [(row["system"], row["protocol"]) for row in csv.DictReader(file)]
    assert lines[:3] == [("ear-erm", "none"), ("ear-erm", "calibrated"), ("ear-mtl", "none")]
    assert len(lines) == 11

    monkeypatch.setattr("train.tables.train_cell", None)
    assert tables(corpus, tmp_path / "out", *asked) == 0
    other = write_encoder(tmp_path / "other.safetensors", seed=1)
    monkeypatch.undo()
    monkeypatch.setattr("train.encoder_cells.HeadOptions", partial(HeadOptions, steps=5))
    assert tables(corpus, tmp_path / "out", "--rows", "ear-erm", "--folds", "s0", "--encoder", other) == 0
    assert len(list((tmp_path / "out" / "cells").glob("ear-erm-*"))) == 2


def test_a_row_on_an_encoder_needs_one(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables(corpus, tmp_path / "out", "--rows", "cnn-lstm, ear-mtl") == 2
    assert "--rows ear-mtl needs a pretrained encoder: add --encoder FILE" in capsys.readouterr().err
