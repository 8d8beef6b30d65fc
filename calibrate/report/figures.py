"""Matplotlib figures: matplotlib is imported on use and writes nothing to the user's home."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK: Final = "#22313f"
"""Text and axes."""
FAINT: Final = "#8a97a3"
"""Lines that matter less than the data."""
ACCENT: Final = "#1f6f8b"
"""The result that a figure is about."""
DOTS_PER_INCH: Final = 150


def blank_figure(width: float, height: float, *, layout: Literal["constrained"] | None = None) -> Figure:
    """Make an empty figure without pyplot, which would keep a reference and may need a display.

    Args:
        width: in inches.
        height: in inches.
        layout: matplotlib's, if any.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    with _temporary_caches():
        import matplotlib  # noqa: F401 - the name in the error if it is missing
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def drawable(text: str) -> tuple[str, list[str]]:
    """Return a bold text that can be drawn here, and the font families for it.

    Installed fonts are added for characters that the default font lacks; a character that no font has
    becomes a question mark.
    """
    with _temporary_caches():
        from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    default = FontProperties().get_name()
    families, missing = [default], set(text)
    for family in (default, *sorted({font.name for font in fontManager.ttflist})):
        if not missing:
            break
        font = get_font(findfont(FontProperties(family=family, weight="bold")))
        found = {character for character in missing if font.get_char_index(ord(character))}
        if found:
            missing -= found
            families.append(family)
    return "".join("?" if character in missing else character for character in text), families


@contextmanager
def _temporary_caches() -> Iterator[None]:
    """Keep matplotlib's settings, its font list and fontconfig's caches out of the user's folders.

    Matplotlib writes them on import. If the user has set MPLCONFIGDIR, that folder is used.
    """
    if "MPLCONFIGDIR" in os.environ or "matplotlib.font_manager" in sys.modules:
        yield
        return
    with TemporaryDirectory(prefix="mmtl-") as folder:
        fonts = Path(folder, "fonts.conf")
        fonts.write_text("<fontconfig/>", "utf-8")  # matplotlib searches the system's font folders itself
        settings = os.environ.pop("FONTCONFIG_FILE", None)
        os.environ.update(MPLCONFIGDIR=folder, FONTCONFIG_FILE=str(fonts))
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"], os.environ["FONTCONFIG_FILE"]
            if settings is not None:
                os.environ["FONTCONFIG_FILE"] = settings
