"""One training run: read the clips, train, keep the best epoch, score it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import nn

from edge.arrays import Array
from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.labels import EMOTIONS
from train.checkpoint import Checkpoint, load_cnn_lstm, save_checkpoint
from train.corpora import Clip
from train.metrics import ClassificationScores, score
from train.model import Architecture, EmotionNet
from train.plots import plot_confusion
from train.precision import PRECISIONS, Precision, comparison, faster, measured_precisions
from train.ranks import Ranks
from train.run_folder import RunFolder, described, git_revision, write_json
from train.segments import Normalisation, Spectra, SpectraReader, fit_normalisation, read_spectra
from train.spectra_cache import SpectraCache
from train.splits import Split, speakers_of
from train.temperature import averaged, fit_temperature
from train.training import Algorithm, Computing, EpochRecord, Options, Training, predict

Item = TypeVar("Item")

SIDES = ("train", "validation", "test")


class ProgressReporter(Protocol):
    """Shows the progress of long work."""

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        """Yield the items, showing how many of `total` are done."""

    def say(self, line: str) -> None:
        """Show a line of text."""


@dataclass(frozen=True)
class Data:
    """The spectra of each side of a split."""

    train: list[Spectra]
    validation: list[Spectra]
    test: list[Spectra]


@dataclass(frozen=True)
class RunSetup:
    """Folder, device and starting point of a run."""

    folder: RunFolder
    device: torch.device
    start: Path | None = None
    """Checkpoint whose network and normalisation the run starts from."""
    resume: bool = False
    """Continue the run in the folder."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Kept with the model: command, corpora, licences."""
    precision: Precision | None = "float32"
    """None: that of the run in the folder, or else the one in which this machine is faster."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that train together; only rank 0 calls `run`, the others `assist`."""
    cache: Path | None = None
    """Folder of spectra, which are mapped, and computed only if they are missing; None: kept in memory."""

    def reader(self) -> SpectraReader:
        """Return what reads the clips."""
        return SpectraCache(self.cache) if self.cache else read_spectra


def run(
    split: Split, arch: Architecture, options: Options, setup: RunSetup, progress: ProgressReporter
) -> ClassificationScores:
    """Train, keep the best epoch by the validation speakers, and score it on the test speakers.

    Args:
        split: the clips of each side.
        arch: the network; ignored if the run starts from a checkpoint.
        options: of the training.
        setup: folder, device and starting point.
        progress: shows the progress.

    Returns:
        The scores on the test speakers, or on the validation speakers if there are no test speakers.

    Raises:
        UsageError: the folder holds another run, there are too few speakers, or the checkpoint to start from
            does not match the run.
    """
    start = load_cnn_lstm(setup.start) if setup.start else None
    front_end = start.front_end if start else FrontEnd()
    arch = start.net.arch if start else arch
    require_fit(split, arch, options)
    require_shareable(split, options, setup.ranks)
    config = _config(split, arch, front_end, options, setup.provenance)
    if setup.precision:
        config["precision"] = setup.precision
    if start:
        require_unheard(split, start.training)
        config = continued(config, start.training)
    setup.folder.require_usable(config, resume=setup.resume)
    torch.manual_seed(options.seed)
    speeds, shortest = options.augmentation.speeds, frames_for_first(arch)
    data = _read_sides(split, setup.reader(), front_end, shortest, speeds, progress)
    if not data.train or not data.validation:
        raise UsageError(
            "training needs training speakers and validation speakers",
            remedy="add recordings or change --split",
        )
    with setup.folder.locked():
        setup.folder.require_usable(config, resume=setup.resume)  # reading takes minutes
        normalisation = start.normalisation if start else fit_normalisation(data.train)
        net = start.net if start else EmotionNet(arch)
        precision = _precision(setup, net, options.draw.window, progress)
        config = setup.folder.begin({**config, "precision": precision})
        training = Training(
            net, data.train, normalisation, options, setup.device, computing=Computing(precision, setup.ranks)
        )
        model = Checkpoint(training.evaluated_net(), front_end, normalisation, config)

        def keep(net: nn.Module) -> None:
            save_checkpoint(setup.folder.best, replace(model, net=cast(EmotionNet, net)))

        train_epochs(training, data.validation, normalisation, setup.folder, keep, progress)
        return _judge(setup.folder, data, setup.device)


def assist(split: Split, arch: Architecture, options: Options, setup: RunSetup) -> None:
    """Compute the share of a rank other than 0 in the steps of a run; write nothing.

    Args:
        split: as of `run`, like the next two.
        arch: the network.
        options: of the training.
        setup: of the run; its folder must be readable where the run is resumed.
    """
    start = load_cnn_lstm(setup.start) if setup.start else None
    front_end = start.front_end if start else FrontEnd()
    arch = start.net.arch if start else arch
    require_fit(split, arch, options)
    require_shareable(split, options, setup.ranks)
    torch.manual_seed(options.seed)
    speeds = options.augmentation.speeds
    data = setup.reader()(split.train, front_end, frames_for_first(arch), speeds=speeds)
    normalisation = start.normalisation if start else fit_normalisation(data)
    net = start.net if start else EmotionNet(arch)
    precision = PRECISIONS[setup.ranks.first_ones(0)]
    training = Training(
        net, data, normalisation, options, setup.device, computing=Computing(precision, setup.ranks)
    )
    if setup.resume and setup.folder.state.exists():
        training.resume(setup.folder.state)
    for _ in range(training.epochs_done, options.epochs):
        for _ in training.epoch():
            pass


def require_shareable(split: Split, options: Options, ranks: Ranks) -> None:
    """Check that every rank has a speaker in each step."""
    if ranks.size == 1:
        return
    if options.algorithm != "mmtl":
        raise UsageError(
            f"{ranks.size} processes share the speakers of a step, but {options.algorithm} is not divided by "
            "speaker",
            remedy="train with --algorithm mmtl, or without torchrun",
        )
    speakers = min(options.draw.speakers, len(speakers_of(split.train)))
    if ranks.size > speakers:
        raise UsageError(
            f"{ranks.size} processes share a step of {speakers} speakers",
            remedy=f"give --nproc-per-node {speakers} or fewer, or more --speakers",
        )


def _precision(setup: RunSetup, net: EmotionNet, window: int, progress: ProgressReporter) -> Precision:
    """Choose the precision, say so if it was measured, and tell the other ranks."""
    chosen = setup.precision
    if chosen is None and setup.folder.config.exists():
        chosen = json.loads(setup.folder.config.read_text("utf-8")).get("precision", "bfloat16")
    if chosen is None:
        seconds = measured_precisions(net, window, setup.device)
        chosen = faster(seconds)
        progress.say(comparison(seconds))
    return PRECISIONS[setup.ranks.first_ones(PRECISIONS.index(chosen))]


def _read_sides(
    split: Split,
    reader: SpectraReader,
    front_end: FrontEnd,
    shortest: int,
    speeds: Sequence[float],
    progress: ProgressReporter,
) -> Data:
    """Read the clips of all three sides; those of the training side at further speeds too."""

    def read(side: str, *speeds: float) -> list[Spectra]:
        def shown(clips: Sequence[Clip], label: str) -> Iterable[Clip]:
            return progress(clips, f"{label}: {side}", len(clips))

        return reader(getattr(split, side), front_end, shortest, shown, speeds)

    return Data(read("train", *speeds), read("validation"), read("test"))


def frames_for_first(arch: Architecture) -> int:
    """Return the number of frames of the first feature: 49 for the default network."""
    frames = 1
    while arch.features_in(frames) < 1:
        frames += 1
    return frames


def train_epochs(
    training: Training,
    validation: Sequence[Spectra],
    normalisation: Normalisation,
    folder: RunFolder,
    keep: Callable[[nn.Module], None],
    progress: ProgressReporter,
) -> float:
    """Train the epochs that are left, and keep the network whenever the validation speakers' UAR is the best.

    Args:
        training: of the run; it continues from the state in the folder, if there is one.
        validation: clips of the validation speakers.
        normalisation: of the network's input.
        folder: of the run, locked.
        keep: writes the network that is evaluated.
        progress: shows the progress.

    Returns:
        The best UAR on the validation speakers, in percent, averaged over corpora.
    """
    if folder.state.exists():
        training.resume(folder.state)
        progress.say(f"resuming after epoch {training.epochs_done}")
    records = folder.keep(training.epochs_done)
    best = max((record["validation_uar"] for record in records), default=-1.0)
    for epoch in range(training.epochs_done, training.options.epochs):
        label = f"epoch {epoch + 1}/{training.options.epochs}"
        losses = list(progress(training.epoch(), label, training.steps))
        net, window = training.evaluated_net(), training.options.draw.window
        logits = predict(
            net, validation, normalisation, window, training.device, training.computing.precision
        )
        record = _epoch_record(epoch, losses, validation, averaged(logits))
        if record.validation_uar > best:
            best = record.validation_uar
            keep(net)
        folder.record(asdict(record))
        training.save(folder.state)  # last: an epoch that is not in the state is run again
        progress.say(
            f"{label}  loss {record.loss:.3f}  validation UAR {record.validation_uar:.1f}  best {best:.1f}"
        )
    return best


def _epoch_record(
    epoch: int, losses: list[tuple[float, float | None]], validation: Sequence[Spectra], probs: Array
) -> EpochRecord:
    by_corpus = {name: 100 * scores.uar for name, scores in by_corpora(validation, probs).items()}
    auxiliary = [auxiliary for _, auxiliary in losses if auxiliary is not None]
    return EpochRecord(
        epoch=epoch,
        loss=float(np.mean([loss for loss, _ in losses])),
        auxiliary_loss=float(np.mean(auxiliary)) if auxiliary else None,
        validation_uar=float(np.mean(list(by_corpus.values()))),
        by_corpus=by_corpus,
    )


def by_corpora(spectra: Sequence[Spectra], probs: Array) -> dict[str, ClassificationScores]:
    """Score the clips of each corpus."""
    return {
        corpus: scored([item for item in spectra if item.clip.corpus == corpus], probs[_of(spectra, corpus)])
        for corpus in sorted({item.clip.corpus for item in spectra})
    }


def scored(spectra: Sequence[Spectra], probs: Array) -> ClassificationScores:
    """Score (N, C) probabilities of clips with known emotions."""
    return scored_clips([item.clip for item in spectra], probs)


def scored_clips(clips: Sequence[Clip], probs: Array) -> ClassificationScores:
    """Score (N, C) probabilities of clips with known emotions."""
    labels = [EMOTIONS.index(clip.emotion) for clip in clips]
    return score(labels, probs, [clip.speaker for clip in clips])


def _judge(folder: RunFolder, data: Data, device: torch.device) -> ClassificationScores:
    """Fit the temperature on the validation speakers, then score both sides once, in float32."""
    model = load_cnn_lstm(folder.best)
    window = model.training["options"]["draw"]["window"]
    net = model.net.to(device)
    logits = predict(net, data.validation, model.normalisation, window, device, "float32")
    labels = [EMOTIONS.index(item.clip.emotion) for item in data.validation]
    temperature = fit_temperature(logits, labels)
    save_checkpoint(folder.best, replace(model, temperature=temperature))
    probs, spectra = averaged(logits, temperature), data.validation
    result = {"temperature": temperature, "validation": _described_scores(spectra, probs)}
    if data.test:
        spectra = data.test
        probs = averaged(predict(net, spectra, model.normalisation, window, device, "float32"), temperature)
        result["test"] = _described_scores(spectra, probs)
    scores = scored(spectra, probs)
    title = "Test speakers" if data.test else "Validation speakers"
    plot_confusion(scores.confusion, folder.confusion, title)
    write_json(folder.scores, result)
    return scores


def _described_scores(spectra: Sequence[Spectra], probs: Array) -> dict[str, Any]:
    return {corpus: scores.to_dict() for corpus, scores in by_corpora(spectra, probs).items()}


def _of(spectra: Sequence[Spectra], corpus: str) -> list[bool]:
    return [item.clip.corpus == corpus for item in spectra]


def architecture_of(
    algorithm: Algorithm,
    dimensions: int,
    heads: Literal["shared", "separate"] = "shared",
    *,
    paper: bool = False,
) -> Architecture:
    """Return the CNN-LSTM of an algorithm: by mtl the emotions are one more output beside the auxiliary ones.

    Args:
        algorithm: that trains it.
        dimensions: number of auxiliary tasks.
        heads: one output for all of them, or one each; one each with mtl.
        paper: the paper's layers.
    """
    return replace(
        Architecture.paper() if paper else Architecture(),
        dimensions=dimensions,
        heads="separate" if algorithm == "mtl" else heads,
        emotions="direct" if algorithm == "mtl" else "transferred",
    )


def require_fit(split: Split, arch: Architecture, options: Options) -> None:
    """Check that the algorithm works with this network and these speakers."""
    tasks = len(options.draw.auxiliary)
    if options.algorithm == "mmtl" and arch.emotions == "direct":
        raise UsageError(
            "the checkpoint to start from was trained by mtl and has no transfer learner, which mmtl trains",
            remedy="start from a checkpoint of erm or mmtl",
        )
    if options.algorithm != "erm" and arch.heads == "separate" and arch.dimensions != tasks:
        raise UsageError(
            f"the checkpoint to start from has outputs for {arch.dimensions} auxiliary tasks, but "
            f"--auxiliary names {tasks}",
            remedy="name the tasks it was trained with",
        )
    if options.algorithm == "mmtl" and options.rates.query == "disjoint":
        clips = Counter(clip.speaker for clip in split.train)
        single = sorted(speaker for speaker, count in clips.items() if count < 2)
        if single:
            raise UsageError(
                f"speaker {single[0]} has only one clip, but --query disjoint needs two or more of each "
                "training speaker",
                remedy="add clips, leave the speaker out, or use --query same",
            )


def require_unheard(split: Split, before: dict[str, Any]) -> None:
    """Refuse validation or test speakers that the checkpoint to start from was trained or chosen on."""
    heard = before.get("speakers", {})
    learned = set(heard.get("train", []))
    chosen_on = learned | set(heard.get("validation", []))
    for side, known in (("validation", learned), ("test", chosen_on)):
        if shared := sorted(known & set(speakers_of(getattr(split, side)))):
            raise UsageError(
                f"the checkpoint to start from was trained or chosen with speaker {shared[0]}, who is a "
                f"{side} speaker here",
                remedy="use its split, or start from another checkpoint",
            )


def continued(config: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Add the command, recordings and speakers of the run that this one starts from."""
    names = [corpus["name"] for corpus in config.get("corpora", [])]
    earlier = [corpus for corpus in before.get("corpora", []) if corpus["name"] not in names]
    sides, heard = config["speakers"], before.get("speakers", {})
    learned = {*sides["train"], *heard.get("train", [])}
    chosen_on = {*sides["validation"], *heard.get("validation", [])} - learned
    unlabelled = sorted({*sides.get("unlabelled", []), *heard.get("unlabelled", [])})
    beside = {"unlabelled": unlabelled} if unlabelled else {}
    return {
        **config,
        "before": before.get("command"),
        "corpora": [*config.get("corpora", []), *earlier],
        "speakers": {**sides, "train": sorted(learned), "validation": sorted(chosen_on), **beside},
    }


def _config(
    split: Split, arch: Architecture, front_end: FrontEnd, options: Options, provenance: dict[str, Any]
) -> dict[str, Any]:
    return {
        "architecture": described(arch),
        "front_end": described(front_end),
        "options": described(options),
        "speakers": {side: speakers_of(getattr(split, side)) for side in SIDES},
        "clips": {side: len(getattr(split, side)) for side in SIDES},
        "git_revision": git_revision(),
        **provenance,
    }
