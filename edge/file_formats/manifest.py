"""Manifests: CSV files that list recordings, one per row, with their labels.

They are written by hand and by spreadsheets, so every unambiguous variant is accepted.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from unicodedata import normalize

from edge.errors import UsageError
from edge.labels import SCALE
from edge.system.files import is_file, read_text

SEPARATORS: Final = ",;\t"
"""Between cells; the header shows which one is used. Spreadsheets write semicolons where the comma is the
decimal separator."""
_SEPARATOR_LINE: Final = re.compile(r'"?sep=.?"?', re.IGNORECASE)
"""A line that spreadsheets may write above the header."""
_SPACE_AFTER_QUOTE: Final = re.compile(rf'" +(?=[{SEPARATORS}\n]|\Z)')
_OF_WINDOWS: Final = re.compile(r"(^|/)([A-Za-z]:[\\/]|\\\\)")
"""Start of a path with a drive letter or on a network share."""


def manifest_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the cells by column of each row that is not empty.

    Column names are in lower case, cells are stripped of spaces, and text except paths is in Unicode NFC.

    Args:
        path: a CSV file with a header, in UTF-8 or with a byte order mark.
        required: columns that must exist, without empty cells.

    Raises:
        UsageError: the file is missing or not CSV, or a required column or cell is missing.
    """
    text = _SPACE_AFTER_QUOTE.sub('"', _text(path, required))
    columns: list[str] = []
    read = 0
    separator = _separator(text, required)
    # Strict: a quote left open would otherwise swallow the rows below it.
    rows = csv.reader(
        io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        for line in rows:
            read = rows.line_num
            cells = [cell.strip() for cell in line]
            if not any(cells) or (not columns and _SEPARATOR_LINE.fullmatch("".join(cells))):
                continue
            if columns:
                yield read, _row(columns, cells, required, f"{path}, line {read}")
            else:
                columns = [cell.lower() for cell in cells]
                _check_columns(columns, f"{path}, line {read}", required)
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {read + 1}: not a CSV row ({error})", remedy="check its double quotes"
        ) from error
    if not columns:
        _check_columns(columns, f"{path}, line 1", required)


def parse_rating(row: Mapping[str, str], name: str, where: str) -> float | None:
    """Parse a rating in [1, 5], with a decimal point or comma; None if the column or value is missing.

    Raises:
        UsageError: it is not such a number.
    """
    cell = row.get(name, "")
    if not cell:
        return None
    low, high = SCALE
    try:
        rating = float(cell.replace(",", "."))
    except ValueError:
        rating = float("nan")
    if not low <= rating <= high:
        raise UsageError(
            f"{where}: {name} is {cell!r}",
            remedy=f"give a number from {low:g} to {high:g}, or leave it empty",
        )
    return rating


def parse_emotion(row: Mapping[str, str], known: Collection[str], where: str) -> str:
    """Parse an emotion, in upper or lower case.

    Raises:
        UsageError: the emotion is unknown.
    """
    emotion = row["emotion"].lower()
    if emotion not in known:
        raise UsageError(
            f"{where}: unknown emotion {row['emotion']!r}", remedy=f"use one of {', '.join(known)}"
        )
    return emotion


def recording_path(row: Mapping[str, str], folder: Path) -> Path:
    """Return the path of a row's recording, in the manifest's folder; as written if no such file exists.

    Windows separators, and another Unicode form than that of the file's name, are accepted.
    """
    written = row["path"]
    for name in dict.fromkeys((written, written.replace("\\", "/"))):
        for spelt in dict.fromkeys((name, normalize("NFC", name), normalize("NFD", name))):
            if is_file(folder / spelt):
                return folder / spelt
    return folder / written


def missing_remedy(recording: Path) -> str:
    """Return what to do about a recording that does not exist."""
    if _OF_WINDOWS.search(str(recording)):
        return "that is a Windows path: write paths relative to the manifest's folder"
    return "paths are relative to the manifest's folder"


def _text(path: Path, required: Sequence[str]) -> str:
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no manifest {path}", remedy=f"write one with the columns {', '.join(required)}"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror})", remedy="name a manifest .csv file"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _no_utf8(path, line) from error
    if "\0" in text:  # UTF-16 without its mark
        raise _no_utf8(path, text.count("\n", 0, text.index("\0")) + 1)
    return text


def _no_utf8(path: Path, line: int) -> UsageError:
    return UsageError(
        f"{path}, line {line}: not UTF-8 text",
        remedy='save the manifest as CSV in UTF-8 (a spreadsheet\'s "CSV UTF-8")',
    )


def _separator(text: str, required: Sequence[str]) -> str:
    """Return the separator that yields most of the required columns in the header."""
    lines = (line for line in io.StringIO(text, newline=None) if line.strip())
    header = next((line for line in lines if not _SEPARATOR_LINE.fullmatch(line.strip())), "")

    def found(separator: str) -> int:
        cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        return len(set(required) & {cell.strip().lower() for cell in cells})

    return max(SEPARATORS, key=found)


def _row(columns: Sequence[str], cells: list[str], required: Sequence[str], where: str) -> dict[str, str]:
    if any(cells[len(columns) :]):
        raise UsageError(
            f"{where}: more cells than the header has columns",
            remedy="put texts that hold a comma in double quotes",
        )
    cells = cells[: len(columns)] + [""] * (len(columns) - len(cells))
    row = {
        name: cell if name == "path" else normalize("NFC", cell)
        for name, cell in zip(columns, cells, strict=True)
    }
    empty = [name for name in required if not row[name]]
    if empty:
        raise UsageError(f"{where}: no {' and no '.join(empty)}", remedy="fill the cell or remove the row")
    return row


def _check_columns(columns: Sequence[str], where: str, required: Sequence[str]) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        found = ", ".join(filter(None, columns)) or "nothing"
        raise UsageError(
            f"{where}: no column {' or '.join(missing)}; the header has {found}",
            remedy=f"name the columns {', '.join(required)}, separated by commas",
        )
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise UsageError(
            f"{where}: more than one column {' and '.join(twice)}", remedy="keep the one that counts"
        )
