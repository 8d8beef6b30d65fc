"""`mmtl tables`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.errors import UsageError
from train.command_inputs import (
    Augment,
    DoubleSoftmax,
    Epochs,
    ExcitedAsHappy,
    Scripted,
    command_line,
    labelled_clips,
)

if TYPE_CHECKING:
    from train.corpora import Clip
    from train.splits import Split
    from train.tables import Cell

Scheme = Literal["speaker", "session", "sessions-both"]


def tables(
    corpus: Annotated[
        Path,
        typer.Argument(help="Manifest, folder with a manifest.csv, or IEMOCAP's folder.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder of the runs and the tables; what is finished there is not computed again.",
            show_default=False,
        ),
    ],
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Corpus of the manifest to use; all together if not given."),
    ] = None,
    rows: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="cnn-lstm, angular, seqcap, gap-attention, self-attention, cnn-lstm-mtl, mmtl-vad, mmtl-v, "
            "mmtl-a, mmtl-d, mmtl-vd, mmtl-ad, mmtl-va, or all.",
        ),
    ] = "all",
    folds: Annotated[
        str, typer.Option(metavar="NAME,NAME,...", help="Test speakers of the folds to compute, or all.")
    ] = "all",
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Seeds of each cell.")] = "0",
    scheme: Annotated[
        Scheme | None,
        typer.Option(
            help="speaker: each speaker is tested once, another one validates. session: one speaker of a "
            "session of two tests, the other validates, the other sessions train, as in the paper. "
            "sessions-both: the other way round too. [default: session for IEMOCAP, speaker otherwise]",
        ),
    ] = None,
    epochs: Epochs = 30,
    jobs: Annotated[int, typer.Option(min=1, help="Cells to train at once, one thread each.")] = 1,
    augment: Augment = 1.0,
    query: Annotated[
        Literal["same", "disjoint"],
        typer.Option(help="MMTL: segments of the emotion loss are the support's, or others."),
    ] = "same",
    heads: Annotated[
        Literal["shared", "separate"],
        typer.Option(help="MMTL: one output for all auxiliary tasks, or one each."),
    ] = "shared",
    double_softmax: DoubleSoftmax = False,
    paper: Annotated[bool, typer.Option(help="Use the paper's layers, which cannot be streamed.")] = False,
    scripted: Scripted = False,
    excited_as_happy: ExcitedAsHappy = False,
) -> None:
    """Train and test the systems of the paper's tables, fold by fold, and write the tables."""
    from train.console import ConsoleProgress
    from train.splits import refuse_shared_recordings
    from train.tables import ROWS, TableOptions, cells_of, claim, compute

    asked = [ROWS[key] for key in _chosen("--rows", rows, ROWS)]
    numbers = _seeds(seeds)
    clips = labelled_clips([corpus], [], improvised_only=not scripted, excited_as_happy=excited_as_happy)
    if only is not None:
        named = _chosen("--only", only, sorted({clip.corpus for clip in clips}))
        clips = [clip for clip in clips if clip.corpus in named]
    iemocap = all(clip.corpus == "iemocap" for clip in clips)
    by = scheme or ("session" if iemocap else "speaker")
    every = _folds(clips, by)
    cells = cells_of(asked, _chosen("--folds", folds, every), numbers)
    refuse_shared_recordings(clips)
    options = TableOptions(epochs, augment, heads, query, double_softmax, paper)
    claim(out, options, clips, "speaker" if by == "speaker" else "session")
    heading = _heading(clips, epochs)
    try:
        compute(cells, every, out, options, ConsoleProgress(), jobs)
    except KeyboardInterrupt:
        _report(cells, out, heading, iemocap=iemocap)
        raise
    if _report(cells, out, heading, iemocap=iemocap):
        typer.echo((out / "tables.md").read_text("utf-8"))


def _report(cells: list[Cell], out: Path, heading: str, *, iemocap: bool) -> bool:
    """Write the tables of the cells that are finished; return whether there are any."""
    from train.tables import adapted, finished
    from train.tables_report import CellResult, row_scores, write_report

    found = {
        cell: CellResult(scores, protocols)
        for cell in cells
        if (scores := finished(out, cell)) and (protocols := adapted(out, cell))
    }
    if found:
        write_report(row_scores(found), out, heading, iemocap=iemocap)
    return bool(found)


def _heading(clips: list[Clip], epochs: int) -> str:
    from train.splits import speakers_of

    derived = sum(clip.derived for clip in clips)
    ratings = "the annotators'" if not derived else "derived from the emotions"
    if 0 < derived < len(clips):
        ratings = f"the annotators', with gaps in {derived} clips filled by values derived from the emotions"
    return (
        f"# {', '.join(sorted({clip.corpus for clip in clips}))}\n\n    {command_line()}\n\n"
        f"{len(clips)} clips of {len(speakers_of(clips))} speakers; their valence, arousal and dominance are "
        f"{ratings}. Of {epochs} epochs, the best on the validation speaker is scored on the test speaker. "
        "Percent: mean and standard deviation over folds and seeds, interval by resampling the test "
        "speakers, recall by emotion. UAR is over the emotions that a speaker shows. The systems other than "
        "CNN-LSTM, its MTL and MMTL are re-implemented, not the authors' code.\n\n"
        f"{_protocols()}{_gaps(clips)}"
    )


def _protocols() -> str:
    from train.adaptation_curve import PAPER_TUNING
    from train.speaker_protocols import HEAD_TUNING

    head, meta = HEAD_TUNING, PAPER_TUNING
    return (
        f"`calibrated`: up to {head.clips_per_emotion} labelled clips of each emotion of the test speaker "
        f"tune the layers after the embedding (FC 1 to FC 3, {head.steps} steps of gradient descent at "
        f"{head.rate:g} on the emotions, the same for every system with a CNN-LSTM); the speaker's other "
        f"clips are scored, mean of {head.draws} draws. `paper`: the meta learner is tuned on the test "
        f"speaker's auxiliary labels ({meta.inner_steps} steps of equation 4 at gamma = {meta.inner_lr:g}), "
        "then predicts the same clips."
    )


def _gaps(clips: list[Clip]) -> str:
    """Name the speakers who do not show all emotions."""
    from edge.labels import EMOTIONS

    shown: dict[str, set[str]] = {}
    for clip in clips:
        shown.setdefault(clip.speaker, set()).add(clip.emotion)
    lacking = {speaker: [name for name in EMOTIONS if name not in found] for speaker, found in shown.items()}
    named = [f"{speaker} ({', '.join(names)})" for speaker, names in sorted(lacking.items()) if names]
    return f"\n\nSpeakers without clips of an emotion: {', '.join(named)}." if named else ""


def _folds(clips: list[Clip], scheme: Scheme) -> dict[str, Split]:
    from train.splits import leave_one_session_out, leave_one_speaker_out

    if scheme == "speaker":
        return dict(leave_one_speaker_out(clips))
    return dict(leave_one_session_out(clips, both=scheme == "sessions-both"))


def _chosen(option: str, text: str, known: Iterable[str]) -> list[str]:
    """Parse names, in the order of the known ones.

    Raises:
        UsageError: a name is unknown.
    """
    names = list(known)
    if text == "all":
        return names
    asked = [name.strip() for name in text.split(",")]
    if unknown := [name for name in asked if name not in names]:
        raise UsageError(
            f"{option} names {unknown[0]!r}, which does not exist", remedy=f"choose from {', '.join(names)}"
        )
    return [name for name in names if name in asked]


def _seeds(text: str) -> list[int]:
    try:
        return sorted({int(number) for number in text.split(",")})
    except ValueError as error:
        raise UsageError(f"--seeds {text!r} is invalid", remedy="give numbers, such as 0,1,2") from error
