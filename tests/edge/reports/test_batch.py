from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import demo_clip, recognize_file
from edge.errors import MmtlError
from edge.reports import batch, journal
from edge.reports.file_recognition import RecognitionJob
from edge.reports.journal import JOURNAL
from tests.command_line import exit_code_of


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name in ("anna/one.flac", "ben/two.flac"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True)
        shutil.copy(demo_clip(), path)
    return tmp_path / "clips"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "utterances.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(clips: Path, out: Path, *more: object) -> int:
    return exit_code_of("run", clips, "--out", out, "--bundle", "small", "--workers", 1, *more)


def refuse_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(paths: list[str], *rest: object, **options: object) -> Iterator[object]:
        if paths:
            raise MmtlError(f"recognises {len(paths)}")
        yield from ()

    monkeypatch.setattr(batch, "recognize_side_by_side", refuse)


def test_one_unreadable_recording_is_a_row_and_the_rest_is_done(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "ben" / "broken.wav").write_bytes(b"not sound")
    assert run(clips, tmp_path / "out") == 3
    assert "1 of 3 recordings could not be recognised (broken.wav)" in capsys.readouterr().err
    rows = rows_of(tmp_path / "out")
    assert [(Path(row["file"]).name, row["speaker"], bool(row["problem"])) for row in rows] == [
        *(("one.flac", "anna", False), ("broken.wav", "ben", True), ("two.flac", "ben", False)),
    ]
    alone = recognize_file(clips / "anna" / "one.flac", "small", speaker="anna")
    assert [
        {name: str("" if cell is None else cell) for name, cell in row.cells().items()} for row in alone
    ] == rows[:1]
    assert '"broken.wav"' not in (tmp_path / "out" / "report.html").read_text("utf-8")[:3000]
    assert "broken.wav" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_second_run_computes_only_what_has_changed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(clips, out) == 0
    rows = rows_of(out)
    with (out / JOURNAL).open("a") as file:
        file.write('{"v":1,"job":"cut of')
    refuse_work(monkeypatch)
    assert run(clips, out) == 0
    assert rows_of(out) == rows
    capsys.readouterr()
    for more, count in (("--step-ms=480", 2), ("--channel=0", 2), ("--replace", 2)):
        assert run(clips, out, more) == 1
        assert f"recognises {count}" in capsys.readouterr().err
    os.utime(clips / "ben" / "two.flac", ns=(1, 1))
    assert run(clips, out, "--step-ms=240") == 1
    assert "recognises" in capsys.readouterr().err


def test_results_of_another_model_do_not_count(clips: Path) -> None:
    jobs = [RecognitionJob(bundle=name) for name in ("small", "default")]
    assert len({journal.fingerprint_of(job) for job in jobs}) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_done(clips: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    for copy in range(40):
        shutil.copy(demo_clip(), clips / f"{copy}.flac")
    command = [sys.executable, "-c", "from edge.cli.main import main; main()", "run", str(clips)]
    command += ["--out", str(out), "--workers", "1", "--bundle", "small"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        end_s = time.monotonic() + 60
        while time.monotonic() < end_s and not ((out / JOURNAL).is_file() and (out / JOURNAL).stat().st_size):
            time.sleep(0.05)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (0 if number == signal.SIGINT else 1)
    assert "Traceback" not in said
    assert "run the same command again to go on" in said
    rows = rows_of(out)
    assert 0 < len(rows) < 42
    assert {row["problem"] for row in rows} == {""}
    assert "report.html" in {path.name for path in out.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--jsonl", "-"), "--jsonl cannot be given with --out"),
        (("--paced",), "--paced cannot be given with --out"),
        (("--table", "xls"), "unknown format 'xls'"),
        (("--bundle", "nowhere"), "is not a bundle"),
        (("--step-ms", "70"), "step"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert exit_code_of("run", clips, "--out", tmp_path / "out", *arguments) in {2, 4}
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clips, clips) == 2
    assert "holds other files" in capsys.readouterr().err


def test_several_sources_need_a_folder(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of("run", clips, clips) == 2
    assert "add --out" in capsys.readouterr().err
    assert exit_code_of("run", clips, "--embed") == 2
    assert "--embed was given without --out" in capsys.readouterr().err
