"""What the commands of this package share: options, and the recordings that are named."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unicodedata import normalize

import typer

from edge.errors import UsageError

if TYPE_CHECKING:
    from train.console import ConsoleProgress
    from train.corpora import Clip
    from train.label_check import LabelCheck

Corpora = Annotated[
    list[Path],
    typer.Argument(
        help="Manifest files, folders with a manifest.csv, or IEMOCAP's folder.", show_default=False
    ),
]

Augment = Annotated[float, typer.Option(min=0.0, max=1.0, help="Strength of the augmentation; 0: none.")]

Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training clips.")]

DoubleSoftmax = Annotated[
    bool, typer.Option(help="Apply softmax before the cross entropy, as the paper's released code does.")
]

Scripted = Annotated[bool, typer.Option(help="IEMOCAP: use the scripted dialogues too.")]

ExcitedAsHappy = Annotated[bool, typer.Option(help="IEMOCAP: count excited as happy.")]


def labelled_clips(
    corpora: list[Path], exclude: list[str], *, improvised_only: bool, excited_as_happy: bool
) -> list[Clip]:
    """Read the clips of the four emotions, with ratings derived where annotators gave none.

    Args:
        corpora: manifests or folders.
        exclude: names of corpora to leave out.
        improvised_only: leave out IEMOCAP's scripted dialogues.
        excited_as_happy: count IEMOCAP's "excited" as "happy".

    Raises:
        UsageError: a corpus cannot be read, or `exclude` names an unknown one.
    """
    from train.corpora import four_emotions, read_corpus, with_derived_ratings

    clips = [
        clip
        for path in corpora
        for clip in read_corpus(path, improvised_only=improvised_only, excited_as_happy=excited_as_happy)
    ]
    exclude = [normalize("NFC", name) for name in exclude]
    found = {clip.corpus for clip in clips}
    if unknown := sorted(set(exclude) - found):
        raise UsageError(
            f"--exclude names the unknown corpus {unknown[0]}",
            remedy=f"choose from {', '.join(sorted(found))}",
        )
    return with_derived_ratings(four_emotions([clip for clip in clips if clip.corpus not in exclude]))


def files_of(corpora: list[Path], clips: list[Clip]) -> list[Path]:
    """List the manifests and recordings that a command reads."""
    from train.corpora import MANIFEST_NAME

    manifests = [path / MANIFEST_NAME if path.is_dir() else path for path in corpora]
    return [*manifests, *(clip.path for clip in clips)]


def check_corpora(clips: list[Clip], progress: ConsoleProgress) -> LabelCheck | None:
    """Compare the labels of each corpus with the other corpora by sound; warn of exchanged classes."""
    from train.label_check import check_labels

    checked = check_labels(clips, lambda chosen: progress(chosen, "checking labels", len(chosen)))
    for exchange in checked.exchanges if checked else ():
        progress.say(f"warning: {exchange}")
    return checked


def command_line() -> str:
    """Return the command as it was typed."""
    return shlex.join(["mmtl", *sys.argv[1:]])
