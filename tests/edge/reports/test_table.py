from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edge.reports.results import COLUMNS, FileResult, Span
from edge.reports.table import write_table

SPAN = Span(0.5, 2.5, "happy", {"neutral": 0.1, "happy": 0.8, "sad": 0.05, "angry": 0.05}, 4)
ROWS = [
    *FileResult(3.0, 2.0, (SPAN,), engine="cpu", bundle="small").rows('a "quoted", name\n.wav', "Zoë"),
    *FileResult(problem="not sound").rows("b.wav"),
]


def test_csv_has_a_row_an_utterance(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ROWS, "csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    assert (first["file"], first["speaker"], first["happy"]) == ('a "quoted", name\n.wav', "Zoë", "0.8")
    assert (second["label"], second["happy"], second["problem"]) == ("", "", "not sound")


def test_parquet_has_the_same_rows_with_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    write_table(tmp_path / "t.parquet", ROWS, "parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.to_pylist() == [row.cells() for row in ROWS]
    assert {str(table.schema.field(name).type) for name in ("happy", "start_s")} == {"double"}
