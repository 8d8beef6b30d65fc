"""The tables of Cai et al. 2020: each system trained on each fold with each seed, and its scores.

A cell is one training run, in a folder of its own. A cell that is finished is never computed again; one that
was interrupted continues after its last epoch.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edge.errors import MmtlError
from edge.features.frontend import FrontEnd
from edge.labels import DIMENSIONS, Dimension
from edge.system.files import atomic_write
from train.corpora import Clip
from train.metrics import ClassificationScores
from train.mmtl import Loss, MetaRates
from train.model import Architecture, EmotionNet
from train.run import (
    ProgressReporter,
    architecture_of,
    by_corpora,
    frames_for_first,
    require_fit,
    train_epochs,
)
from train.run_folder import RunFolder, described, write_json
from train.segments import SpectraMemory, fit_normalisation
from train.splits import Split, speakers_of
from train.systems.angular_softmax import AngularCnnLstm
from train.systems.attention_pooling import AttentionPoolingCnn
from train.systems.base import System
from train.systems.capsules import SequentialCapsules
from train.systems.self_attention import SelfAttention
from train.temperature import averaged
from train.training import Algorithm, Options, Training, predict

Item = TypeVar("Item")

Folds = Mapping[str, Split]
"""Splits by the name of the test speaker."""


@dataclass(frozen=True)
class Row:
    """A system of the tables."""

    key: str
    """By which the command names it."""
    name: str
    """In the tables."""
    paper: tuple[float, float]
    """UA and WA that the paper states for IEMOCAP, in percent."""
    network: Callable[[Architecture], EmotionNet | System]
    algorithm: Algorithm = "erm"
    auxiliary: tuple[Dimension, ...] = DIMENSIONS


def _attention_pooling(_: Architecture) -> System:
    return AttentionPoolingCnn()


def _capsules(arch: Architecture) -> System:
    return SequentialCapsules(arch.bins)


def _self_attention(arch: Architecture) -> System:
    return SelfAttention(arch.bins)


def _mmtl(letters: str, ua: float, wa: float) -> Row:
    named = [name for name in DIMENSIONS if name[0] in letters]
    return Row(
        f"mmtl-{letters}",
        f"MMTL({'+'.join(name[0].upper() for name in named)})",
        (ua, wa),
        EmotionNet,
        "mmtl",
        cast(tuple[Dimension, ...], tuple(named)),
    )


TABLE_2: Final = (
    Row("cnn-lstm", "CNN-LSTM", (56.60, 65.80), EmotionNet),
    Row("angular", "CNN-LSTM+angular softmax loss", (64.16, 68.74), AngularCnnLstm),
    Row("seqcap", "CNN+GRU+SeqCap", (59.71, 72.23), _capsules),
    Row("gap-attention", "CNN+GAP+Attention", (68.06, 71.75), _attention_pooling),
    Row("self-attention", "Self Attention", (63.80, 68.10), _self_attention),
    Row("cnn-lstm-mtl", "CNN-LSTM+MTL", (64.31, 68.84), EmotionNet, "mtl"),
    _mmtl("vad", 70.32, 76.64),
)
TABLE_3: Final = (
    _mmtl("v", 65.60, 71.99),
    _mmtl("a", 58.28, 65.71),
    _mmtl("d", 54.25, 66.98),
    _mmtl("vd", 73.22, 75.83),
    _mmtl("ad", 55.26, 67.25),
    _mmtl("va", 74.61, 77.74),
    TABLE_2[-1],
)
FIGURE_3: Final = (TABLE_2[0], TABLE_2[-2], TABLE_2[-1])
"""Rows whose confusion matrices the paper shows."""

ROWS: Final = {row.key: row for row in (*TABLE_2, *TABLE_3)}


@dataclass(frozen=True)
class TableOptions:
    """What all cells of a table have in common."""

    epochs: int = 30
    augment: float = 1.0
    """Strength of the augmentation."""
    heads: Literal["shared", "separate"] = "shared"
    """Of MMTL: one output for all auxiliary tasks, or one each."""
    query: Literal["same", "disjoint"] = "same"
    """Of MMTL: whether the emotion loss uses the support's segments, or others."""
    double_softmax: bool = False
    paper: bool = False
    """The paper's layers in the rows of the CNN-LSTM; they cannot be streamed."""

    def of(self, row: Row, seed: int) -> tuple[Architecture, Options]:
        """Return network sizes and training of a cell."""
        base = Options()
        options = replace(
            base,
            algorithm=row.algorithm,
            epochs=self.epochs,
            seed=seed,
            rates=MetaRates(query=self.query, loss=Loss(double_softmax=self.double_softmax)),
            draw=replace(base.draw, auxiliary=row.auxiliary),
            augmentation=base.augmentation.scaled(self.augment),
        )
        return architecture_of(row.algorithm, len(row.auxiliary), self.heads, paper=self.paper), options


@dataclass(frozen=True)
class Cell:
    """One system on one fold with one seed."""

    row: Row
    fold: str
    seed: int

    def folder(self, root: Path) -> RunFolder:
        """Return the folder of its run."""
        return RunFolder(root / "cells" / self.row.key / self.fold / f"seed-{self.seed}")


def cells_of(rows: Iterable[Row], folds: Iterable[str], seeds: Iterable[int]) -> list[Cell]:
    """Return every cell, seed by seed, so that an interrupted table has all rows of its first seeds."""
    return [Cell(row, fold, seed) for seed, fold, row in product(seeds, folds, list(rows))]


def claim(
    root: Path, options: TableOptions, clips: Sequence[Clip], folds: Literal["speaker", "session"]
) -> None:
    """Write what all cells have in common to the folder, or compare it with what stands there.

    Args:
        root: folder of the tables.
        options: of all cells.
        clips: of all folds.
        folds: what is left out in a fold. The validation speaker depends on it.

    Raises:
        UsageError: the folder holds tables of other options, recordings or folds, or it cannot be written to.
    """
    folder = RunFolder(root)
    config = {
        "options": described(options),
        "clips": len(clips),
        "speakers": speakers_of(clips),
        "folds": folds,
    }
    folder.require_usable(config, resume=True)
    root.mkdir(parents=True, exist_ok=True)
    folder.begin(config)


def finished(root: Path, cell: Cell) -> ClassificationScores | None:
    """Read a cell's scores on the test speaker; None if it is not finished."""
    path = cell.folder(root).scores
    return ClassificationScores(**json.loads(path.read_text("utf-8"))["test"]) if path.exists() else None


def compute(
    cells: Sequence[Cell],
    folds: Folds,
    root: Path,
    options: TableOptions,
    progress: ProgressReporter,
    jobs: int = 1,
) -> None:
    """Train the cells that are not finished.

    Args:
        cells: of the table.
        folds: the split of each fold.
        root: folder of the tables.
        options: of all cells.
        progress: shows how many cells are done, and the time left.
        jobs: cells trained at once, each in a process of one thread that keeps spectra of its own.

    Raises:
        MmtlError: a cell cannot be trained, or another command is training it.
    """
    waiting = [cell for cell in cells if not finished(root, cell)]
    if jobs == 1:
        memory = SpectraMemory()
        for cell in progress(waiting, "cells", len(waiting)):
            train_cell(cell, folds[cell.fold], root, options, memory)
        return
    tasks = [(cell, folds[cell.fold], root, options) for cell in waiting]
    with multiprocessing.get_context("spawn").Pool(jobs, _begin_worker) as pool:
        for problem in progress(pool.imap_unordered(_train_in_worker, tasks), "cells", len(tasks)):
            if problem:
                raise MmtlError(problem)


def train_cell(cell: Cell, split: Split, root: Path, options: TableOptions, memory: SpectraMemory) -> None:
    """Train one cell, keep the best epoch by the validation speaker, and score it on the test speaker once.

    Raises:
        UsageError: the speakers do not suffice for the algorithm, or another command is training the cell.
    """
    folder, (arch, chosen) = cell.folder(root), options.of(cell.row, cell.seed)
    require_fit(split, arch, chosen)
    with folder.locked():
        torch.manual_seed(chosen.seed)
        front_end, shortest = FrontEnd(), frames_for_first(arch)
        data = memory(split.train, front_end, shortest, chosen.augmentation.speeds)
        validation, test = (memory(side, front_end, shortest) for side in (split.validation, split.test))
        normalisation = fit_normalisation(data)
        cpu = torch.device("cpu")
        training = Training(cell.row.network(arch), data, normalisation, chosen, cpu)

        def keep(net: nn.Module) -> None:
            with atomic_write(folder.best) as partial:
                save_file({name: value.contiguous() for name, value in net.state_dict().items()}, partial)

        best = train_epochs(training, validation, normalisation, folder, keep, Silent())
        net = training.evaluated_net()
        net.load_state_dict(load_file(folder.best))
        probs = averaged(predict(net, test, normalisation, chosen.draw.window, cpu))
        (scores,) = by_corpora(test, probs).values()
        write_json(folder.scores, {"validation_uar": best, "test": scores.to_dict()})
        folder.state.unlink()  # of use to an unfinished cell only


class Silent:
    """Shows no progress: the bar is that of the cells."""

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        """Yield the items."""
        return iter(items)

    def say(self, line: str) -> None:
        """Show nothing."""


_memory: Final = SpectraMemory()
"""Of a worker process."""


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends its workers
    torch.set_num_threads(1)


def _train_in_worker(task: tuple[Cell, Split, Path, TableOptions]) -> str | None:
    """Train a cell and return what is wrong, as a text: the errors themselves do not travel."""
    try:
        train_cell(*task, _memory)
    except MmtlError as error:
        return str(error)
    return None
