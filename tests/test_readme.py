"""README and docs: their Python runs, their commands exist, their scores are the shipped model's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge.model.bundle import read_manifest, shipped_bundle

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
ACCURACY = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
PAGES = [README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = sorted({name for page in PAGES for name in re.findall(r"^\| `mmtl ([a-z-]+)", page, re.MULTILINE)})
PYTHON = [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
MEASURED = read_manifest(shipped_bundle("small")).metrics


def scores_in(text: str) -> dict[str, str]:
    """Find the UAR of each corpus in rows such as `| emodb | 2 | 73 | 83.6 (79.2 to 83.6) | ...`."""
    return dict(re.findall(r"^\| (\w+) \| \d+ \| \d+ \| (\d+\.\d) ", text, re.MULTILINE))


def scores_in_prose(text: str) -> dict[str, str]:
    """Find the UAR of each corpus in a sentence such as `80.0 (emodb, German), 42.4 on emotale`."""
    return {corpus: uar for uar, corpus in re.findall(r"(\d+\.\d)\s+(?:\(|on )(\w+)", text)}


def shots_in(text: str) -> dict[str, list[str]]:
    """Find the UARs of each corpus in rows such as `| emodb (2) | 80.3 to 85.2 | 80.0 to 87.6 | |`."""
    rows = re.findall(r"^\| (\w+) \(\d+\) \|(.*)\|$", text, re.MULTILINE)
    return {corpus: re.findall(r"\d+\.\d to \d+\.\d", cells) for corpus, cells in rows}


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs_and_prints_a_window(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Window(" in done.stdout


def test_the_readme_shows_python_and_commands() -> None:
    assert PYTHON
    assert {"monitor", "run", "train", "export", "build-engine"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_help(command: str) -> None:
    program = [sys.executable, "-c", "from edge.cli.main import main; main()"]
    done = subprocess.run([*program, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_scores_are_those_of_the_shipped_model() -> None:
    measured = {corpus: f"{item['uar']:.1f}" for corpus, item in MEASURED["none"]["corpora"].items()}
    assert scores_in(ACCURACY) == measured
    assert scores_in_prose(README) == measured


def test_the_mean_in_the_readme_is_that_of_the_corpora_learned_from() -> None:
    measured = MEASURED["none"]["corpora"]
    mean = sum(item["uar"] for corpus, item in measured.items() if corpus != "emotale") / (len(measured) - 1)
    assert f"**{mean:.1f} %**" in README


def test_a_wrong_score_would_be_noticed() -> None:
    assert scores_in("| emodb | 2 | 73 | 99.9 (79.2 to 83.6) | 84.9 |") == {"emodb": "99.9"}
    assert scores_in_prose("UAR 99.9\n(emodb, German); 1.0 on emotale") == {"emodb": "99.9", "emotale": "1.0"}


def test_the_gains_of_calibration_are_those_of_the_shipped_model() -> None:
    measured: dict[str, list[str]] = {}
    for item in MEASURED["calibrated"]["shots"]:
        if item["shots"] >= 2:
            measured.setdefault(item["corpus"], []).append(f"{item['before']:.1f} to {item['after']:.1f}")
    assert shots_in(ACCURACY) == measured


def test_a_wrong_gain_would_be_noticed() -> None:
    assert shots_in("| emodb (2) | 80.3 to 99.9 | |") == {"emodb": ["80.3 to 99.9"]}
