"""Text elements of terminal frames; the least important lines are dropped if the terminal is small.

Colour only repeats what a letter, a word or a length already shows.
"""

from __future__ import annotations

import os
from typing import Final

from rich.console import Console
from rich.text import Text

FLOOR_DBFS: Final = -60.0
"""The left end of a level meter; the right end is 0."""

HIGH_DBFS: Final = -14.0

GOOD: Final = "#6cc08b"
WARN: Final = "#f5c542"
BAD: Final = "#f0604d"

ASCII: Final = str.maketrans("━╸─╵●○·…█▀▄", '#|-|*o.~#"_')
"""Replacements for terminals whose encoding is not Unicode."""

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


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that interprets no markup, which names of files and devices may contain."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def can_redraw(console: Console) -> bool:
    """Tell whether a console is a terminal that can be redrawn."""
    has_a_type = os.name == "nt" or bool(os.environ.get("TERM"))
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and has_a_type


def encodable(drawn: Text, console: Console) -> Text:
    """Replace the characters of a frame that the console's encoding lacks."""
    encoding = console.encoding
    if not encoding.startswith("utf"):
        drawn.plain = drawn.plain.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return drawn
