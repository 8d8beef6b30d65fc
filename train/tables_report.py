"""Tables 2 and 3 and Figure 3 of Cai et al. 2020 from finished cells, as Markdown, CSV and PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge.labels import EMOTIONS
from edge.system.files import atomic_write
from train.metrics import ClassificationScores, Counts, recalls
from train.plots import plot_confusions
from train.speaker_protocols import SpeakerProtocols
from train.table_rows import ENCODER_KEYS, FIGURE_3, PAPER_ROWS, TABLE_2, TABLE_3, Row
from train.tables import Cell

Values = NDArray[np.float64]

Protocol = Literal["none", "calibrated", "paper"]

TITLES: Final[dict[Protocol, str]] = {
    "none": "without adaptation (`none`)",
    "calibrated": "after tuning on labelled clips of the speaker (`calibrated`)",
    "paper": "tuned on the ratings of the clips that are scored (`paper`): uses test labels",
}

RESAMPLES: Final = 1000
"""Bootstrap samples of the speakers."""


@dataclass(frozen=True)
class CellResult:
    """What the report reads of a finished cell."""

    none: ClassificationScores
    adapted: SpeakerProtocols


@dataclass(frozen=True)
class RowScores:
    """Scores of one system by one protocol over its finished cells, in percent."""

    row: Row
    protocol: Protocol
    folds: int
    seeds: int
    uar: float
    """Mean over the cells, as the accuracy."""
    uar_deviation: float | None
    """Standard deviation over the cells; None for a single one."""
    interval: tuple[float, float] | None
    """95 % interval of the mean UAR for other test speakers; None for a single one."""
    before: float | None
    """Mean UAR on the same clips without adaptation; None for the protocol `none`."""
    gain_interval: tuple[float, float] | None
    """95 % interval of `uar` - `before`, as `interval`."""
    accuracy: float
    accuracy_deviation: float | None
    recalls: tuple[float | None, ...]
    """By emotion, over all cells' clips; None for an emotion without clips."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts summed over the cells, and over the draws of `calibrated`: rows are the truth."""

    @property
    def gain(self) -> float | None:
        """Points of UAR by the adaptation."""
        return None if self.before is None else self.uar - self.before


def row_scores(found: Mapping[Cell, CellResult]) -> list[RowScores]:
    """Sum up the finished cells of each system and protocol, in the order of the tables."""
    order = [*PAPER_ROWS, *ENCODER_KEYS]
    rows = sorted({cell.row for cell in found}, key=lambda row: order.index(row.key))
    return [
        _summed(answers, protocol)
        for row in rows
        for protocol in TITLES
        if (
            answers := {
                cell: of_cell
                for cell, result in found.items()
                if cell.row == row and (of_cell := _answers(result, protocol))
            }
        )
    ]


@dataclass(frozen=True)
class _Answers:
    """Scores of one cell by one protocol, in percent; of several draws the mean."""

    uar: float
    accuracy: float
    confusion: Counts
    before: float | None


def _answers(result: CellResult, protocol: Protocol) -> _Answers | None:
    if protocol == "calibrated":
        draws = result.adapted.calibrated
        return _mean_answers([draw.after for draw in draws], [draw.before for draw in draws])
    if protocol == "paper":
        return _mean_answers([result.adapted.paper], [result.none]) if result.adapted.paper else None
    return _mean_answers([result.none], [])


def _mean_answers(
    after: Sequence[ClassificationScores], before: Sequence[ClassificationScores]
) -> _Answers | None:
    if not after:
        return None
    return _Answers(
        uar=float(np.mean([100 * scores.uar for scores in after])),
        accuracy=float(np.mean([100 * scores.accuracy for scores in after])),
        confusion=np.sum([scores.confusion for scores in after], axis=0),
        before=float(np.mean([100 * scores.uar for scores in before])) if before else None,
    )


def _summed(found: Mapping[Cell, _Answers], protocol: Protocol) -> RowScores:
    uars = np.array([answers.uar for answers in found.values()])
    accuracies = np.array([answers.accuracy for answers in found.values()])
    before = [answers.before for answers in found.values() if answers.before is not None]
    gains = {cell: item.uar - item.before for cell, item in found.items() if item.before is not None}
    confusion = np.sum([answers.confusion for answers in found.values()], axis=0)
    return RowScores(
        row=next(iter(found)).row,
        protocol=protocol,
        folds=len({cell.fold for cell in found}),
        seeds=len({cell.seed for cell in found}),
        uar=float(uars.mean()),
        uar_deviation=_deviation(uars),
        interval=_interval(_by_fold({cell: answers.uar for cell, answers in found.items()})),
        before=float(np.mean(before)) if before else None,
        gain_interval=_interval(_by_fold(gains)) if gains else None,
        accuracy=float(accuracies.mean()),
        accuracy_deviation=_deviation(accuracies),
        recalls=tuple(None if value is None else 100 * value for value in recalls(confusion)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _by_fold(values: Mapping[Cell, float]) -> Values:
    """Average over the seeds of each fold."""
    folds = sorted({cell.fold for cell in values})
    return np.array(
        [np.mean([value for cell, value in values.items() if cell.fold == fold]) for fold in folds]
    )


def _deviation(values: Values) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _interval(by_fold: Values) -> tuple[float, float] | None:
    """Resample the test speakers with replacement: the 2.5th and 97.5th percentile of their mean."""
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
    tables = (
        ("Table 2: systems", [row.key for row in TABLE_2]),
        ("Table 3: auxiliary tasks", [row.key for row in TABLE_3]),
        ("Heads on a pretrained encoder", list(ENCODER_KEYS)),
    )
    text = f"{heading}\n"
    for (title, keys), (protocol, how) in product(tables, TITLES.items()):
        if shown := [scores for scores in rows if scores.row.key in keys and scores.protocol == protocol]:
            text += f"\n## {title}, {how}\n\n{_markdown(shown, iemocap=iemocap)}"
    for name, content in (("tables.md", text), ("tables.csv", _csv(rows))):
        with atomic_write(root / name) as partial:
            partial.write_text(content, "utf-8")
    figure = {
        scores.row.name: scores.confusion
        for scores in rows
        if scores.row.key in {row.key for row in FIGURE_3} and scores.protocol == "none"
    }
    if figure:
        plot_confusions(figure, root / "confusion.png")


def _markdown(rows: Sequence[RowScores], *, iemocap: bool) -> str:
    """Write one table; all rows are of one protocol."""
    adapted = rows[0].protocol != "none"
    papers = iemocap and rows[0].protocol != "calibrated" and any(scores.row.paper for scores in rows)
    columns = ["system", "folds x seeds", "UAR", "95 % interval"]
    columns += ["`none`, same clips", "gain", "95 % interval of the gain"] if adapted else []
    columns += ["accuracy", *EMOTIONS, *(["UAR, paper", "accuracy, paper"] if papers else [])]
    lines = [columns, ["---"] * len(columns)]
    for scores in rows:
        cells = [scores.row.name, f"{scores.folds} x {scores.seeds}"]
        cells += [_with_deviation(scores.uar, scores.uar_deviation), _range(scores.interval)]
        if adapted:
            cells += [
                _figure(scores.before),
                _figure(scores.gain, "+.1f"),
                _range(scores.gain_interval, "+.1f"),
            ]
        cells += [_with_deviation(scores.accuracy, scores.accuracy_deviation), *map(_figure, scores.recalls)]
        if papers:
            # The paper tunes every system that has auxiliary tasks to the test speaker's ratings.
            stated = scores.row.has_auxiliary == (scores.protocol == "paper")
            cells += [f"{value:.2f}" if stated else "-" for value in scores.row.paper or ()]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figure(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def _range(interval: tuple[float, float] | None, form: str = ".1f") -> str:
    return "-" if interval is None else " to ".join(format(value, form) for value in interval)


def _with_deviation(value: float, deviation: float | None) -> str:
    return f"{value:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def _csv(rows: Sequence[RowScores]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    spread = ("uar", "uar_deviation", "uar_low", "uar_high", "accuracy", "accuracy_deviation")
    gained = ("uar_none_same_clips", "gain", "gain_low", "gain_high")
    by_emotion = (f"recall_{emotion}" for emotion in EMOTIONS)
    table.writerow(["system", "protocol", "folds", "seeds", *spread, *gained, *by_emotion])
    for scores in rows:
        interval, gains = scores.interval or (None, None), scores.gain_interval or (None, None)
        uar, accuracy = (scores.uar, scores.uar_deviation), (scores.accuracy, scores.accuracy_deviation)
        figures = [*uar, *interval, *accuracy, scores.before, scores.gain, *gains, *scores.recalls]
        shown = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        table.writerow([scores.row.key, scores.protocol, scores.folds, scores.seeds, *shown])
    return text.getvalue()
