"""Events, lines and exit codes for a file that is shorter than it states."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[3]
PROGRAM = "from edge.cli.main import main; main()"


def mmtl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV file of 8 s, half of which never reached the disk."""
    path = tmp_path_factory.mktemp("cut") / "cut.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 128_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLAC file of 8 s, cut off in its middle."""
    path = tmp_path_factory.mktemp("damaged") / "damaged.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 128_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_file_cut_off_is_a_warning_and_a_loss_in_the_summary(cut: Path) -> None:
    done = mmtl("run", cut, "--provider", "cpu", "--jsonl", "-")
    assert done.returncode == 0
    warning, summary = (
        next(event for event in events(done) if event["type"] == kind) for kind in ("warning", "summary")
    )
    assert warning["what"] == "length"
    assert warning["message"].startswith("4.00 s of the file are missing")
    assert summary["dropped"] == 1
    assert summary["duration_s"] == pytest.approx(4.0, abs=0.01)


def test_a_loss_in_a_file_is_an_error_for_who_is_strict(cut: Path) -> None:
    done = mmtl("run", cut, "--provider", "cpu", "--strict")
    assert done.returncode == 6
    assert "4.00 s of sound" in done.stderr


def test_a_command_that_reads_clips_warns_in_one_line(cut: Path) -> None:
    done = mmtl("verify", "default", cut)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"mmtl: warning: {cut}: 4.00 s of the file are missing")


def test_a_damaged_file_is_heard_and_then_ends_with_exit_code_3(damaged: Path) -> None:
    done = mmtl("run", damaged, "--provider", "cpu", "--jsonl", "-")
    assert done.returncode == 3
    said = events(done)
    warning = next(event for event in said if event["type"] == "warning")
    assert said[-1]["type"] == "summary"
    assert said[-1]["dropped"] == 1
    heard_s = said[-1]["duration_s"]
    assert 3.0 < heard_s < 5.0
    assert float(warning["message"].split()[0]) == pytest.approx(8.0 - heard_s, abs=0.02)
    assert f"damaged or cut off after {heard_s:.2f} s" in done.stderr
    assert len(done.stderr.splitlines()) == 2, "the warning, and the error"


def test_no_clip_is_made_of_a_damaged_file(damaged: Path) -> None:
    done = mmtl("verify", "default", damaged)
    assert done.returncode == 3
    assert "cannot be read: copy or convert it again" in done.stderr
