"""One training run from clips to scores: read, split, train, keep the best, test it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from edge.errors import UsageError
from edge.frontend import Array, FrontEnd
from edge.labels import EMOTIONS
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.metrics import Scores, score
from train.model import Architecture, EmotionNet
from train.plots import plot_confusion
from train.run_folder import RunFolder, described, git_revision, write_json
from train.segments import Spectra, fit_normalisation, read_spectra
from train.splits import Split, speakers_of
from train.temperature import averaged, fit_temperature
from train.training import EpochRecord, Options, Training, predict

Item = TypeVar("Item")

SIDES = ("train", "validation", "test")


class Progress(Protocol):
    """Shows how far long work is."""

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        """Pass the items on, showing how many of `total` went by."""

    def say(self, line: str) -> None:
        """Show a line."""


@dataclass(frozen=True)
class Data:
    """The spectra of a split, ready for any run."""

    train: list[Spectra]
    validation: list[Spectra]
    test: list[Spectra]


def read_split_spectra(split: Split, front_end: FrontEnd, shortest: int, progress: Progress) -> Data:
    """Read the clips of all three sides."""
    sides = [
        read_spectra(
            getattr(split, side),
            front_end,
            shortest,
            lambda clips, _, side=side: progress(clips, f"reading {side}", len(clips)),  # type: ignore[misc]
        )
        for side in SIDES
    ]
    return Data(*sides)


@dataclass(frozen=True)
class Plan:
    """Where a run goes and what it starts from."""

    folder: RunFolder
    device: torch.device
    start: Path | None = None
    """A checkpoint whose network and normalisation are taken up."""
    resume: bool = False
    """Go on with the run in the folder."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Facts to keep with the model: command, corpora, licences."""


def run(split: Split, arch: Architecture, options: Options, plan: Plan, progress: Progress) -> Scores:
    """Train, keep the epoch that is best on the validation speakers, and score it on the test speakers.

    Args:
        split: the clips of each side.
        arch: the network; ignored where the run starts from a checkpoint.
        options: how to train.
        plan: where, and from what.
        progress: shows how far it is.

    Returns:
        The scores on the test speakers, or on the validation speakers where there are no others.

    Raises:
        UsageError: the folder holds another run, or too few speakers are given.
    """
    beginning = load_checkpoint(plan.start) if plan.start else None
    front_end = beginning.front_end if beginning else FrontEnd()
    arch = beginning.net.arch if beginning else arch
    before = {"before": beginning.training.get("command")} if beginning else {}
    config = _config(split, arch, front_end, options, plan.provenance | before)
    plan.folder.begin(config, resume=plan.resume)
    torch.manual_seed(options.seed)
    data = read_split_spectra(split, front_end, frames_for_first(arch), progress)
    if not data.train or not data.validation:
        raise UsageError("training needs speakers to learn from and others to choose on: name more of them")
    normalisation = beginning.normalisation if beginning else fit_normalisation(data.train)
    net = beginning.net if beginning else EmotionNet(arch)
    training = Training(net, data.train, normalisation, options, plan.device)
    model = Checkpoint(training.judged(), front_end, normalisation, config)
    _epochs(training, model, data.validation, plan, progress)
    return _judge(plan.folder, data, plan.device)


def frames_for_first(arch: Architecture) -> int:
    """Count the frames that one feature takes: 49 for the default network."""
    frames = 1
    while arch.features_in(frames) < 1:
        frames += 1
    return frames


def _epochs(
    training: Training,
    model: Checkpoint,
    validation: Sequence[Spectra],
    plan: Plan,
    progress: Progress,
) -> None:
    folder = plan.folder
    records = folder.records() if plan.resume else []
    if records:
        training.resume(folder.state, len(records))
        progress.say(f"going on after epoch {len(records)}")
    best = max((record["validation_uar"] for record in records), default=-1.0)
    for epoch in range(len(records), training.options.epochs):
        label = f"epoch {epoch + 1}/{training.options.epochs}"
        losses = list(progress(training.epoch(), label, training.steps))
        logits = predict(
            training.judged(), validation, model.normalisation, training.options.draw.window, training.device
        )
        record = _epoch_record(epoch, losses, validation, averaged(logits))
        if record.validation_uar > best:
            best = record.validation_uar
            save_checkpoint(folder.best, replace(model, net=training.judged()))
        training.save(folder.state)
        folder.record(asdict(record))
        progress.say(
            f"{label}  loss {record.loss:.3f}  validation UAR {record.validation_uar:.1f}  best {best:.1f}"
        )


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


def by_corpora(spectra: Sequence[Spectra], probs: Array) -> dict[str, Scores]:
    """Score the clips of each corpus."""
    return {
        corpus: scored([item for item in spectra if item.clip.corpus == corpus], probs[_of(spectra, corpus)])
        for corpus in sorted({item.clip.corpus for item in spectra})
    }


def scored(spectra: Sequence[Spectra], probs: Array) -> Scores:
    """Score (N, C) probabilities of clips with known emotions."""
    labels = [EMOTIONS.index(item.clip.emotion) for item in spectra]
    return score(labels, probs, [item.clip.speaker for item in spectra])


def _judge(folder: RunFolder, data: Data, device: torch.device) -> Scores:
    """Fit the temperature on the validation speakers, then score both sides once."""
    model = load_checkpoint(folder.best)
    window = model.training["options"]["draw"]["window"]
    net = model.net.to(device)
    logits = predict(net, data.validation, model.normalisation, window, device)
    labels = [EMOTIONS.index(item.clip.emotion) for item in data.validation]
    temperature = fit_temperature(logits, labels)
    save_checkpoint(folder.best, replace(model, temperature=temperature))
    probs, spectra = averaged(logits, temperature), data.validation
    result = {"temperature": temperature, "validation": _described_scores(spectra, probs)}
    if data.test:
        spectra = data.test
        probs = averaged(predict(net, spectra, model.normalisation, window, device), temperature)
        result["test"] = _described_scores(spectra, probs)
    scores = scored(spectra, probs)
    title = "Test speakers" if data.test else "Validation speakers"
    plot_confusion(scores.confusion, folder.path / "confusion.png", title)
    write_json(folder.scores, result)
    return scores


def _described_scores(spectra: Sequence[Spectra], probs: Array) -> dict[str, Any]:
    return {corpus: scores.to_dict() for corpus, scores in by_corpora(spectra, probs).items()}


def _of(spectra: Sequence[Spectra], corpus: str) -> list[bool]:
    return [item.clip.corpus == corpus for item in spectra]


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
