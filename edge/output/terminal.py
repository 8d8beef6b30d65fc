"""Pieces of text that frames on a terminal are made of; what matters least goes where room is short.

Colour repeats what a letter, a word or a length already says.
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
"""For terminals whose encoding is not Unicode."""

Row = tuple[int, Text]
"""How dispensable a line is, 0 for not at all, and the line."""


def most_important(rows: list[Row], height: int) -> list[Text]:
    """Keep so many lines, in their order."""
    kept = sorted(range(len(rows)), key=lambda index: (rows[index][0], index))[:height]
    return [rows[index][1] for index in sorted(kept)]


def placed(row: Text, inner: int, width: int) -> Text:
    """Cut a line to `inner` cells and put it into a screen of `width`."""
    row.truncate(inner, overflow="ellipsis")
    line = Text("  ", no_wrap=True) + row
    line.truncate(width)
    return line


def bar(share: float, width: int, style: str) -> Text:
    """Draw a share of [0, 1] as a bar, to half a cell."""
    width = max(0, width)
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    full = "━" * (halves // 2) + "╸" * (halves % 2)
    return Text.assemble((full, style), ("─" * (width - len(full)), "dim"))


def meter(level_dbfs: float, width: int, clipping_dbfs: float) -> Text:
    """Draw a level in dBFS as a bar that says where it becomes high and where it is cut off."""
    drawn = bar(1.0 - level_dbfs / FLOOR_DBFS, width, GOOD)
    filled = len(drawn.plain.rstrip("─"))
    for limit, colour in ((HIGH_DBFS, WARN), (clipping_dbfs, BAD)):
        start = round(len(drawn) * (1.0 - limit / FLOOR_DBFS))
        drawn.stylize(colour, start, max(start, filled))
    return drawn


def flow(items: list[Text], width: int) -> list[Text]:
    """Fill lines with items, as many in each as it holds."""
    rows: list[Text] = []
    for item in items:
        if rows and rows[-1].cell_len + 3 + item.cell_len <= width:
            rows[-1] = rows[-1] + Text("   ") + item
        else:
            rows.append(item)
    return rows


def ends(left: Text, right: Text, width: int) -> Text:
    """Put one text at the left end of a line and one at the right."""
    return Text.assemble(left, " " * max(1, width - left.cell_len - right.cell_len), right)


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that writes text as it is: names of files and devices may look like markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def can_redraw(console: Console) -> bool:
    """Tell whether a console is a terminal on which what was drawn can be drawn over."""
    has_a_type = os.name == "nt" or bool(os.environ.get("TERM"))
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and has_a_type


def encodable(drawn: Text, console: Console) -> Text:
    """Spell a frame with what the console's encoding has."""
    encoding = console.encoding
    if not encoding.startswith("utf"):
        drawn.plain = drawn.plain.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return drawn
