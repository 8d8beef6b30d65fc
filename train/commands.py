"""`mmtl train` and `mmtl evaluate`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from unicodedata import normalize

import typer

from edge.errors import UsageError
from edge.labels import DIMENSIONS, EMOTIONS, Dimension
from edge.system.files import require_writable
from edge.system.outputs import require_distinct_files, require_free

if TYPE_CHECKING:
    import torch

    from edge.model.bundle import Bundle
    from train.console import ConsoleProgress
    from train.corpora import Clip
    from train.evaluation import CorpusScores
    from train.label_check import LabelCheck
    from train.splits import Split

LICENCES = {
    "ravdess": "CC BY-NC-SA 4.0 (Livingstone & Russo 2018)",
    "emodb": "CC0 1.0 (Burkhardt et al. 2005)",
    "nemo": "CC BY-NC-SA 4.0 (nEMO)",
    "emotiontts": "CC BY-NC-SA 4.0",
    "emotale": "none stated (EmoTale)",
}

Corpora = Annotated[
    list[Path],
    typer.Argument(
        help="Manifest files, folders with a manifest.csv, or IEMOCAP's folder.", show_default=False
    ),
]


def train(
    corpora: Corpora,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.", show_default=False)],
    algorithm: Annotated[
        Literal["erm", "mtl", "mmtl"],
        typer.Option(
            help="erm: the paper's CNN-LSTM, plainly; mtl: with auxiliary heads; mmtl: the paper's algorithm."
        ),
    ] = "mmtl",
    auxiliary: Annotated[
        str, typer.Option(help="Auxiliary tasks: any of v (valence), a (arousal), d (dominance).")
    ] = "v,a,d",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training clips.")] = 30,
    learning_rate: Annotated[
        float, typer.Option(min=1e-7, help="Peak of gamma, the outer step size.")
    ] = 0.001,
    inner_lr: Annotated[float, typer.Option(min=0.0, help="alpha, step size of equation 4 (mmtl).")] = 0.01,
    transfer_lr: Annotated[float, typer.Option(min=0.0, help="beta, step size of equation 5 (mmtl).")] = 0.01,
    inner_steps: Annotated[int, typer.Option(min=1, help="Number of steps of equation 4 (mmtl).")] = 1,
    query: Annotated[
        Literal["same", "disjoint"],
        typer.Option(help="Segments of the emotion loss: the support's, or others (mmtl)."),
    ] = "same",
    heads: Annotated[
        Literal["shared", "separate"],
        typer.Option(help="One output for all auxiliary tasks, or one each; mtl always has one each."),
    ] = "shared",
    double_softmax: Annotated[
        bool, typer.Option(help="Apply softmax before the cross entropy, as the paper's released code does.")
    ] = False,
    label_smoothing: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of each label spread evenly over the classes.")
    ] = 0.0,
    paper: Annotated[
        bool, typer.Option(help="Use the paper's layers, which cannot be streamed or exported.")
    ] = False,
    start: Annotated[Path | None, typer.Option(help="Checkpoint to start from; sets the layers too.")] = None,
    averaging: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.9999, help="Decay per step of the running average of the weights; 0: none."
        ),
    ] = 0.99,
    freeze_norm: Annotated[
        bool, typer.Option(help="Keep the batch normalisation's statistics of --start.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Segments in a batch (erm, mtl).")] = 8,
    speakers: Annotated[int, typer.Option(min=1, help="Speakers in a step (mmtl).")] = 4,
    samples: Annotated[int, typer.Option(min=2, help="Segments of each speaker (mmtl).")] = 16,
    augment: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Strength of the augmentation; 0: none.")
    ] = 1.0,
    split: Annotated[
        Path | None, typer.Option(help="JSON file that names the validation and test speakers.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Corpus to leave out; may be repeated.")] = None,
    scripted: Annotated[bool, typer.Option(help="IEMOCAP: use the scripted dialogues too.")] = False,
    excited_as_happy: Annotated[bool, typer.Option(help="IEMOCAP: count excited as happy.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads.")] = None,
    device: Annotated[
        str | None, typer.Option(help="torch device, such as cpu or cuda; CUDA if available.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in the folder.")] = False,
) -> None:
    """Train a model and score it on speakers that it was not trained on."""
    import torch

    from train.batches import SamplingConfig
    from train.console import ConsoleProgress
    from train.mmtl import Loss, MetaRates
    from train.model import Architecture
    from train.run import RunSetup, run
    from train.run_folder import RunFolder, write_json
    from train.training import Options

    if threads:
        torch.set_num_threads(threads)
    dimensions = auxiliary_tasks(auxiliary)
    arch = Architecture.paper() if paper else Architecture()
    arch = replace(
        arch,
        dimensions=len(dimensions),
        heads="separate" if algorithm == "mtl" else heads,
        emotions="direct" if algorithm == "mtl" else "transferred",
    )
    rates = MetaRates(inner_lr, transfer_lr, inner_steps, query, Loss(label_smoothing, double_softmax))
    base = Options()
    options = Options(
        algorithm=algorithm,
        epochs=epochs,
        learning_rate=learning_rate,
        averaging=averaging,
        freeze_norm=freeze_norm,
        seed=seed,
        rates=rates,
        draw=SamplingConfig(base.draw.window, batch_size, speakers, samples, dimensions),
        augmentation=base.augmentation.scaled(augment),
    )
    clips = _clips(corpora, exclude or [], improvised_only=not scripted, excited_as_happy=excited_as_happy)
    sides = _split(clips, split)
    folder = RunFolder(out)
    require_distinct_files(
        {f"--out ({file.name})": file for file in folder.files}, [*_files_of(corpora, clips), start, split]
    )
    setup = RunSetup(
        folder,
        _device(device),
        start=start,
        resume=resume,
        provenance=_provenance([*sides.train, *sides.validation, *sides.test], start),
    )
    progress = ConsoleProgress()
    checked = _check_labels(clips, progress)
    scores = run(sides, arch, options, setup, progress)
    if checked:
        write_json(folder.label_check, checked.to_dict())
    typer.echo(
        f"UAR {100 * scores.uar:.1f}  accuracy {100 * scores.accuracy:.1f}  ({scores.clips} clips)  {out}"
    )


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", show_default=False)],
    corpora: Corpora,
    heard: Annotated[bool, typer.Option(help="Score its training and validation speakers too.")] = False,
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
    draws: Annotated[
        int, typer.Option(help="Random draws of the clips to calibrate on, with --shots.", min=1)
    ] = 5,
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
    from edge.model.bundle import load_bundle
    from train.console import ConsoleProgress

    if heard and record:
        raise UsageError(
            "--record keeps only scores of speakers that the bundle was not trained on",
            remedy="leave out --heard",
        )
    if picture and shots is None:
        raise UsageError("--picture plots the scores of --shots", remedy="add --shots")
    counts = [] if shots is None else shot_counts(shots)
    if picture:
        require_free(picture, replace=overwrite)
        require_writable(picture.parent)
    model = load_bundle(bundle)
    clips = _clips(corpora, [], improvised_only=True, excited_as_happy=False)
    require_distinct_files({"--picture": picture}, [bundle, *_files_of(corpora, clips)])
    _check_labels(clips, ConsoleProgress())
    if speakers:
        clips = _of_speakers(clips, normalize("NFC", speakers).split(","))
    if not heard:
        clips = _unheard(clips, model.manifest.training)
    if counts:
        measured = _calibrated(model, clips, counts, draws, picture, as_json=as_json)
    else:
        measured = _unadapted(model, clips, as_json=as_json)
    if record:
        _record(model, "calibrated" if counts else "none", measured)


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


def _unadapted(model: Bundle, clips: list[Clip], *, as_json: bool) -> dict[str, Any]:
    """Score every clip without adaptation; show the scores and return them."""
    from train.console import ConsoleProgress, answer_table, score_table
    from train.evaluation import answers_by_threshold, described, recognise_clips, score_by_corpus

    progress = ConsoleProgress()
    probs = recognise_clips(model, progress(clips, "recognising", len(clips)))
    scores = score_by_corpus(clips, probs)
    _check_confusion(scores, progress)
    together = answers_by_threshold(clips, probs)
    if as_json:
        typer.echo(json.dumps(described(scores), indent=2))
    else:
        progress.show(score_table(scores))
        progress.show(answer_table(scores, together))
    return {"corpora": described(scores), "answers": [asdict(item) for item in together]}


def _check_labels(clips: list[Clip], progress: ConsoleProgress) -> LabelCheck | None:
    """Compare the labels of each corpus with the other corpora by sound; warn of exchanged classes."""
    from train.label_check import check_labels

    checked = check_labels(clips, lambda chosen: progress(chosen, "checking labels", len(chosen)))
    for exchange in checked.exchanges if checked else ():
        progress.say(f"warning: {exchange}")
    return checked


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


def _record(model: Bundle, protocol: str, measured: dict[str, Any]) -> None:
    """Write the scores to the bundle's manifest and card."""
    from edge.model.bundle import write_manifest
    from train.model_card import write_card

    metrics = {**model.manifest.metrics, protocol: {"command": _command(), **measured}}
    manifest = replace(model.manifest, metrics=metrics)
    write_card(model.folder, manifest)
    write_manifest(model.folder, manifest)


def auxiliary_tasks(letters: str) -> tuple[Dimension, ...]:
    """Parse auxiliary tasks, such as "v,a".

    Raises:
        UsageError: a letter is not v, a or d, is repeated, or there is none.
    """
    by_letter: dict[str, Dimension] = {name[0]: name for name in DIMENSIONS if name in get_args(Dimension)}
    chosen = [letter.strip().lower() for letter in letters.split(",")]
    unknown = [letter for letter in chosen if letter not in by_letter]
    if unknown or len(set(chosen)) != len(chosen):
        raise UsageError(f"--auxiliary {letters!r} is invalid", remedy="give one or more of v,a,d, each once")
    return tuple(by_letter[letter] for letter in chosen)


def _device(name: str | None) -> torch.device:
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"torch cannot use the device {name!r} ({str(error).splitlines()[0]})", remedy="name cpu or cuda"
        ) from error
    return device


def _clips(
    corpora: list[Path], exclude: list[str], *, improvised_only: bool, excited_as_happy: bool
) -> list[Clip]:
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


def _files_of(corpora: list[Path], clips: list[Clip]) -> list[Path]:
    """List the manifests and recordings that a command reads."""
    from train.corpora import MANIFEST_NAME

    manifests = [path / MANIFEST_NAME if path.is_dir() else path for path in corpora]
    return [*manifests, *(clip.path for clip in clips)]


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


def _command() -> str:
    return shlex.join(["mmtl", *sys.argv[1:]])


def _split(clips: list[Clip], path: Path | None) -> Split:
    from train.splits import default_split, read_split, split_by_speaker

    if path is None:
        return default_split(clips)
    named = read_split(path)
    kept = [clip for clip in clips if clip.corpus not in named["exclude_corpora"]]
    return split_by_speaker(kept, validation=named["validation"], test=named["test"])


def _provenance(clips: list[Clip], start: Path | None) -> dict[str, Any]:
    names = sorted({clip.corpus for clip in clips})
    return {
        "command": _command(),
        "start": str(start) if start else None,
        "corpora": [
            {
                "name": name,
                "licence": LICENCES.get(name, "unknown"),
                "clips": sum(clip.corpus == name for clip in clips),
                "ratings": "derived"
                if any(clip.derived for clip in clips if clip.corpus == name)
                else "human",
            }
            for name in names
        ],
    }
