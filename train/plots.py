"""Plots of training and calibration, as PNG files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from calibrate.report.figures import ACCENT, DOTS_PER_INCH, FAINT, INK, blank_figure
from edge.labels import EMOTIONS
from edge.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from train.few_shot import ShotScores

LOSS: Final = "#b5562b"
AUXILIARY: Final = "#d9a441"


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the loss and the validation UAR by epoch.

    Args:
        records: one for each epoch, with the keys `epoch`, `loss`, `auxiliary_loss` and
            `validation_uar` (percent). Missing values and None are left out; other keys are ignored.
        path: the PNG file, written atomically.
    """
    figure = blank_figure(7.2, 6.0, layout="constrained")
    loss_axes, uar_axes = figure.subplots(2, 1, sharex=True)
    losses, auxiliary, uars = (_curve(records, key) for key in ("loss", "auxiliary_loss", "validation_uar"))
    _style(loss_axes, "training loss")
    _style(uar_axes, "validation UAR, %")
    _draw_curve(loss_axes, losses, LOSS, "emotion")
    _draw_curve(uar_axes, uars, ACCENT)
    if auxiliary:
        _draw_curve(loss_axes, auxiliary, AUXILIARY, "valence, arousal, dominance")
        loss_axes.legend(frameon=False, labelcolor=INK)
    loss_axes.set_title("Training", loc="left", fontsize=13, fontweight="bold", color=INK)
    uar_axes.set_xlabel("epoch", color=INK)
    uar_axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    epochs = [epoch for epoch, _ in losses + uars] or [1]
    uar_axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    uar_axes.set_ylim(0.0, 100.0)
    _mark_chance(uar_axes)
    figure.align_ylabels()
    if uars:
        _mark_best(uar_axes, *max(uars, key=lambda point: point[1]))
    _save(figure, path)


def plot_shots(scores: Sequence[ShotScores], path: Path) -> None:
    """Plot the UAR after calibration by number of shots, one curve for each corpus.

    Args:
        scores: of any corpora and numbers of shots.
        path: the PNG file, written atomically.
    """
    figure = blank_figure(7.2, 4.4, layout="constrained")
    axes = figure.subplots()
    _style(axes, "UAR on the speaker's other clips, %")
    corpora = sorted({item.corpus for item in scores})
    for corpus, marker in zip(corpora, itertools.cycle("osD^v"), strict=False):
        own = sorted((item.shots, item.after) for item in scores if item.corpus == corpus)
        axes.plot(*zip(*own, strict=True), marker=marker, label=corpus)
    axes.set_title("UAR after calibration", loc="left", fontsize=13, fontweight="bold", color=INK)
    axes.set_xlabel("labelled clips of each emotion", color=INK)
    axes.set_xticks(sorted({item.shots for item in scores}))
    axes.set_ylim(0.0, 100.0)
    _mark_chance(axes)
    axes.legend(frameon=False, labelcolor=INK, ncols=len(corpora), loc="lower center")
    _save(figure, path)


def plot_adaptation(lines: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Plot the UAR by number of labelled clips of the speaker, one line for each system and kind of label.

    Args:
        lines: (K, UAR in percent) by title, at least one.
        path: the PNG file, written atomically.
    """
    figure = blank_figure(9.6, 4.8, layout="constrained")
    axes = figure.subplots()
    _style(axes, "UAR on the speaker's other clips, %")
    for (title, points), marker in zip(lines.items(), itertools.cycle("osD^v"), strict=False):
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=title)
    axes.set_xlabel("labelled clips of the speaker", color=INK)
    axes.set_xticks(sorted({shots for points in lines.values() for shots, _ in points}))
    _mark_chance(axes)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def plot_confusion(matrix: ArrayLike, path: Path, title: str, *, labels: Sequence[str] = EMOTIONS) -> None:
    """Plot a confusion matrix: the share of the true class in percent, above the number of clips.

    Args:
        matrix: (C, C) counts: rows are the truth.
        path: the PNG file, written atomically.
        title: above the matrix.
        labels: the C names.

    Raises:
        ValueError: the matrix is not (C, C).
    """
    figure = blank_figure(1.6 + 1.15 * len(labels), 1.6 + 1.0 * len(labels), layout="constrained")
    _draw_confusion(figure.subplots(), matrix, title, labels)
    _save(figure, path)


def plot_confusions(
    matrices: Mapping[str, ArrayLike], path: Path, *, labels: Sequence[str] = EMOTIONS
) -> None:
    """Plot confusion matrices side by side, as Figure 3 of Cai et al. 2020.

    Args:
        matrices: (C, C) counts by title, at least one: rows are the truth.
        path: the PNG file, written atomically.
        labels: the C names.

    Raises:
        ValueError: a matrix is not (C, C).
    """
    width, height = 1.6 + 1.15 * len(labels), 1.6 + 1.0 * len(labels)
    figure = blank_figure(width * len(matrices), height, layout="constrained")
    places = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(places, matrices.items(), strict=True):
        _draw_confusion(axes, matrix, title, labels)
    _save(figure, path)


def _draw_confusion(axes: Axes, matrix: ArrayLike, title: str, labels: Sequence[str]) -> None:
    counts = np.asarray(matrix)
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels need a square matrix of that size, not {counts.shape}")
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        _write_cell(axes, row, column, share, int(counts[row, column]), int(totals[row]))
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(
        range(len(labels)), [f"{name}\n{total}" for name, total in zip(labels, totals, strict=True)]
    )
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true (clips)", color=INK)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, wrap=True)
    axes.set_xticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)


def _curve(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(record["epoch"], record[key]) for record in records if record.get(key) is not None]


def _style(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, color=INK)
    axes.grid(axis="y", color="#e3e8ec")
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.margins(y=0.12)


def _draw_curve(axes: Axes, points: Sequence[tuple[int, float]], colour: str, name: str = "") -> None:
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    # Markers would hide the line of a long run.
    marker = "o" if len(points) <= 40 else ""
    axes.plot(epochs, values, color=colour, linewidth=2, marker=marker, markersize=4, label=name)


def _mark_chance(axes: Axes) -> None:
    chance = 100.0 / len(EMOTIONS)
    axes.axhline(chance, color=FAINT, linestyle="--", linewidth=1)
    axes.annotate(
        "chance",
        (1.0, chance),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color=FAINT,
    )


def _mark_best(axes: Axes, epoch: int, uar: float) -> None:
    axes.plot([epoch], [uar], marker="o", markersize=9, color=ACCENT, markeredgecolor="white")
    axes.annotate(
        f"best {uar:.1f} at epoch {epoch}",
        (epoch, uar),
        xytext=(0, 9 if uar < 90.0 else -19),
        textcoords="offset points",
        ha=_side(axes, epoch),
        color=INK,
        fontweight="bold",
    )


def _side(axes: Axes, epoch: int) -> Literal["left", "center", "right"]:
    """Align a note so that it stays inside the plot."""
    first, last = axes.get_xlim()
    place = (epoch - first) / (last - first)
    if place < 0.2:
        return "left"
    return "right" if place > 0.8 else "center"


def _write_cell(axes: Axes, row: int, column: int, share: float, count: int, total: int) -> None:
    colour = "white" if share > 0.55 else INK
    percent = f"{100.0 * share:.1f} %" if total else "-"
    weight = "bold" if row == column else "normal"
    axes.text(
        column, row - 0.08, percent, ha="center", va="center", color=colour, fontsize=13, fontweight=weight
    )
    if total:
        axes.text(
            column,
            row + 0.22,
            f"{count} clip{'s' * (count != 1)}",
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
        )


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)
