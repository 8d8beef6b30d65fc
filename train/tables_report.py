"""Tables 2 and 3 and Figure 3 of Cai et al. 2020 from finished cells, as Markdown, CSV and PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.labels import EMOTIONS
from edge.system.files import atomic_write
from train.metrics import ClassificationScores, recalls
from train.plots import plot_confusions
from train.tables import FIGURE_3, ROWS, TABLE_2, TABLE_3, Cell, Row

Values = NDArray[np.float64]

RESAMPLES: Final = 1000
"""Bootstrap samples of the speakers."""


@dataclass(frozen=True)
class RowScores:
    """Scores of one system over its finished cells, in percent, without adaptation."""

    row: Row
    folds: int
    seeds: int
    uar: float
    """Mean over the cells, as the accuracy."""
    uar_deviation: float | None
    """Standard deviation over the cells; None for a single one."""
    interval: tuple[float, float] | None
    """95 % interval of the mean UAR for other test speakers; None for a single one."""
    accuracy: float
    accuracy_deviation: float | None
    recalls: tuple[float | None, ...]
    """By emotion, over all cells' clips; None for an emotion without clips."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts summed over the cells: rows are the truth."""


def row_scores(found: Mapping[Cell, ClassificationScores]) -> list[RowScores]:
    """Sum up the finished cells of each system, in the order of the tables."""
    return [
        _summed({cell: scores for cell, scores in found.items() if cell.row == row})
        for row in ROWS.values()
        if any(cell.row == row for cell in found)
    ]


def _summed(found: Mapping[Cell, ClassificationScores]) -> RowScores:
    folds = sorted({cell.fold for cell in found})
    uars = np.array([100 * scores.uar for scores in found.values()])
    accuracies = np.array([100 * scores.accuracy for scores in found.values()])
    by_fold = np.array(
        [np.mean([100 * scores.uar for cell, scores in found.items() if cell.fold == fold]) for fold in folds]
    )
    confusion = np.sum([scores.confusion for scores in found.values()], axis=0)
    return RowScores(
        row=next(iter(found)).row,
        folds=len(folds),
        seeds=len({cell.seed for cell in found}),
        uar=float(uars.mean()),
        uar_deviation=_deviation(uars),
        interval=_interval(by_fold),
        accuracy=float(accuracies.mean()),
        accuracy_deviation=_deviation(accuracies),
        recalls=tuple(None if value is None else 100 * value for value in recalls(confusion)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _deviation(values: Values) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _interval(by_fold: Values) -> tuple[float, float] | None:
    """Resample the test speakers with replacement: the 2.5th and 97.5th percentile of their mean UAR."""
    count = len(by_fold)
    if count == 1:
        return None
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.percentile(drawn @ by_fold / count, [2.5, 97.5])
    return float(low), float(high)


def write_report(rows: Sequence[RowScores], root: Path, heading: str, *, iemocap: bool) -> None:
    """Write tables.md, tables.csv and, where a system of Figure 3 is finished, confusion.png.

    Args:
        rows: of the systems, at least one.
        root: the folder.
        heading: sentences above the tables: what was computed, and how.
        iemocap: show the paper's figures beside, which are of this corpus.
    """
    tables = (("Table 2: systems", TABLE_2), ("Table 3: auxiliary tasks", TABLE_3))
    text = f"{heading}\n"
    for title, table in tables:
        if shown := [scores for scores in rows if scores.row in table]:
            text += f"\n## {title}\n\n{_markdown(shown, iemocap=iemocap)}"
    for name, content in (("tables.md", text), ("tables.csv", _csv(rows))):
        with atomic_write(root / name) as partial:
            partial.write_text(content, "utf-8")
    if figure := {scores.row.name: scores.confusion for scores in rows if scores.row in FIGURE_3}:
        plot_confusions(figure, root / "confusion.png")


def _markdown(rows: Sequence[RowScores], *, iemocap: bool) -> str:
    columns = ["system", "folds x seeds", "UAR", "95 % interval", "accuracy", *EMOTIONS]
    columns += ["UAR, paper", "accuracy, paper"] if iemocap else []
    lines = [columns, ["---"] * len(columns)]
    for scores in rows:
        cells = [
            scores.row.name,
            f"{scores.folds} x {scores.seeds}",
            _with_deviation(scores.uar, scores.uar_deviation),
            "-" if scores.interval is None else "{:.1f} to {:.1f}".format(*scores.interval),
            _with_deviation(scores.accuracy, scores.accuracy_deviation),
            *("-" if value is None else f"{value:.1f}" for value in scores.recalls),
        ]
        lines.append(cells + ([f"{value:.2f}" for value in scores.row.paper] if iemocap else []))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _with_deviation(value: float, deviation: float | None) -> str:
    return f"{value:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def _csv(rows: Sequence[RowScores]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    spread = ("uar", "uar_deviation", "uar_low", "uar_high", "accuracy", "accuracy_deviation")
    table.writerow(["system", "folds", "seeds", *spread, *(f"recall_{emotion}" for emotion in EMOTIONS)])
    for scores in rows:
        interval = scores.interval or (None, None)
        uar, accuracy = (scores.uar, scores.uar_deviation), (scores.accuracy, scores.accuracy_deviation)
        figures = [*uar, *interval, *accuracy, *scores.recalls]
        shown = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        table.writerow([scores.row.key, scores.folds, scores.seeds, *shown])
    return text.getvalue()
