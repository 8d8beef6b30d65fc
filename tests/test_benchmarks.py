"""The benchmarks that README and docs name exist, with their options; without recordings they step aside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = sorted(
    {
        named
        for page in PAGES
        for named in re.findall(r"`python (benchmarks/\w+\.py)([^`]*)`", page.read_text("utf-8"))
    }
)


def test_the_pages_name_benchmarks() -> None:
    assert ("benchmarks/soak.py", " --hours 24") in NAMED


@pytest.mark.parametrize(("script", "arguments"), NAMED)
def test_a_benchmark_in_a_page_exists_and_knows_its_options(script: str, arguments: str) -> None:
    text = (ROOT / script).read_text("utf-8")
    assert f"python {script}" in text
    for option in re.findall(r"--[a-z-]+", arguments):
        assert f'add_argument("{option}"' in text


@pytest.mark.parametrize(
    "script", ["decisions.py", "drift.py", "offset_and_hum.py", "pauses.py", "voice_activity.py"]
)
def test_a_benchmark_without_its_recordings_says_so_and_is_no_failure(tmp_path: Path, script: str) -> None:
    if script == "voice_activity.py":
        pytest.importorskip("webrtcvad", reason="webrtcvad-wheels is not installed")
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script],
        env={**os.environ, "MMTL_DATA": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"skipped: no recordings in {tmp_path}: set MMTL_DATA, or give --data FOLDER\n"
