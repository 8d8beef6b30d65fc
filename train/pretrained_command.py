"""What `mmtl train` does on a pretrained encoder: options to records, and the scores on the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import typer

from edge.errors import UsageError
from edge.model.bundle import find_bundle
from edge.model.manifest import SHIPPED, WEIGHTS
from train.checkpoint import Checkpoint, load_checkpoint, load_pretrained
from train.console import ConsoleProgress, held_out_table
from train.corpora import Clip
from train.feature_cache import EncoderNet, encoder_digest
from train.head_training import HeadOptions
from train.pretrained_net import PretrainedNet
from train.pretrained_run import PretrainedOptions, PretrainedSetup, run_pretrained, untrained
from train.recording_conditions import Ambience, read_ambience
from train.recurrent_net import RecurrentNet
from train.run_folder import RunFolder
from train.speaker_head import BaselineKind
from train.speaker_net import SpeakerArchitecture
from train.splits import Split, read_split, split_by_speaker

TUNING_RATE: Final = 0.1
"""Learning rate from a checkpoint, relative to that from random weights."""

ENCODER_LICENCE: Final = "MIT (OpenAI Whisper, Radford et al. 2022)"

RECURRENT_LICENCE: Final = "Apache 2.0 (Resemblyzer 0.1.4, C. Jemine)"

ENCODER_ONLY: Final = (
    *("encoder", "blocks", "noise", "copies", "steps", "folds", "leave_corpus_out"),
    *("unlabelled", "unlabelled_weight", "tune_block", "baseline", "members"),
)
"""Parameters without effect on a CNN-LSTM."""

CNN_LSTM_ONLY: Final = (
    *("auxiliary", "epochs", "query", "heads", "double_softmax", "paper", "averaging", "freeze_norm"),
    *("batch_size", "augment", "device", "precision"),
)
"""Parameters without effect on a pretrained encoder."""


def starting_point(named: Path | None) -> Path | None:
    """Return the checkpoint of a file, a run folder, a bundle's folder, or a bundle that ships."""
    if named is None:
        return None
    if str(named) in SHIPPED:
        return find_bundle(named) / WEIGHTS
    best = RunFolder(named).best
    return (best if best.is_file() else named / WEIGHTS) if named.is_dir() else named


def is_pretrained(start: Path | None) -> bool:
    """Return whether a checkpoint to start from has a pretrained encoder; otherwise it is a CNN-LSTM.

    Raises:
        ModelError: it cannot be read.
        UsageError: it has a recurrent encoder, whose head is always trained from the beginning.
    """
    if start is None:
        return False
    net = load_checkpoint(start).net
    if isinstance(net, RecurrentNet):
        raise UsageError(
            f"--start cannot go on from {start}, a network on a recurrent encoder, as the bundle small is",
            remedy="train a new head with --encoder FILE, or start from default or from a CNN-LSTM",
        )
    return isinstance(net, PretrainedNet)


def require_effect(context: typer.Context, *, pretrained: bool) -> None:
    """Refuse an option without effect on the kind of network that is trained, or torchrun with an encoder.

    Raises:
        UsageError: there is one.
    """
    if pretrained and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "torchrun divides the training of the CNN-LSTM, not that of a head on an encoder",
            remedy="run mmtl train without torchrun",
        )
    for name in CNN_LSTM_ONLY if pretrained else ENCODER_ONLY:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            kind = "on a pretrained encoder" if pretrained else "without --encoder"
            raise UsageError(
                f"--{name.replace('_', '-')} has no effect {kind}",
                remedy="leave it out" if pretrained else "add --encoder or leave it out",
            )


def training_split(clips: Sequence[Clip], path: Path | None) -> Split:
    """Read a split; without one, all speakers are training speakers."""
    if path is None:
        return Split(tuple(clips), (), ())
    named = read_split(path)
    kept = [clip for clip in clips if clip.corpus not in named["exclude_corpora"]]
    return split_by_speaker(kept, validation=named["validation"], test=named["test"])


def head_options(start: Path | None, **given: Any) -> HeadOptions:
    """Return the options of a head's training; from a checkpoint its learning rate is lower by default."""
    options = HeadOptions(**given)
    return replace(options, learning_rate=TUNING_RATE * options.learning_rate) if start else options


def train_pretrained(
    sides: Split,
    options: PretrainedOptions,
    setup: PretrainedSetup,
    encoder: tuple[Path | None, Path | None],
    progress: ConsoleProgress,
    *,
    blocks: int | None = None,
    baseline: BaselineKind | None = None,
) -> None:
    """Train on a pretrained encoder, and show the scores.

    Args:
        sides: the clips of each side.
        options: of the training.
        setup: folders and provenance, without a starting point.
        encoder: the encoder's file, or the checkpoint to start from: one of the two.
        progress: shows the progress.
        blocks: of a Whisper encoder's file; two if None.
        baseline: what of the speaker the relative inputs of the head are made with; the mean if None.
    """
    file, start = encoder
    if file and start:
        raise UsageError(
            "--encoder and --start cannot be combined: a checkpoint has its own encoder",
            remedy="leave one of them out",
        )
    if start:
        _refuse_with_start(
            ("--leave-corpus-out", options.leave_corpus_out, "that model was trained on corpora already"),
            ("--blocks", blocks, "a checkpoint has its own encoder"),
            ("--baseline", baseline, "a checkpoint's head was trained with its own"),
            ("--members", options.head.members > 1, "the head of a checkpoint is trained on as one"),
            ("--tune-block", options.tuning, "a checkpoint's head was trained on its own block"),
        )
    before = load_pretrained(start) if start else None
    net: EncoderNet = (
        before.net
        if before
        else untrained(file or Path(), blocks=blocks, baseline=baseline or SpeakerArchitecture.baseline)
    )
    origin = _encoder(net, file, before)
    if options.tuning:
        if isinstance(net, RecurrentNet):
            raise UsageError(
                f"--tune-block has no effect on {file}, a recurrent encoder", remedy="leave it out"
            )
        origin["tuned"] = f"block {net.arch.blocks}"
    setup = replace(setup, start=before, provenance={**setup.provenance, "encoder": origin})
    parts = run_pretrained(sides, net, options, setup, progress)
    titles = {
        "cross_fitted": "held-out speakers",
        "leave_corpus_out": "held-out corpora",
        "test": "test speakers",
    }
    for part, scores in parts.items():
        progress.show(held_out_table(scores, titles[part]))
    typer.echo(f"{setup.folder.best}")


def _refuse_with_start(*options: tuple[str, object, str]) -> None:
    """Refuse the options that contradict --start; each with its value, falsy if it was not given, and why."""
    for option, value, why in options:
        if value:
            raise UsageError(
                f"{option} cannot be combined with --start: {why}", remedy="leave one of them out"
            )


def noises(folder: Path | None) -> Ambience:
    """Read the noises and rooms for training; without a folder, there are only simulated ones."""
    return read_ambience(folder, scoring=False) if folder else Ambience((), ())


def _encoder(net: EncoderNet, file: Path | None, before: Checkpoint[PretrainedNet] | None) -> dict[str, Any]:
    """Name the encoder and its licence, for the checkpoint and the card."""
    if before and "encoder" in before.training:
        return dict(before.training["encoder"])
    name = file.name if file else "unknown"
    licence = RECURRENT_LICENCE if isinstance(net, RecurrentNet) else ENCODER_LICENCE
    return {"name": name, "sha256": encoder_digest(net), "licence": licence}
