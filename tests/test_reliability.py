"""The tests that docs/reliability.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEFINED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
}


def rows_in(text: str) -> list[list[str]]:
    """Return the cells of the rows of the first table, without its two lines of header."""
    table = text.partition("\n## ")[0]
    rows = [line.strip().strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return rows[1:]


def missing(cell: str) -> list[str]:
    """List the tests and files of tests that a cell names and that do not exist."""
    names = re.findall(r"`([^`]+)`", cell)
    return [name for name in names if name not in DEFINED and not (ROOT / name).is_file()]


ROWS = rows_in((ROOT / "docs" / "reliability.md").read_text("utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0].strip()}: {row[1][:40]}")
def test_a_row_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 5
    assert "test_" in row[-1]
    assert missing(row[-1]) == []


def test_the_table_covers_every_area() -> None:
    areas = {row[0].strip() for row in ROWS}
    assert areas >= {"privacy", "delay", "losses", "sound files", "raw sound", "outputs", "ends", "server"}


@pytest.mark.parametrize(
    ("cell", "lost"),
    [
        ("`tests/test_gone.py`", ["tests/test_gone.py"]),
        ("`test_gone`, `tests/test_reliability.py`", ["test_gone"]),
        ("`test_a_name_that_is_missing_is_found`", []),
    ],
)
def test_a_name_that_is_missing_is_found(cell: str, lost: list[str]) -> None:
    assert missing(cell) == lost
