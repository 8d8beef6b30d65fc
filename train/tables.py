"""The tables of Cai et al. 2020: each system trained on each fold with each seed, and its scores.

A cell is one training run, in a folder of its own. A cell that is finished is never computed again; one that
was interrupted continues after its last epoch. The protocols that adapt to the test speaker are computed from
the weights that a finished cell keeps, so an older cell gets them without training.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edge.arrays import Array
from edge.errors import MmtlError, UsageError
from edge.features.frontend import FrontEnd
from edge.labels import DIMENSIONS
from edge.system.files import atomic_write
from train.corpora import Clip
from train.encoder_cells import EncoderCell
from train.metrics import ClassificationScores
from train.mmtl import Loss, MetaRates, Samples
from train.model import Architecture, EmotionNet
from train.precision import Precision, comparison, faster, measured_precisions
from train.run import (
    ProgressReporter,
    architecture_of,
    frames_for_first,
    require_fit,
    scored_clips,
    train_epochs,
)
from train.run_folder import FolderInUseError, RunFolder, described, write_json
from train.segments import Normalisation, Spectra, SpectraMemory, fit_normalisation
from train.speaker_protocols import SpeakerProtocols, speaker_clips, speaker_protocols
from train.spectra_cache import SpectraCache
from train.splits import Split, speakers_of
from train.systems.base import System
from train.table_rows import Row
from train.temperature import averaged
from train.training import Computing, Options, OuterStep, Training, predict

CPU: Final = torch.device("cpu")

Item = TypeVar("Item")

Folds = Mapping[str, Split]
"""Splits by the name of the test speaker."""


PAPER_FRAMES: Final = 300
"""N, to which Cai et al. 2020 pad every segment."""


@dataclass(frozen=True)
class TableOptions:
    """What all cells of a table have in common.

    A field that is added later has a default that means what was computed before: folders of earlier versions
    are read with it (`claim`).
    """

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
    normalisation: Literal["training", "window"] = "training"
    """Statistics of the training set by bin, or of each segment over all frames and bins."""
    zero_padding: bool = False
    """Pad segments to `PAPER_FRAMES`, which the network reads."""
    win_length_ms: int = 40
    hop_length_ms: int = 10
    bins: int = 200
    """Bins from 0 to 4 kHz; fewer are wider."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    clipping: bool = True
    averaging: bool = True
    """Score and keep the running average of the weights."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of gamma."""
    learning_rate: float = 0.001
    """gamma."""
    inner_lr: float = 0.01
    """alpha."""
    transfer_lr: float = 0.01
    """beta."""
    speakers: int = 4
    """m: in a step of MMTL."""
    samples: int = 16
    """Segments of each speaker in a step of MMTL."""
    precision: Precision = "float32"
    """Of the forward passes."""

    @staticmethod
    def to_the_letter() -> TableOptions:
        """Return what Cai et al. 2020 state, sections 2 and 3.1, where the defaults differ from it.

        `double_softmax` is of their released code, not of the paper.
        """
        return TableOptions(
            augment=0.0,
            paper=True,
            normalisation="window",
            zero_padding=True,
            win_length_ms=200,
            optimiser="adam",
            clipping=False,
            averaging=False,
            schedule="constant",
        )

    @property
    def front_end(self) -> FrontEnd:
        """The constants of the spectra."""
        return FrontEnd(
            win_length_ms=self.win_length_ms,
            hop_length_ms=self.hop_length_ms,
            n_fft=4 * self.bins,
            bins=self.bins,
        )

    @property
    def outer(self) -> OuterStep:
        """How the step of size gamma is taken."""
        return OuterStep(self.optimiser, self.clipping, self.schedule)

    def normalised_by(self, training: Sequence[Spectra]) -> Normalisation:
        """Return the normalisation of the input, fitted to spectra of training speakers."""
        padded_to = PAPER_FRAMES if self.zero_padding else 0
        return replace(fit_normalisation(training), scope=self.normalisation, padded_to=padded_to)

    def of(self, row: Row, seed: int) -> tuple[Architecture, Options]:
        """Return network sizes and training of a cell."""
        base = Options()
        loss = Loss(double_softmax=self.double_softmax)
        options = replace(
            base,
            algorithm=row.algorithm,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            averaging=base.averaging if self.averaging else 0.0,
            seed=seed,
            rates=MetaRates(self.inner_lr, self.transfer_lr, query=self.query, loss=loss),
            draw=replace(
                base.draw,
                window=self.front_end.window_frames,
                speakers=self.speakers,
                samples=self.samples,
                auxiliary=row.auxiliary,
            ),
            augmentation=base.augmentation.scaled(self.augment),
        )
        arch = architecture_of(row.algorithm, len(row.auxiliary), self.heads, paper=self.paper)
        return replace(arch, bins=self.bins), options


@dataclass(frozen=True)
class Cell:
    """One system on one fold with one seed."""

    row: Row
    fold: str
    seed: int

    def folder(self, root: Path) -> RunFolder:
        """Return the folder of its run."""
        return RunFolder(root / "cells" / self.row.folder / self.fold / f"seed-{self.seed}")


def cells_of(rows: Iterable[Row], folds: Iterable[str], seeds: Iterable[int]) -> list[Cell]:
    """Return every cell, seed by seed, so that an interrupted table has all rows of its first seeds."""
    return [Cell(row, fold, seed) for seed, fold, row in product(seeds, folds, list(rows))]


def precision_of(root: Path, options: TableOptions, progress: ProgressReporter) -> Precision:
    """Return the precision of the folder's cells; for a new folder the one that is faster here."""
    config = RunFolder(root).config
    if config.exists():
        kept: Precision = (
            json.loads(config.read_text("utf-8")).get("options", {}).get("precision", "bfloat16")
        )
        return kept
    arch = replace(architecture_of("erm", len(DIMENSIONS), paper=options.paper), bins=options.bins)
    seconds = measured_precisions(EmotionNet(arch), options.front_end.window_frames, CPU)
    progress.say(comparison(seconds))
    return faster(seconds)


def claim(
    root: Path, options: TableOptions, clips: Sequence[Clip], folds: Literal["speaker", "session"]
) -> None:
    """Write what all cells have in common to the folder, or compare it with what stands there.

    An option that the folder does not name, because it did not exist when the folder was begun, has its
    default there.

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
        "options": _comparable(options, folder.config),
        "clips": len(clips),
        "speakers": speakers_of(clips),
        "folds": folds,
    }
    folder.require_usable(config, resume=True)
    root.mkdir(parents=True, exist_ok=True)
    folder.begin(config)


def _comparable(options: TableOptions, config: Path) -> dict[str, Any]:
    """Describe the options; leave out those at their default that the configuration does not name."""
    asked, usual = described(options), described(TableOptions())
    if not config.exists():
        return asked
    kept = json.loads(config.read_text("utf-8")).get("options", {})
    return {name: value for name, value in asked.items() if name in kept or value != usual[name]}


def finished(root: Path, cell: Cell) -> ClassificationScores | None:
    """Read a cell's scores on the test speaker; None if it is not finished."""
    path = cell.folder(root).scores
    return ClassificationScores(**json.loads(path.read_text("utf-8"))["test"]) if path.exists() else None


def adapted(root: Path, cell: Cell) -> SpeakerProtocols | None:
    """Read a cell's scores after adaptation to the test speaker; None if there are none by today's rules."""
    path = _protocols_file(root, cell)
    return SpeakerProtocols.from_dict(json.loads(path.read_text("utf-8"))) if path.exists() else None


def _protocols_file(root: Path, cell: Cell) -> Path:
    return cell.folder(root).path / "protocols.json"


def compute(
    cells: Sequence[Cell],
    folds: Folds,
    root: Path,
    options: TableOptions,
    progress: ProgressReporter,
    jobs: int = 1,
) -> None:
    """Train the cells that are not finished, and score those that lack the protocols with adaptation.

    A cell that another command is training is left to it.

    Args:
        cells: of the table.
        folds: the split of each fold.
        root: folder of the tables.
        options: of all cells.
        progress: shows how many cells are done, and the time left.
        jobs: cells trained at once, each in a process of one thread that keeps spectra of its own.

    Raises:
        MmtlError: a cell cannot be trained.
    """
    waiting = [cell for cell in cells if not (finished(root, cell) and adapted(root, cell))]
    left = 0
    tasks = [(cell, folds[cell.fold], root, options) for cell in waiting]
    with _workers(jobs) as run:
        for outcome in progress(run(tasks), "cells", len(tasks)):
            if outcome.problem:
                raise outcome.problem
            left += outcome.in_use
    if left:
        progress.say(
            f"{left} cells are being trained by another command: give this one again when they are finished"
        )


def train_cell(cell: Cell, split: Split, root: Path, options: TableOptions, memory: SpectraMemory) -> None:
    """Train one cell, keep the best epoch by the validation speaker, and score it on the test speaker once.

    What the cell has already is kept: a finished cell is only scored by the protocols that it lacks.

    Raises:
        FolderInUseError: another command is training the cell.
        UsageError: the speakers do not suffice for the algorithm.
    """
    folder = cell.folder(root)
    if not cell.row.head:
        require_fit(split, *options.of(cell.row, cell.seed))
    with folder.locked():
        run = run_of(cell, split, options, memory, folder)
        if not finished(root, cell):
            best = run.fit()
            scores = scored_clips(split.test, run.probs())
            write_json(folder.scores, {"validation_uar": best, "test": scores.to_dict()})
        folder.state.unlink(missing_ok=True)  # of use to an unfinished cell only
        if not adapted(root, cell):
            if not folder.best.exists():
                raise UsageError(
                    f"{folder.best} is missing, which the finished cell had",
                    remedy=f"delete {folder.path} to train it again",
                )
            net = run.network()
            protocols = speaker_protocols(
                net, run.scored_samples(), cell.fold, auxiliary=cell.row.has_auxiliary
            )
            write_json(_protocols_file(root, cell), protocols.to_dict())


def run_of(
    cell: Cell, split: Split, options: TableOptions, memory: SpectraMemory, folder: RunFolder
) -> SpectraCell | EncoderCell:
    """Return what trains and reads a cell, with its data."""
    if cell.row.head:
        return EncoderCell(cell.row, cell.row.head, split, cell.seed, folder)
    return SpectraCell(cell, split, options, memory, folder)


class SpectraCell:
    """A network that reads spectra, on one fold with one seed."""

    def __init__(
        self, cell: Cell, split: Split, options: TableOptions, memory: SpectraMemory, folder: RunFolder
    ) -> None:
        self._row, self._table, self._folder = cell.row, options, folder
        self._arch, self._options = options.of(cell.row, cell.seed)
        front_end, shortest = options.front_end, frames_for_first(self._arch)
        self._train = memory(split.train, front_end, shortest, self._options.augmentation.speeds)
        self._validation, self._test = (
            memory(side, front_end, shortest) for side in (split.validation, split.test)
        )
        self._normalisation = options.normalised_by(self._train)

    def fit(self) -> float:
        """Train, keep the best epoch, and return the validation speaker's UAR in percent."""
        torch.manual_seed(self._options.seed)
        net, outer = self._row.network(self._arch), self._table.outer
        computing = Computing(self._table.precision)
        training = Training(net, self._train, self._normalisation, self._options, CPU, outer, computing)

        def keep(net: nn.Module) -> None:
            with atomic_write(self._folder.best) as partial:
                save_file({name: value.contiguous() for name, value in net.state_dict().items()}, partial)

        return train_epochs(training, self._validation, self._normalisation, self._folder, keep, Silent())

    def network(self) -> EmotionNet | System:
        """Return the network that was kept."""
        net = self._row.network(self._arch)
        net.load_state_dict(load_file(self._folder.best))
        return net.eval()

    def probs(self) -> Array:
        """Return the (N, C) posteriors of the test speaker's clips."""
        window, precision = self._options.draw.window, self._table.precision
        return averaged(predict(self.network(), self._test, self._normalisation, window, CPU, precision))

    def scored_samples(self) -> list[Samples]:
        """Return the segments of each of the test speaker's clips."""
        draw = self._options.draw
        return speaker_clips(self._test, self._normalisation, draw.window, draw.auxiliary)


class Silent:
    """Shows no progress: the bar is that of the cells."""

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        """Yield the items."""
        return iter(items)

    def say(self, line: str) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class _Outcome:
    """Of a cell."""

    problem: MmtlError | None = None
    in_use: bool = False
    """Another command is training the cell."""


_Task = tuple[Cell, Split, Path, TableOptions]


@functools.cache
def spectra_memory(root: Path) -> SpectraMemory:
    """Return what reads spectra for the tables of a folder, which keeps them for all cells."""
    return SpectraMemory(SpectraCache(root / "spectra"))


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[Callable[[list[_Task]], Iterator[_Outcome]]]:
    """Yield what trains cells: here one by one, or in as many processes as there are jobs."""
    if jobs == 1:
        yield lambda tasks: (_outcome(task) for task in tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _begin_worker) as pool:
        yield lambda tasks: pool.imap_unordered(_outcome, tasks)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends its workers
    torch.set_num_threads(1)


def _outcome(task: _Task) -> _Outcome:
    cell, split, root, options = task
    try:
        train_cell(cell, split, root, options, spectra_memory(root))
    except FolderInUseError:
        return _Outcome(in_use=True)
    except MmtlError as error:
        return _Outcome(problem=error)
    return _Outcome()
