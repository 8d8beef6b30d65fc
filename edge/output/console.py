"""What the console can show: whether it can be redrawn, and which characters its encoding has."""

from __future__ import annotations

import os
from typing import Final

from rich.console import Console
from rich.text import Text

ASCII: Final = str.maketrans("━╸─╵●○·…█▀▄", '#|-|*o.~#"_')
"""Replacements for terminals whose encoding is not Unicode."""


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
