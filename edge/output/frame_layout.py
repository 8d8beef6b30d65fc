"""Text elements of terminal frames; the least important lines are dropped if the terminal is small.

Colour only repeats what a letter, a word or a length already shows.
"""

from __future__ import annotations

from typing import Final

from rich.text import Text

FLOOR_DBFS: Final = -60.0
"""The left end of a level meter; the right end is 0."""

HIGH_DBFS: Final = -14.0

GOOD: Final = "#6cc08b"
WARN: Final = "#f5c542"
BAD: Final = "#f0604d"

Row = tuple[int, Text]
"""Rank and line: the higher the rank, the sooner the line is dropped; 0 is kept longest."""


def most_important(rows: list[Row], height: int) -> list[Text]:
    """Return the `height` most important lines, in their order."""
    kept = sorted(range(len(rows)), key=lambda index: (rows[index][0], index))[:height]
    return [rows[index][1] for index in sorted(kept)]


def placed(row: Text, inner: int, width: int) -> Text:
    """Truncate a line to `inner` cells and indent it on a screen of `width`."""
    row.truncate(inner, overflow="ellipsis")
    line = Text("  ", no_wrap=True) + row
    line.truncate(width)
    return line


def bar(share: float, width: int, style: str) -> Text:
    """Draw a share in [0, 1] as a bar, with a resolution of half a cell."""
    width = max(0, width)
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    full = "━" * (halves // 2) + "╸" * (halves % 2)
    return Text.assemble((full, style), ("─" * (width - len(full)), "dim"))


def meter(level_dbfs: float, width: int, clipping_dbfs: float) -> Text:
    """Draw a level in dBFS as a bar; colours mark where it is high and where it clips."""
    drawn = bar(1.0 - level_dbfs / FLOOR_DBFS, width, GOOD)
    filled = len(drawn.plain.rstrip("─"))
    for limit, colour in ((HIGH_DBFS, WARN), (clipping_dbfs, BAD)):
        start = round(len(drawn) * (1.0 - limit / FLOOR_DBFS))
        drawn.stylize(colour, start, max(start, filled))
    return drawn


def flow(items: list[Text], width: int) -> list[Text]:
    """Wrap items into lines of at most `width` cells."""
    rows: list[Text] = []
    for item in items:
        if rows and rows[-1].cell_len + 3 + item.cell_len <= width:
            rows[-1] = rows[-1] + Text("   ") + item
        else:
            rows.append(item)
    return rows


def ends(left: Text, right: Text, width: int) -> Text:
    """Align one text left and one right on a line."""
    return Text.assemble(left, " " * max(1, width - left.cell_len - right.cell_len), right)
