"""The judgement of a session as a PNG file.

Everything that a colour shows is also shown by a number, a position or hatching, so that the picture can be
printed in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.scores import HeldOutScores
from calibrate.report.figures import ACCENT, DOTS_PER_INCH, FAINT, INK, blank_figure, drawable
from calibrate.report.summary import change_of, how_it_was_judged
from edge.errors import UsageError
from edge.labels import EMOTIONS
from edge.system.files import PRIVATE, atomic_write, require_writable
from edge.system.outputs import require_free

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALE_INK: Final = "#5b6873"
BEFORE: Final = "#c3ced6"

CHANCE: Final = 1.0 / len(EMOTIONS)
"""Recall of guessing."""

GUESSED: Final = float(np.log(len(EMOTIONS)))
"""Log loss of guessing, in nats."""


def require_picture(path: Path, *, overwrite: bool) -> None:
    """Check that a picture can be drawn and written, before the session.

    Args:
        path: the PNG file.
        overwrite: whether the file may exist.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        UsageError: the name is not that of a PNG file, the file exists, or its folder cannot be written to.
    """
    blank_figure(1.0, 1.0)
    if path.suffix.lower() != ".png":
        raise UsageError(
            f"the picture is a PNG file, but its name is {path}", remedy="give a name that ends with .png"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder", remedy="give the name of a file")
    require_free(path, replace=overwrite)
    require_writable(path.parent)


def draw_judgement(name: str, judgement: Judgement, folds: Folds, path: Path) -> None:
    """Draw the predictions before and after, the interval of the improvement, and all candidates.

    Args:
        name: of the profile.
        judgement: of its session.
        folds: how the takes were held out.
        path: the PNG file, written atomically and readable by its owner only.

    Raises:
        UsageError: the file cannot be written.
    """
    figure = _figure(name, judgement, folds)
    with atomic_write(path, PRIVATE) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)


def _figure(name: str, judgement: Judgement, folds: Folds) -> Figure:
    """Arrange the parts."""
    figure = blank_figure(9.6, 7.6)
    _write_verdict(figure, name, judgement, folds)
    above = figure.add_gridspec(1, 2, left=0.1, right=0.97, top=0.815, bottom=0.445, wspace=0.3)
    below = figure.add_gridspec(
        1, 3, left=0.1, right=0.97, top=0.28, bottom=0.06, wspace=0.8, width_ratios=(1.15, 0.75, 1.1)
    )
    fitted = "as before" if judgement.chosen.fit is None else judgement.chosen.name
    _draw_confusion(figure.add_subplot(above[0]), judgement.before, "Answers before")
    _draw_confusion(figure.add_subplot(above[1]), judgement.after, f"Answers after: {fitted}")
    _draw_recall(figure.add_subplot(below[0]), judgement)
    _draw_calibration_error(figure.add_subplot(below[1]), judgement)
    _draw_candidates(figure.add_subplot(below[2]), judgement)
    return figure


def _write_verdict(figure: Figure, name: str, judgement: Judgement, folds: Folds) -> None:
    reason = judgement.reason
    title, fonts = drawable(f"{name}: {judgement.verdict}")
    size = min(17.0, 620.0 / len(title))  # a name may have 64 letters
    figure.text(0.03, 0.945, title, fontsize=size, fontweight="bold", fontfamily=fonts, color=INK)
    figure.text(0.03, 0.91, f"{reason[:1].upper()}{reason[1:]}.", fontsize=11, color=INK)
    figure.text(0.03, 0.878, how_it_was_judged(folds), fontsize=9, color=PALE_INK)


def _draw_confusion(axes: Axes, scores: HeldOutScores, title: str) -> None:
    """Shade each cell by its share of the row, and write the count into it."""
    counts = np.array(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.55 else INK if count else FAINT,
            fontweight="bold" if row == column else "normal",
            fontsize=12,
        )
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_xlabel("answered", color=INK)
    axes.set_ylabel("said as", color=INK)
    axes.set_xticks(np.arange(len(EMOTIONS) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(EMOTIONS) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    _title(axes, title)


def _draw_recall(axes: Axes, judgement: Judgement) -> None:
    """Draw the recall before and after; a whisker shows the interval of the improvement."""
    uars, improvement = [judgement.before.uar, judgement.after.uar], judgement.improvements["uar"]
    _bars(axes, ["before", "after"], uars, chosen=1)
    if improvement.low < improvement.high:
        _draw_whisker(axes, 1, uars[0] + improvement.low, uars[0] + improvement.high)
    axes.axvline(CHANCE, color=INK, linestyle=":", linewidth=1)
    for row, uar in enumerate(uars):
        axes.text(1.04, row, f"{100.0 * uar:.0f} %", va="center", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlim(0.0, 1.02)
    axes.set_xticks([])
    change = change_of(improvement, 100.0, 0, " points")
    _title(axes, "Recognised (UAR)", f"{change}\nwhisker: 95 %; dotted: guessing")


def _draw_calibration_error(axes: Axes, judgement: Judgement) -> None:
    errors = [judgement.before.ece, judgement.after.ece]
    _bars(axes, ["before", "after"], errors, chosen=1)
    _label_ends(axes, errors)
    _title(axes, "Calibration error", "gap from confidence to\naccuracy: 0 is best")


def _draw_candidates(axes: Axes, judgement: Judgement) -> None:
    """Draw the held-out loss of all candidates; the chosen one is filled like "after" elsewhere."""
    names, losses = list(judgement.scores), [scores.log_loss for scores in judgement.scores.values()]
    _bars(axes, names, losses, chosen=names.index(judgement.chosen.name))
    _label_ends(axes, losses)
    if axes.get_xlim()[1] > GUESSED:
        axes.axvline(GUESSED, color=INK, linestyle=":", linewidth=1)
    _title(
        axes, "Log loss of candidates", f"dark: chosen, by loss and penalty\ndotted: guessing, {GUESSED:.2f}"
    )


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], *, chosen: int) -> None:
    """Draw horizontal bars from top to bottom: light and hatched, the chosen one dark."""
    bars = axes.barh(range(len(values)), values, height=0.62, color=BEFORE, edgecolor=INK, hatch="///")
    for bar in bars:
        bar.set_linewidth(0.0)
        bar.set_edgecolor("#a9b7c1")
    bars[chosen].set(facecolor=ACCENT, hatch="")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(2, len(names)) - 0.4, -0.6)
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def _label_ends(axes: Axes, values: Sequence[float]) -> None:
    """Write each value at the end of its bar, instead of an axis."""
    most = max(*values, 0.01)
    for row, value in enumerate(values):
        axes.text(value + 0.03 * most, row, f"{value:.2f}", va="center", fontsize=9, color=INK)
    axes.set_xlim(0.0, 1.25 * most)
    axes.set_xticks([])


def _draw_whisker(axes: Axes, row: int, low: float, high: float) -> None:
    """Draw an interval over a bar, with a white edge so that it is visible on the bar."""
    for colour, width in (("white", 5.0), (INK, 1.8)):
        axes.plot([low, high], [row, row], color=colour, linewidth=width, solid_capstyle="butt")
        axes.plot([low, high], [row, row], color=colour, linestyle="", marker="|", markersize=10, mew=width)


def _title(axes: Axes, text: str, note: str = "") -> None:
    """Write a title and below it a note of two lines."""
    axes.set_title(text, loc="left", fontsize=10, fontweight="bold", color=INK, pad=30 if note else 6)
    axes.annotate(
        note,
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color=PALE_INK,
        va="bottom",
    )
