"""`mmtl tables`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edge.errors import UsageError
from train.command_inputs import (
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
    from train.table_curves import Curves
    from train.table_rows import Row
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
            "mmtl-a, mmtl-d, mmtl-vd, mmtl-ad, mmtl-va; with --encoder ear-erm, ear-mtl, ear-mmtl, "
            "ear-mmtl-paper; or all.",
        ),
    ] = "all",
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Pretrained encoder of the rows ear-...: a head on its features, trained alone.",
            show_default=False,
        ),
    ] = None,
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
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Score the rows after tuning on 0 to 20 labelled clips of the test speaker, too: curve.md, "
            "curve.csv, curve.png.",
        ),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Cells to train at once, one thread each.")] = 1,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Everything that the paper states, where the defaults differ: --augment 0 --paper-layers "
            "--normalisation window --zero-padding --win-length-ms 200 --optimiser adam --no-clipping "
            "--no-averaging --schedule constant. Each can also be named, beside --paper too. mmtl train does "
            "not have those of the input, because such a network cannot be streamed.",
        ),
    ] = False,
    paper_layers: Annotated[
        bool | None,
        typer.Option(help="The layers of the paper's Table 1, padded in time.", show_default=False),
    ] = None,
    normalisation: Annotated[
        Literal["training", "window"] | None,
        typer.Option(
            help="training: gain control, and statistics of each bin over the training set; window: each "
            "segment has mean 0 and deviation 1 over all frames and bins. [default: training]",
            show_default=False,
        ),
    ] = None,
    zero_padding: Annotated[
        bool | None,
        typer.Option(help="Pad segments to 300 frames, which the network reads.", show_default=False),
    ] = None,
    win_length_ms: Annotated[
        int | None,
        typer.Option(
            min=10,
            max=500,
            help="Analysis window; over 50 it is time-folded. [default: 40]",
            show_default=False,
        ),
    ] = None,
    hop_length_ms: Annotated[
        int, typer.Option(min=10, max=40, help="Step of the frames; the paper has 10.")
    ] = 10,
    bins: Annotated[
        int,
        typer.Option(min=40, max=200, help="Of a frame, from 0 to 4 kHz; the paper has 200."),
    ] = 200,
    optimiser: Annotated[
        Literal["adamw", "adam"] | None,
        typer.Option(
            help="Of the outer step; adam has no weight decay. [default: adamw]", show_default=False
        ),
    ] = None,
    clipping: Annotated[
        bool | None,
        typer.Option(
            help="Limit the norm of the outer gradient to 5. [default: clipping]", show_default=False
        ),
    ] = None,
    averaging: Annotated[
        bool | None,
        typer.Option(
            help="Score and keep a running average of the weights. [default: averaging]", show_default=False
        ),
    ] = None,
    schedule: Annotated[
        Literal["cosine", "constant"] | None,
        typer.Option(
            help="Of gamma: rise and fall, or the same always. [default: cosine]", show_default=False
        ),
    ] = None,
    augment: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Strength of the augmentation; 0: none. [default: 1; 0 with --paper]",
            show_default=False,
        ),
    ] = None,
    query: Annotated[
        Literal["same", "disjoint"],
        typer.Option(help="MMTL: segments of the emotion loss are the support's, or others."),
    ] = "same",
    heads: Annotated[
        Literal["shared", "separate"],
        typer.Option(help="MMTL: one output for all auxiliary tasks, or one each."),
    ] = "shared",
    double_softmax: DoubleSoftmax = False,
    learning_rate: Annotated[float, typer.Option(min=1e-7, help="gamma, the outer step size.")] = 0.001,
    inner_lr: Annotated[float, typer.Option(min=0.0, help="MMTL: alpha, of equation 4.")] = 0.01,
    transfer_lr: Annotated[float, typer.Option(min=0.0, help="MMTL: beta, of equation 5.")] = 0.01,
    speakers: Annotated[int, typer.Option(min=1, help="MMTL: speakers in a step.")] = 4,
    samples: Annotated[int, typer.Option(min=2, help="MMTL: segments of each speaker in a step.")] = 16,
    scripted: Scripted = False,
    excited_as_happy: ExcitedAsHappy = False,
) -> None:
    """Train and test the systems of the paper's tables, fold by fold, and write the tables."""
    from train.console import ConsoleProgress
    from train.splits import refuse_shared_recordings
    from train.table_rows import PAPER_ROWS
    from train.tables import TableOptions, cells_of, claim, compute, precision_of

    known = {**PAPER_ROWS, **_encoder_rows(encoder, rows, out)}
    asked = [known[key] for key in _chosen("--rows", rows, known)]
    numbers = _seeds(seeds)
    clips = labelled_clips([corpus], [], improvised_only=not scripted, excited_as_happy=excited_as_happy)
    if only is not None:
        corpora = _chosen("--only", only, sorted({clip.corpus for clip in clips}))
        clips = [clip for clip in clips if clip.corpus in corpora]
    iemocap = all(clip.corpus == "iemocap" for clip in clips)
    by = scheme or ("session" if iemocap else "speaker")
    every = _folds(clips, by)
    cells = cells_of(asked, _chosen("--folds", folds, every), numbers)
    refuse_shared_recordings(clips)
    named: dict[str, Any] = {
        "augment": augment,
        "paper": paper_layers,
        "normalisation": normalisation,
        "zero_padding": zero_padding,
        "win_length_ms": win_length_ms,
        "optimiser": optimiser,
        "clipping": clipping,
        "averaging": averaging,
        "schedule": schedule,
    }
    options = replace(
        TableOptions.to_the_letter() if paper else TableOptions(),
        epochs=epochs,
        heads=heads,
        query=query,
        double_softmax=double_softmax,
        learning_rate=learning_rate,
        inner_lr=inner_lr,
        transfer_lr=transfer_lr,
        speakers=speakers,
        samples=samples,
        hop_length_ms=hop_length_ms,
        bins=bins,
        **{name: value for name, value in named.items() if value is not None},
    )
    if not all(row.head for row in asked):
        options = replace(options, precision=precision_of(out, options, ConsoleProgress()))
    claim(out, options, clips, "speaker" if by == "speaker" else "session")
    heading = _heading(clips, epochs)
    variants = [row.head for row in asked if row.head]
    if variants:
        from train.encoder_cells import clip_features

        progress = ConsoleProgress()
        clip_features(variants[0], clips, lambda some, label: progress(some, label, len(some)))
    try:
        compute(cells, every, out, options, ConsoleProgress(), jobs)
    except KeyboardInterrupt:
        _report(cells, out, heading, iemocap=iemocap)
        raise
    if _report(cells, out, heading, iemocap=iemocap):
        typer.echo((out / "tables.md").read_text("utf-8"))
    if curve:
        from train.table_curves import compute_curves

        _write_curves(compute_curves(cells, every, out, options, ConsoleProgress()), out)


def _write_curves(found: dict[Cell, Curves], out: Path) -> None:
    """Write the curves and show them; say which cells have none.

    Raises:
        UsageError: none has one.
    """
    from train.adaptation_curve import SHOTS
    from train.table_curves import curve_rows, write_curves

    without = sorted({f"{cell.row.key} on {cell.fold}" for cell, curves in found.items() if not curves})
    if len(without) == len({(cell.row.key, cell.fold) for cell in found}):
        raise UsageError(
            f"no cell has a curve: the network has no CNN-LSTM, or the speaker at most {max(SHOTS)} clips",
            remedy="ask for other rows or folds",
        )
    left_out = f" Left out: {', '.join(without)}." if without else ""
    heading = (
        f"# UAR by number of labelled clips\n\n    {command_line()}\n\n"
        f"Percent, mean over folds, seeds and draws. {max(SHOTS)} clips of the test speaker are drawn, the "
        "network is tuned on the first K of them, and all others are scored, the same at every K. K = 0 is "
        f"the network without adaptation.{left_out}"
    )
    write_curves(curve_rows(found), out, heading)
    typer.echo((out / "curve.md").read_text("utf-8"))


def _encoder_rows(encoder: Path | None, rows: str, out: Path) -> dict[str, Row]:
    """Return the rows on the encoder, none without one.

    Raises:
        UsageError: such a row is asked for without an encoder.
    """
    from train.table_rows import ENCODER_KEYS, encoder_rows

    if encoder is None:
        if without := [name for name in map(str.strip, rows.split(",")) if name in ENCODER_KEYS]:
            raise UsageError(f"--rows {without[0]} needs a pretrained encoder", remedy="add --encoder FILE")
        return {}
    from train.feature_cache import encoder_digest
    from train.pretrained_run import untrained

    return encoder_rows(encoder, encoder_digest(untrained(encoder)), out / "features")


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
        f"{ratings}. Of {epochs} epochs of a network, the best on the validation speaker is scored on the "
        "test speaker; heads on an encoder are trained for a fixed number of steps. Percent: mean and "
        "standard deviation over folds and seeds, interval by resampling the test speakers, recall by "
        "emotion. UAR is over the emotions that a speaker shows. The systems other than CNN-LSTM, its MTL "
        "and MMTL are re-implemented, not the authors' code.\n\n"
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
