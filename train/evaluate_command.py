"""`mmtl evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import normalize

import typer

from edge.errors import UsageError
from edge.system.files import require_writable
from edge.system.outputs import require_distinct_files, require_free
from train.command_inputs import check_corpora, command_line, files_of, labelled_clips

if TYPE_CHECKING:
    from edge.model.bundle import Bundle
    from train.corpora import Clip


def evaluate(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of a bundle, or a model that ships.", show_default=False)
    ],
    corpora: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Manifest files, folders with a manifest.csv, or IEMOCAP's folder.", show_default=False
        ),
    ] = None,
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
    conditions: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Score changed recordings too, without adaptation: noise20, noise10, room, telephone, "
            "quiet, clipped, mp3, opus, offset.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Noises and rooms for --conditions: a manifest with the columns path and kind.",
            show_default=False,
        ),
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Ordinary speech without emotion labels: measure how often an emotion is claimed in it.",
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
    from train.evaluation_run import calibration_curve, claims_in_speech, protocols_and_conditions
    from train.protocols import parse_protocols, supported_protocols
    from train.scoring_conditions import parse_conditions, recording_conditions
    from train.speech_claims import of_other_speakers, read_speech

    _require_recordable(heard=heard, record=record)
    _require_compatible(shots, picture, [protocols, conditions, speech])
    if not corpora and (not speech or protocols or conditions):
        raise UsageError("no recordings to score", remedy="name a corpus after the bundle, or add --speech")
    counts = [] if shots is None else shot_counts(shots)
    changed = parse_conditions(conditions, with_ambience=noise is not None) if conditions else ()
    if picture:
        require_free(picture, replace=overwrite)
        require_writable(picture.parent)
    model = load_bundle(find_bundle(bundle))
    chosen = parse_protocols(protocols, model) if protocols else supported_protocols(model)
    transforms = recording_conditions(noise, changed)
    ordinary = of_other_speakers(read_speech(speech), model.manifest.training) if speech else []
    measured: dict[str, Any] = {}
    if corpora:
        clips = _clips_to_score(model, corpora, speakers, picture, heard=heard)
        if counts:
            measured["calibrated"] = calibration_curve(model, clips, counts, draws, picture, show=not as_json)
        else:
            measured |= protocols_and_conditions(model, clips, chosen, draws, transforms, show=not as_json)
    if ordinary:
        measured["speech"] = claims_in_speech(model, ordinary, show=not as_json)
    if as_json:
        typer.echo(json.dumps(measured["calibrated"]["shots"] if counts else measured, indent=2))
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


def _require_recordable(*, heard: bool, record: bool) -> None:
    if heard and record:
        raise UsageError(
            "--record keeps only scores of speakers that the bundle was not trained on",
            remedy="leave out --heard",
        )


def _require_compatible(shots: str | None, picture: Path | None, others: Sequence[object]) -> None:
    if picture and shots is None:
        raise UsageError("--picture plots the scores of --shots", remedy="add --shots")
    if shots is not None and any(others):
        raise UsageError(
            "--shots measures calibration by number of clips alone",
            remedy="leave out --protocols, --conditions and --speech",
        )


def _clips_to_score(
    model: Bundle, corpora: list[Path], speakers: str | None, picture: Path | None, *, heard: bool
) -> list[Clip]:
    """Read the corpora and check their labels; keep the speakers that are to be scored."""
    from train.console import ConsoleProgress

    clips = labelled_clips(corpora, [], improvised_only=True, excited_as_happy=False)
    require_distinct_files({"--picture": picture}, [model.folder, *files_of(corpora, clips)])
    check_corpora(clips, ConsoleProgress())
    if speakers:
        clips = _of_speakers(clips, normalize("NFC", speakers).split(","))
    return clips if heard else _unheard(clips, model.manifest.training)


def _record(model: Bundle, measured: dict[str, Any]) -> None:
    """Write the scores to the bundle's manifest and card."""
    from edge.model.manifest import write_manifest
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
    from train.splits import unheard_clips

    unheard = unheard_clips(clips, training)
    if not unheard:
        raise UsageError(
            "the bundle was trained on all of these speakers",
            remedy="give recordings of others, or add --heard",
        )
    return unheard
