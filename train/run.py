"""One training run from clips to scores: read, split, train, keep the best, test it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from edge.arrays import Array
from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.labels import EMOTIONS
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.corpora import Clip
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
        UsageError: the folder holds another run, too few speakers are given, or the checkpoint to
            start from does not fit the run.
    """
    beginning = load_checkpoint(plan.start) if plan.start else None
    front_end = beginning.front_end if beginning else FrontEnd()
    arch = beginning.net.arch if beginning else arch
    _require_fit(split, arch, options)
    config = _config(split, arch, front_end, options, plan.provenance)
    if beginning:
        _require_unheard(split, beginning.training)
        config = _continued(config, beginning.training)
    plan.folder.require_usable(config, resume=plan.resume)
    torch.manual_seed(options.seed)
    data = _read_sides(split, front_end, frames_for_first(arch), options.augmentation.speeds, progress)
    if not data.train or not data.validation:
        raise UsageError("training needs speakers to learn from and others to choose on: name more of them")
    with plan.folder.locked():
        plan.folder.require_usable(config, resume=plan.resume)  # reading takes minutes
        config = plan.folder.begin(config)
        normalisation = beginning.normalisation if beginning else fit_normalisation(data.train)
        net = beginning.net if beginning else EmotionNet(arch)
        training = Training(net, data.train, normalisation, options, plan.device)
        model = Checkpoint(training.judged(), front_end, normalisation, config)
        _epochs(training, model, data.validation, plan, progress)
        return _judge(plan.folder, data, plan.device)


def _read_sides(
    split: Split, front_end: FrontEnd, shortest: int, speeds: Sequence[float], progress: Progress
) -> Data:
    """Read the clips of all three sides, those to learn from at other speeds too."""

    def read(side: str, *speeds: float) -> list[Spectra]:
        def shown(clips: Sequence[Clip], label: str) -> Iterable[Clip]:
            return progress(clips, f"{label}: {side}", len(clips))

        return read_spectra(getattr(split, side), front_end, shortest, shown, speeds)

    return Data(read("train", *speeds), read("validation"), read("test"))


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
    if plan.resume and folder.state.exists():
        training.resume(folder.state)
        progress.say(f"going on after epoch {training.epochs_done}")
    records = folder.keep(training.epochs_done)
    best = max((record["validation_uar"] for record in records), default=-1.0)
    for epoch in range(training.epochs_done, training.options.epochs):
        label = f"epoch {epoch + 1}/{training.options.epochs}"
        losses = list(progress(training.epoch(), label, training.steps))
        logits = predict(
            training.judged(), validation, model.normalisation, training.options.draw.window, training.device
        )
        record = _epoch_record(epoch, losses, validation, averaged(logits))
        if record.validation_uar > best:
            best = record.validation_uar
            save_checkpoint(folder.best, replace(model, net=training.judged()))
        folder.record(asdict(record))
        training.save(folder.state)  # last: an epoch that it does not know is done again
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
    plot_confusion(scores.confusion, folder.confusion, title)
    write_json(folder.scores, result)
    return scores


def _described_scores(spectra: Sequence[Spectra], probs: Array) -> dict[str, Any]:
    return {corpus: scores.to_dict() for corpus, scores in by_corpora(spectra, probs).items()}


def _of(spectra: Sequence[Spectra], corpus: str) -> list[bool]:
    return [item.clip.corpus == corpus for item in spectra]


def _require_fit(split: Split, arch: Architecture, options: Options) -> None:
    """Refuse what the algorithm cannot do with this network or these speakers."""
    tasks = len(options.draw.auxiliary)
    if options.algorithm == "mmtl" and arch.emotions == "direct":
        raise UsageError(
            "the checkpoint to start from has no transfer learner (it is of mtl), and mmtl trains one: "
            "start from one of erm or mmtl"
        )
    if options.algorithm != "erm" and arch.heads == "separate" and arch.dimensions != tasks:
        raise UsageError(
            f"the checkpoint to start from has outputs for {arch.dimensions} auxiliary tasks, and "
            f"--auxiliary names {tasks}: name as many, those it was trained with"
        )
    if options.algorithm == "mmtl" and options.rates.query == "disjoint":
        clips = Counter(clip.speaker for clip in split.train)
        single = sorted(speaker for speaker, count in clips.items() if count < 2)
        if single:
            raise UsageError(
                f"speaker {single[0]} has one clip only, and --query disjoint takes two or more of each "
                "training speaker: add clips, leave the speaker out, or use --query same"
            )


def _require_unheard(split: Split, before: dict[str, Any]) -> None:
    """Refuse to choose on, or test, speakers that the checkpoint to start from has learned from."""
    heard = before.get("speakers", {})
    learned = set(heard.get("train", []))
    chosen_on = learned | set(heard.get("validation", []))
    for side, known in (("validation", learned), ("test", chosen_on)):
        if shared := sorted(known & set(speakers_of(getattr(split, side)))):
            raise UsageError(
                f"the checkpoint to start from was trained or chosen with speaker {shared[0]}, who is on the "
                f"{side} side here: split the speakers as it did, or start from another"
            )


def _continued(config: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Add what a run owes to the one it starts from: its command, recordings and speakers."""
    names = [corpus["name"] for corpus in config.get("corpora", [])]
    earlier = [corpus for corpus in before.get("corpora", []) if corpus["name"] not in names]
    sides, heard = config["speakers"], before.get("speakers", {})
    learned = {*sides["train"], *heard.get("train", [])}
    chosen_on = {*sides["validation"], *heard.get("validation", [])} - learned
    return {
        **config,
        "before": before.get("command"),
        "corpora": [*config.get("corpora", []), *earlier],
        "speakers": {**sides, "train": sorted(learned), "validation": sorted(chosen_on)},
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
