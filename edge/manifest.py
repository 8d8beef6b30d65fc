"""Manifests: CSV files that list recordings, one a row, with what is known of each."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge.errors import UsageError
from edge.labels import SCALE


def manifest_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the cells by column of each row.

    Args:
        path: a CSV file in UTF-8 with a header.
        required: columns that must be there, with something in each cell.

    Raises:
        UsageError: the file is missing, is not such a file, or a required column or cell is missing.
    """
    # Strict: a quote left open would otherwise swallow the rows below it.
    reader = csv.DictReader(io.StringIO(_text(path, required)), restkey="", restval="", strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        _check_columns(columns, path, required)
        _check_twice(columns, path)
        reader.fieldnames = columns
        for row in reader:
            if isinstance(row.get(""), list):
                raise UsageError(
                    f"{path}, line {reader.line_num}: more cells than the header has columns: "
                    "put texts that hold a comma in double quotes"
                )
            cells = {name: cell.strip() for name, cell in row.items()}
            _check_cells(cells, required, f"{path}, line {reader.line_num}")
            yield reader.line_num, cells
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num + 1}: not a CSV row ({error}): check its double quotes"
        ) from error


def rating_in(row: Mapping[str, str], name: str, where: str) -> float | None:
    """Read a rating in [1, 5]; None where the column or the cell is empty.

    Raises:
        UsageError: it is something else.
    """
    cell = row.get(name, "")
    if not cell:
        return None
    low, high = SCALE
    try:
        rating = float(cell)
    except ValueError:
        rating = float("nan")
    if not low <= rating <= high:
        raise UsageError(
            f"{where}: {name} is {cell!r}: give a number from {low:g} to {high:g}, or leave it empty"
        )
    return rating


def _text(path: Path, required: Sequence[str]) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no manifest {path}: write one with the columns {', '.join(required)}"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}: name a manifest .csv file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text: save the manifest as CSV in UTF-8") from error


def _check_columns(columns: list[str], path: Path, required: Sequence[str]) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        found = ", ".join(columns) or "nothing"
        raise UsageError(
            f"{path}, line 1: no column {' or '.join(missing)}; the header has {found}: "
            f"name the columns {', '.join(required)}, separated by commas"
        )


def _check_twice(columns: list[str], path: Path) -> None:
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise UsageError(
            f"{path}, line 1: more than one column {' and '.join(twice)}: keep the one that counts"
        )


def _check_cells(row: Mapping[str, str], required: Sequence[str], where: str) -> None:
    empty = [name for name in required if not row[name]]
    if empty:
        raise UsageError(f"{where}: no {' and no '.join(empty)}: fill the cell or remove the row")
