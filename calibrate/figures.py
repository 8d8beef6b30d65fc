"""Matplotlib figures, loaded when a picture is drawn and without traces in the user's home."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank_figure(width: float, height: float, *, layout: Literal["constrained"] | None = None) -> Figure:
    """Make an empty figure outside pyplot, which would keep it and may want a screen.

    Args:
        width: in inches.
        height: in inches.
        layout: matplotlib's, if any.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    with _temporary_caches():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def _temporary_caches() -> Iterator[None]:
    """Keep matplotlib's settings and list of fonts, and fontconfig's caches, out of the user's folders.

    Matplotlib writes them while it is imported. A folder that the user names in MPLCONFIGDIR is used.
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
