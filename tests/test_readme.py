"""What the README shows is so: its Python runs, its commands exist, its scores are the shipped model's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge.model.bundle import default_bundle, read_manifest

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
COMMANDS = sorted(set(re.findall(r"^\| `mmtl ([a-z-]+)", README, re.MULTILINE)))
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def scores_in(text: str) -> dict[str, str]:
    """Find the UAR of each corpus in rows such as `| emodb | 2 | 73 | 83.6 (79.2 to 83.6) | ...`."""
    return dict(re.findall(r"^\| (\w+) \| \d+ \| \d+ \| (\d+\.\d) ", text, re.MULTILINE))


def shots_in(text: str) -> dict[str, list[str]]:
    """Find the UARs of each corpus in rows such as `| emodb (2) | 80.3 to 85.2 | 80.0 to 87.6 | |`."""
    rows = re.findall(r"^\| (\w+) \(\d+\) \|(.*)\|$", text, re.MULTILINE)
    return {corpus: re.findall(r"\d+\.\d to \d+\.\d", cells) for corpus, cells in rows}


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_readme_runs_and_prints_a_window(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Window(" in done.stdout


def test_the_readme_shows_python_and_commands() -> None:
    assert PYTHON
    assert {"monitor", "run", "train", "export", "build-engine"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_readme_has_help(command: str) -> None:
    program = [sys.executable, "-c", "from edge.cli.main import main; main()"]
    done = subprocess.run([*program, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_scores_in_the_readme_are_those_of_the_shipped_model() -> None:
    manifest = read_manifest(default_bundle())
    measured = manifest.metrics["none"]["corpora"]
    assert scores_in(README) == {corpus: f"{item['uar']:.1f}" for corpus, item in measured.items()}


def test_a_wrong_score_would_be_noticed() -> None:
    assert scores_in("| emodb | 2 | 73 | 99.9 (79.2 to 83.6) | 84.9 |") == {"emodb": "99.9"}


def test_the_gains_of_calibration_in_the_readme_are_those_of_the_shipped_model() -> None:
    measured: dict[str, list[str]] = {}
    for item in read_manifest(default_bundle()).metrics["calibrated"]["shots"]:
        if item["shots"] >= 2:
            measured.setdefault(item["corpus"], []).append(f"{item['before']:.1f} to {item['after']:.1f}")
    assert shots_in(README) == measured


def test_a_wrong_gain_would_be_noticed() -> None:
    assert shots_in("| emodb (2) | 80.3 to 99.9 | |") == {"emodb": ["80.3 to 99.9"]}
