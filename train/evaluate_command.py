"""`mmtl evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import normalize

import typer

from edge.errors import UsageError
from edge.labels import EMOTIONS
from edge.system.files import require_writable
from edge.system.outputs import require_distinct_files, require_free
from train.command_inputs import Corpora, check_corpora, command_line, files_of, labelled_clips

if TYPE_CHECKING:
    from edge.model.bundle import Bundle
    from train.console import ConsoleProgress
    from train.corpora import Clip
    from train.evaluation import CorpusScores
    from train.protocols import ProtocolName, ProtocolScores


def evaluate(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of a bundle, or a model that ships.", show_default=False)
    ],
    corpora: Corpora,
    heard: Annotated[bool, typer.Option(help="Score its training and validation speakers too.")] = False,
    protocols: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="none (every clip a new stream), running (clips follow each other in a stream), ordinary "
            "(a profile from 20 s of neutral speech), labelled (8 labelled clips). Default: all that the "
            "bundle supports.",
            show_default=False,
        ),
    ] = None,
    speakers: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME,...", help="Score only these speakers.", show_default=False),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="0,1,2,...",
            help="Calibrate each speaker on this many clips of each emotion, and score the other clips.",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[int, typer.Option(help="Random draws of the clips to calibrate on.", min=1)] = 5,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Plot UAR by number of shots, with --shots.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--replace", help="Overwrite an existing picture.")] = False,
    record: Annotated[bool, typer.Option(help="Write the scores to the bundle's manifest and card.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a bundle on labelled recordings, by corpus and speaker, with the deployed runtime."""
    from edge.model.bundle import find_bundle, load_bundle
    from train.console import ConsoleProgress
    from train.protocols import parse_protocols, supported_protocols

    if heard and record:
        raise UsageError(
            "--record keeps only scores of speakers that the bundle was not trained on",
            remedy="leave out --heard",
        )
    if picture and shots is None:
        raise UsageError("--picture plots the scores of --shots", remedy="add --shots")
    if protocols and shots is not None:
        raise UsageError(
            "--shots measures calibration by number of clips, not --protocols", remedy="leave one of them out"
        )
    counts = [] if shots is None else shot_counts(shots)
    if picture:
        require_free(picture, replace=overwrite)
        require_writable(picture.parent)
    model = load_bundle(find_bundle(bundle))
    chosen = parse_protocols(protocols, model) if protocols else supported_protocols(model)
    clips = labelled_clips(corpora, [], improvised_only=True, excited_as_happy=False)
    require_distinct_files({"--picture": picture}, [model.folder, *files_of(corpora, clips)])
    check_corpora(clips, ConsoleProgress())
    if speakers:
        clips = _of_speakers(clips, normalize("NFC", speakers).split(","))
    if not heard:
        clips = _unheard(clips, model.manifest.training)
    if counts:
        measured = {"calibrated": _calibrated(model, clips, counts, draws, picture, as_json=as_json)}
    else:
        measured = _by_protocol(model, clips, chosen, draws, as_json=as_json)
    if record:
        _record(model, measured)


def shot_counts(listed: str) -> list[int]:
    """Parse numbers of shots, such as "0,1,2".

    Raises:
        UsageError: they are not distinct numbers >= 0.
    """
    counts = [int(item) if item.strip().isdecimal() else -1 for item in listed.split(",")]
    if min(counts) < 0 or len(set(counts)) != len(counts):
        raise UsageError(
            f"--shots {listed!r} is invalid", remedy="give distinct numbers of 0 or more, such as 0,1,2,3,5"
        )
    return counts


def _by_protocol(
    model: Bundle, clips: list[Clip], protocols: Sequence[ProtocolName], draws: int, *, as_json: bool
) -> dict[str, Any]:
    """Score the clips by each protocol; show the scores and return them."""
    from train.console import ConsoleProgress
    from train.protocols import described_protocol

    progress = ConsoleProgress()
    scores = _protocol_scores(model, clips, protocols, draws, progress)
    if not any(item.corpora for item in scores.values()):
        raise UsageError(
            f"every speaker has too few clips for {' and '.join(protocols)}", remedy="add --protocols none"
        )
    if "none" in scores:
        _check_confusion(scores["none"].corpora, progress)
    for name, item in scores.items():
        for corpus, left_out in item.left_out.items():
            progress.say(f"{name}: too few clips in {corpus} of {', '.join(left_out)}")
    measured: dict[str, Any] = {
        name: described_protocol(item) for name, item in scores.items() if item.corpora
    }
    if as_json:
        typer.echo(json.dumps(measured, indent=2))
    else:
        _show_protocols(scores, model, progress)
    return measured


def _protocol_scores(
    model: Bundle,
    clips: list[Clip],
    protocols: Sequence[ProtocolName],
    draws: int,
    progress: ConsoleProgress,
) -> dict[ProtocolName, ProtocolScores]:
    from edge.audio.sound_file import read_clip
    from edge.inference.provider import open_engine
    from train import protocols as by
    from train.evaluation import ClipRecognizer

    engine = open_engine(model, "cpu")
    recognize = ClipRecognizer(model, engine)
    windows = [recognize(read_clip(clip.path)) for clip in progress(clips, "recognising", len(clips))]
    heard = by.EvaluationClips(model, engine, clips, windows)
    measures = {
        "running": (by.running_answers, by.DRAWS),
        "ordinary": (by.ordinary_answers, by.DRAWS),
        "labelled": (by.labelled_answers, draws),
    }
    scores: dict[ProtocolName, ProtocolScores] = {}
    for name in protocols:
        if name == "none":
            scores[name] = by.unadapted(heard)
        else:
            answers, count = measures[name]
            total = count * len(heard.speakers)
            scores[name] = by.adapted(clips, progress(answers(heard, count), name, total))
    return scores


def _show_protocols(
    scores: dict[ProtocolName, ProtocolScores], model: Bundle, progress: ConsoleProgress
) -> None:
    from train.console import adapted_table, answer_table, protocol_table, recall_table, score_table
    from train.model_card import trained_corpora

    for name, item in scores.items():
        if not item.corpora:
            continue
        if name == "none":
            progress.show(score_table(item.corpora))
            progress.show(answer_table(item.corpora, item.answers))
        else:
            progress.show(adapted_table(name, item.corpora))
    progress.show(recall_table(scores))
    progress.show(protocol_table(scores, trained_corpora(model.manifest.training)))


def _check_confusion(scores: dict[str, CorpusScores], progress: ConsoleProgress) -> None:
    """Warn of a corpus in which the bundle confuses two classes with each other."""
    from train.label_check import WIDE_MARGIN, exchanged_pair

    for corpus, item in scores.items():
        table = [[100 * count / max(1, sum(row)) for count in row] for row in item.confusion]
        gain, (a, b) = exchanged_pair(table)
        if gain >= WIDE_MARGIN:
            first, second = EMOTIONS[a], EMOTIONS[b]
            progress.say(
                f"warning: in {corpus} the bundle recognises {table[a][b]:.0f} % of {first} as {second} and "
                f"{table[b][a]:.0f} % of {second} as {first}: the two look exchanged, in these labels or in "
                "the bundle's training labels"
            )


def _calibrated(
    model: Bundle, clips: list[Clip], shots: list[int], draws: int, picture: Path | None, *, as_json: bool
) -> dict[str, Any]:
    """Score every speaker before and after calibration; show the scores and return them."""
    from train.console import ConsoleProgress, shot_table
    from train.few_shot import calibration_trials, count_trials, over_corpora, shot_scores
    from train.plots import plot_shots

    progress = ConsoleProgress()
    trials = calibration_trials(model, clips, shots, draws)
    scores = shot_scores(progress(trials, "calibrating", count_trials(clips, shots, draws)))
    if not scores:
        raise UsageError(
            f"no speaker has more than {min(shots)} clips of each emotion, and some are needed to score",
            remedy="give --shots a smaller number, or other recordings",
        )
    described = [asdict(item) for item in scores]
    if as_json:
        typer.echo(json.dumps(described, indent=2))
    else:
        progress.show(shot_table([*scores, *over_corpora(scores)]))
    if picture:
        plot_shots(scores, picture)
    return {"draws": draws, "shots": described}


def _record(model: Bundle, measured: dict[str, Any]) -> None:
    """Write the scores to the bundle's manifest and card."""
    from edge.model.bundle import write_manifest
    from train.model_card import write_card

    new = {name: {"command": command_line(), **scores} for name, scores in measured.items()}
    metrics = {**model.manifest.metrics, **new}
    manifest = replace(model.manifest, metrics=metrics)
    write_card(model.folder, manifest)
    write_manifest(model.folder, manifest)


def _of_speakers(clips: list[Clip], names: list[str]) -> list[Clip]:
    known = {clip.speaker for clip in clips}
    if unknown := sorted(set(names) - known):
        raise UsageError(
            f"--speakers names the unknown speaker {unknown[0]}",
            remedy=f"choose from {', '.join(sorted(known))}",
        )
    return [clip for clip in clips if clip.speaker in names]


def _unheard(clips: list[Clip], training: dict[str, Any]) -> list[Clip]:
    speakers = training.get("speakers", {})
    heard = {*speakers.get("train", []), *speakers.get("validation", [])}
    unheard = [clip for clip in clips if clip.speaker not in heard]
    if not unheard:
        raise UsageError(
            "the bundle was trained on all of these speakers",
            remedy="give recordings of others, or add --heard",
        )
    return unheard
