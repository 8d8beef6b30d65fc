"""A row an utterance, as CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, get_args

from edge.errors import UsageError
from edge.reports.results import COLUMNS, TEXT_COLUMNS, UtteranceRow
from edge.system.files import PRIVATE, atomic_write

TableFormat = Literal["csv", "parquet"]
FORMATS: Final[tuple[TableFormat, ...]] = get_args(TableFormat)


def table_path(folder: Path, form: TableFormat) -> Path:
    """Return where the table of a report is."""
    return folder / f"utterances.{form}"


def require_table_format(form: str) -> TableFormat:
    """Check that a table of a format can be written here.

    Raises:
        UsageError: the format is unknown.
        ModuleNotFoundError: pyarrow is not installed.
    """
    for known in FORMATS:
        if form == known:
            if known == "parquet":
                import pyarrow  # noqa: F401 - or it is missing
            return known
    raise UsageError(f"unknown format {form!r}", remedy=f"choose {' or '.join(FORMATS)}")


def write_table(path: Path, rows: Iterable[UtteranceRow], form: TableFormat) -> None:
    """Write the table atomically, readable by its owner only.

    Raises:
        UsageError: it cannot be written.
    """
    with atomic_write(path, PRIVATE) as partial:
        if form == "parquet":
            _write_parquet(partial, rows)
        else:
            _write_csv(partial, rows)


def _write_csv(path: Path, rows: Iterable[UtteranceRow]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.cells() for row in rows)


def _write_parquet(path: Path, rows: Iterable[UtteranceRow]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {name: pyarrow.string() if name in TEXT_COLUMNS else pyarrow.float64() for name in COLUMNS}
    schema = pyarrow.schema({**kinds, "windows": pyarrow.int64()})
    parquet.write_table(pyarrow.Table.from_pylist([row.cells() for row in rows], schema=schema), path)
