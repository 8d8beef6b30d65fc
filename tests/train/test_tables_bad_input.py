"""`mmtl tables` with recordings that do not suffice, and what is kept when it ends before its time."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import exit_code_of
from tests.train.synthetic import write_corpus, write_iemocap
from train.tables import train_cell

ASKED = ("--rows", "self-attention", "--epochs", "1", "--augment", "0")


def tables(corpus: Path, out: Path, *options: str) -> int:
    return exit_code_of("tables", corpus, "--out", out, *ASKED, *options)


def change_manifest(corpus: Path, changed: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    with (corpus / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = changed(list(csv.DictReader(file)))
    with (corpus / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", speakers=3, takes=1, seconds=0.6)


def test_fewer_speakers_than_sides_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "corpus", speakers=2, takes=1, seconds=0.6)
    assert tables(corpus, tmp_path / "out") == 2
    assert "2 speakers only, but a split by speaker needs at least 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_single_session_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_iemocap(tmp_path / "release", sessions=1, takes=1)
    assert tables(tmp_path / "release", tmp_path / "out") == 2
    assert "all 2 speakers are on the validation or test side: leave some for training" in (
        capsys.readouterr().err
    )


def test_a_speaker_without_an_emotion_is_scored_on_the_others_and_named(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row for row in rows if row["speaker"] != "s0" or row["emotion"] not in ("angry", "sad")]

    change_manifest(corpus, without)
    assert tables(corpus, tmp_path / "out", "--folds", "s0") == 0
    shown = capsys.readouterr().out
    assert "Speakers without clips of an emotion: s0 (sad, angry)." in shown
    (scores,) = (tmp_path / "out").rglob("scores.json")
    assert json.loads(scores.read_text())["test"]["clips"] == 2
    with (tmp_path / "out" / "tables.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["recall_sad"], row["recall_angry"]) == ("", "")


def test_missing_ratings_are_filled_and_counted(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rated(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        ratings = {"valence": "2.5", "arousal": "3.5", "dominance": "4.0"}
        rows = [{**row, **ratings} for row in rows]
        rows[0]["arousal"] = rows[5]["dominance"] = ""
        return rows

    change_manifest(corpus, rated)
    assert tables(corpus, tmp_path / "out", "--folds", "s0") == 0
    assert "are the annotators', with gaps in 2 clips filled by values derived from" in (
        capsys.readouterr().out
    )


def ended(
    corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> tuple[int, list[str]]:
    """End the second of three cells, and return the exit code and the cells that are finished."""
    trained: list[str] = []

    def interrupted(*arguments: Any) -> None:
        if len(trained) == 1:
            raise end
        train_cell(*arguments)
        trained.append(arguments[0].fold)

    with monkeypatch.context() as patch:
        patch.setattr("train.tables.train_cell", interrupted)
        code = tables(corpus, out)
    return code, sorted(path.parents[1].name for path in out.rglob("scores.json"))


def finish(corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the command again, and return the folds that it trained."""
    trained: list[str] = []

    def counted(*arguments: Any) -> None:
        trained.append(arguments[0].fold)
        train_cell(*arguments)

    monkeypatch.setattr("train.tables.train_cell", counted)
    assert tables(corpus, out) == 0
    return trained


def test_ctrl_c_writes_the_table_of_what_is_finished(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _, kept = ended(corpus, out, monkeypatch, KeyboardInterrupt())
    assert kept == ["s0"]
    assert "| Self Attention | 1 x 1 |" in (out / "tables.md").read_text()
    assert finish(corpus, out, monkeypatch) == ["s1", "s2"]
    assert "| Self Attention | 3 x 1 |" in (out / "tables.md").read_text()


def test_a_full_disk_is_one_line_and_loses_no_finished_cell(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, full = tmp_path / "out", OSError(errno.ENOSPC, "No space left on device")

    def fill(*arguments: Any, **options: Any) -> Any:
        raise full

    code, kept = ended(corpus, out, monkeypatch, full)
    assert code != 0
    assert kept == ["s0"]
    said = capsys.readouterr().err.splitlines()  # the precision that was measured, and the error
    assert len([line for line in said if "float" not in line]) == 1
    with monkeypatch.context() as patch:
        patch.setattr("train.tables.save_file", fill)
        assert tables(corpus, out) == 2
    message = capsys.readouterr().err
    assert "best.safetensors" in message
    assert "No space left" in message
    assert finish(corpus, out, monkeypatch) == ["s1", "s2"]
