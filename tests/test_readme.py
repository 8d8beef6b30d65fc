"""README and docs: their Python runs, their commands exist, their scores are the shipped model's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.model.bundle import shipped_bundle
from edge.model.manifest import read_manifest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
ACCURACY = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
DEFAULT_PART, SMALL_PART, CALIBRATED_PART = re.split(r"^##+ The small model.*$", ACCURACY, flags=re.MULTILINE)
PAGES = [README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = sorted({name for page in PAGES for name in re.findall(r"^\| `mmtl ([a-z-]+)", page, re.MULTILINE)})
PYTHON = [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
DEFAULT = read_manifest(shipped_bundle("default")).metrics
SMALL = read_manifest(shipped_bundle("small")).metrics
HELD_OUT = ("none", "running", "ordinary")
PROTOCOLS = (*HELD_OUT, "labelled")


def scores_in_prose(text: str) -> dict[str, str]:
    """Find the UAR of each corpus in a sentence such as `93.0 (emodb, German), 78.0 (ravdess, English)`."""
    return {corpus: uar for uar, corpus in re.findall(r"(\d+\.\d)\s+\((\w+)", text)}


def protocols_in(text: str) -> dict[str, list[str]]:
    """Find the UARs of each corpus in rows such as `| emodb (8 speakers) | 93.0 (89.5 to 96.2) | ... |`."""
    rows = re.findall(r"^\| (\w+) \(\d+(?: speakers)?\) \|(.*)\|$", text, re.MULTILINE)
    return {corpus: re.findall(r"(\d+\.\d) \(", cells) for corpus, cells in rows}


def shots_in(text: str) -> dict[str, list[str]]:
    """Find the UARs of each corpus in rows such as `| emodb (2) | 80.3 to 85.2 | 80.0 to 87.6 | |`."""
    rows = re.findall(r"^\| (\w+) \(\d+\) \|(.*)\|$", text, re.MULTILINE)
    return {corpus: re.findall(r"\d+\.\d to \d+\.\d", cells) for corpus, cells in rows}


def held_out(metrics: dict[str, Any]) -> dict[str, list[str]]:
    """Return the cross-fitted UARs of each corpus, by protocol, as they are printed."""
    fitted = metrics["cross_fitted"]
    return {
        corpus: [f"{fitted[name]['corpora'][corpus]['uar']:.1f}" for name in HELD_OUT]
        for corpus in fitted["none"]["corpora"]
    }


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


@pytest.mark.parametrize(("metrics", "part"), [(DEFAULT, DEFAULT_PART), (SMALL, SMALL_PART)])
def test_the_scores_are_those_of_the_shipped_models(metrics: dict[str, Any], part: str) -> None:
    assert protocols_in(part) == held_out(metrics)
    for name in PROTOCOLS:
        uar = f"{metrics[name]['corpora']['emotale']['uar']:.1f}"
        assert re.search(rf"^\| `{name}`[^|]*\| {uar} \(", part, re.MULTILINE)


def test_the_scores_in_the_readme_are_those_of_the_default_model() -> None:
    unheard = {name: f"{DEFAULT[name]['corpora']['emotale']['uar']:.1f}" for name in PROTOCOLS}
    assert scores_in_prose(README) == {corpus: uars[0] for corpus, uars in held_out(DEFAULT).items()}
    assert f"**{DEFAULT['cross_fitted']['none']['mean_uar']:.1f} %**" in README
    assert f"**{unheard['none']} %, {unheard['labelled']} %**" in README


def test_a_wrong_score_would_be_noticed() -> None:
    assert scores_in_prose("UAR 99.9\n(emodb, German); 1.0 (nemo)") == {"emodb": "99.9", "nemo": "1.0"}
    assert protocols_in("| emodb (8 speakers) | 99.9 (89.5 to 96.2) |") == {"emodb": ["99.9"]}


def test_the_gains_of_calibration_are_those_of_the_shipped_model() -> None:
    measured: dict[str, list[str]] = {}
    for item in SMALL["calibrated"]["shots"]:
        if item["shots"] >= 2:
            measured.setdefault(item["corpus"], []).append(f"{item['before']:.1f} to {item['after']:.1f}")
    assert shots_in(CALIBRATED_PART) == measured


def test_a_wrong_gain_would_be_noticed() -> None:
    assert shots_in("| emodb (2) | 80.3 to 99.9 | |") == {"emodb": ["80.3 to 99.9"]}
