"""Test-time adaptation by number of labelled clips for rows of the tables: CSV, Markdown and a plot.

A curve is computed from the weights that a finished cell keeps, and is kept in the cell. The clips of the
test speaker are divided once a draw: 20 to tune on, the others to score, the same at every K.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from edge.system.files import atomic_write
from train.adaptation_curve import PAPER_TUNING, SHOTS, CurvePoint, adaptation_curve, curve_division
from train.metrics import accuracy, uar
from train.mmtl import Samples
from train.model import EmotionNet
from train.plots import plot_adaptation
from train.run import ProgressReporter
from train.run_folder import described, write_json
from train.speaker_head import SpeakerHead
from train.speaker_protocols import HEAD_TUNING, LayersAfterEmbedding
from train.systems.angular_softmax import AngularCnnLstm
from train.systems.base import System
from train.tables import Cell, Folds, TableOptions, finished, run_of, spectra_memory

Labels = Literal["emotions", "ratings"]

LABELS: Final[dict[Labels, str]] = {
    "emotions": f"emotions used: layers after the embedding, {HEAD_TUNING.steps} steps at "
    f"{HEAD_TUNING.rate:g}",
    "ratings": f"ratings alone: equation 4, {PAPER_TUNING.inner_steps} steps at {PAPER_TUNING.inner_lr:g}",
}

DRAWS: Final[dict[Labels, int]] = {"emotions": 5, "ratings": 1}
"""Divisions of a speaker's clips, over which the scores are averaged; tuning on the ratings takes longest."""

Curves = dict[Labels, list[list[CurvePoint]]]
"""The points of each draw, by what is tuned on."""


@dataclass(frozen=True)
class CurveRow:
    """Mean over the cells of one row at one K, in percent."""

    system: str
    name: str
    labels: Labels
    shots: int
    cells: int
    uar: float
    gain: float
    """Points of UAR over K = 0, on the same clips."""
    accuracy: float


def network_curves(
    net: EmotionNet | System | SpeakerHead, clips: Sequence[Samples], *, auxiliary: bool
) -> Curves:
    """Compute the curves of a network on one speaker; none if the speaker has too few clips.

    Args:
        net: trained without the speaker; it is not changed.
        clips: the segments of each clip.
        auxiliary: whether the network was trained on auxiliary tasks, so that ratings can be tuned on.
    """
    curves: Curves = {}
    if len(clips) <= max(SHOTS) or not isinstance(net, EmotionNet | AngularCnnLstm | SpeakerHead):
        return curves
    curves["emotions"] = [emotion_curve(net, clips, draw) for draw in range(DRAWS["emotions"])]
    if auxiliary and not isinstance(net, AngularCnnLstm):
        curves["ratings"] = [
            adaptation_curve(net, clips, PAPER_TUNING, seed=draw) for draw in range(DRAWS["ratings"])
        ]
    return curves


def emotion_curve(
    net: EmotionNet | AngularCnnLstm | SpeakerHead, clips: Sequence[Samples], seed: int
) -> list[CurvePoint]:
    """Tune the layers after the embedding on the emotions of K clips, and score the others, for each K."""
    layers = LayersAfterEmbedding(deepcopy(net).eval())
    pool, scored = curve_division(len(clips), max(SHOTS), seed)
    embeddings = [layers.embedding(clip) for clip in clips]
    labels = [int(clips[index].emotion[0]) for index in scored]
    points = []
    for shots in SHOTS:
        learned = pool[:shots]
        inputs, samples = [embeddings[index] for index in learned], [clips[index] for index in learned]
        weights = layers.tuned(inputs, samples, HEAD_TUNING) if shots else {}
        predictions = layers.posteriors([embeddings[index] for index in scored], weights).argmax(axis=1)
        points.append(CurvePoint(shots, uar(labels, predictions), accuracy(labels, predictions), len(scored)))
    return points


def compute_curves(
    cells: Sequence[Cell], folds: Folds, root: Path, options: TableOptions, progress: ProgressReporter
) -> dict[Cell, Curves]:
    """Return the curves of the finished cells, computing those that are not kept."""
    memory, found = spectra_memory(root), {}
    ready = [cell for cell in cells if finished(root, cell)]
    for cell in progress(ready, "curves", len(ready)):
        folder = cell.folder(root)
        path = folder.path / "curve.json"
        kept = _kept(path)
        if kept is None:
            with folder.locked():
                run = run_of(cell, folds[cell.fold], options, memory, folder)
                kept = network_curves(run.network(), run.scored_samples(), auxiliary=cell.row.has_auxiliary)
                plain = {
                    labels: [[asdict(point) for point in draw] for draw in draws]
                    for labels, draws in kept.items()
                }
                write_json(path, {"rules": _rules(), "curves": plain})
        found[cell] = kept
    return found


def curve_rows(found: Mapping[Cell, Curves]) -> list[CurveRow]:
    """Average over draws, folds and seeds, by row, labels and K."""
    rows = []
    for key in dict.fromkeys(cell.row.key for cell in found):
        own = {cell: curves for cell, curves in found.items() if cell.row.key == key}
        for labels in LABELS:
            draws = [draw for curves in own.values() for draw in curves.get(labels, [])]
            count = sum(bool(curves.get(labels)) for curves in own.values())
            for place, shots in enumerate(SHOTS if draws else ()):
                points = [draw[place] for draw in draws]
                gains = [100 * (draw[place].uar - draw[0].uar) for draw in draws]
                rows.append(
                    CurveRow(
                        system=key,
                        name=next(iter(own)).row.name,
                        labels=labels,
                        shots=shots,
                        cells=count,
                        uar=float(np.mean([100 * point.uar for point in points])),
                        gain=float(np.mean(gains)),
                        accuracy=float(np.mean([100 * point.accuracy for point in points])),
                    )
                )
    return rows


def write_curves(rows: Sequence[CurveRow], root: Path, heading: str) -> None:
    """Write curve.md, curve.csv and curve.png."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["system", "labels", "k", "cells", "uar", "gain", "accuracy"])
    for row in rows:
        figures = (f"{value:.3f}" for value in (row.uar, row.gain, row.accuracy))
        table.writerow([row.system, row.labels, row.shots, row.cells, *figures])
    for name, content in (("curve.md", _markdown(rows, heading)), ("curve.csv", text.getvalue())):
        with atomic_write(root / name) as partial:
            partial.write_text(content, "utf-8")
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        lines.setdefault(f"{row.name}, {row.labels}", []).append((row.shots, row.uar))
    plot_adaptation(lines, root / "curve.png")


def _markdown(rows: Sequence[CurveRow], heading: str) -> str:
    text = f"{heading}\n"
    for labels, how in LABELS.items():
        shown = [row for row in rows if row.labels == labels]
        if not shown:
            continue
        columns = ["system", "cells", *(f"K = {shots}" for shots in SHOTS)]
        lines = [columns, ["---"] * len(columns)]
        for name in dict.fromkeys(row.name for row in shown):
            own = [row for row in shown if row.name == name]
            lines.append([name, str(own[0].cells), *(f"{row.uar:.1f}" for row in own)])
        text += f"\n## {how[0].upper()}{how[1:]}\n\n"
        text += "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text


def _rules() -> dict[str, Any]:
    tunings = {"emotions": described(replace(HEAD_TUNING, draws=0)), "ratings": described(PAPER_TUNING)}
    return {"shots": list(SHOTS), "draws": dict(DRAWS), **tunings}


def _kept(path: Path) -> Curves | None:
    """Read a cell's curves; None if there are none by today's rules."""
    if not path.exists():
        return None
    content = json.loads(path.read_text("utf-8"))
    if content.get("rules") != _rules():
        return None
    return {
        labels: [[CurvePoint(**point) for point in draw] for draw in draws]
        for labels, draws in content["curves"].items()
    }
