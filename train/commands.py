"""`mmtl train`; `mmtl evaluate` and `mmtl tables` from modules of their own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import typer

from edge.errors import UsageError
from edge.labels import DIMENSIONS, Dimension
from edge.system.outputs import require_distinct_files
from train.command_inputs import (
    Augment,
    Corpora,
    DoubleSoftmax,
    Epochs,
    ExcitedAsHappy,
    Scripted,
    check_corpora,
    command_line,
    files_of,
    labelled_clips,
)
from train.evaluate_command import evaluate
from train.tables_command import tables

if TYPE_CHECKING:
    import torch

    from train.corpora import Clip
    from train.splits import Split

__all__ = ["evaluate", "tables", "train"]

LICENCES = {
    "ravdess": "CC BY-NC-SA 4.0 (Livingstone & Russo 2018)",
    "emodb": "CC0 1.0 (Burkhardt et al. 2005)",
    "nemo": "CC BY-NC-SA 4.0 (nEMO)",
    "emotiontts": "CC BY-NC-SA 4.0",
    "emotale": "none stated (EmoTale)",
    "librispeech": "CC BY 4.0 (V. Panayotov 2014)",
}

NO_LABELS: Final = "no labels"


def train(
    corpora: Corpora,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.", show_default=False)],
    context: typer.Context,
    algorithm: Annotated[
        Literal["erm", "mtl", "mmtl", "reptile"] | None,
        typer.Option(
            help="erm: emotions alone; mtl: with auxiliary tasks; mmtl: the paper's algorithm; reptile: meta-"
            "learning of the emotions alone. [default: mmtl; mtl with --encoder]",
        ),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Train a head on the first blocks of this Whisper encoder, or on the LSTM of this speaker "
            "encoder, which stays as it is. The default is the paper's CNN-LSTM, trained as a whole.",
            show_default=False,
        ),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many blocks of the Whisper encoder; more are more accurate with a large encoder, and "
            "slower. [default: 2]",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Literal["mean", "deviation"] | None,
        typer.Option(
            help="What of the speaker's speech a window is compared with: mean, or deviation, the difference "
            "from the mean divided by the standard deviation (pretrained encoder). [default: mean]",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Noises and rooms for the copies: a folder with a manifest.csv (path, kind).",
            show_default=False,
        ),
    ] = None,
    copies: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Copies of each clip in other recording conditions (pretrained encoder)."
        ),
    ] = 5,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Ordinary speech without labels (path, corpus, speaker), in which the head learns to claim "
            "no emotion; half of its speakers stay for mmtl evaluate --speech (pretrained encoder).",
            show_default=False,
        ),
    ] = None,
    unlabelled_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of the loss on that speech.")
    ] = 0.3,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where features are kept for the next run: the encoder's (the run folder's features/ by "
            "default), or the CNN-LSTM's spectra (without it, computed at each start and kept in memory).",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of the head's training (pretrained encoder).")
    ] = 250,
    members: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Heads that are trained apart and joined to one with the mean of their answers (pretrained "
            "encoder).",
        ),
    ] = 1,
    folds: Annotated[
        int,
        typer.Option(
            min=0,
            help="Folds of the training speakers, each scored by a head that was trained on the others "
            "(pretrained encoder); 0: no scores.",
        ),
    ] = 4,
    leave_corpus_out: Annotated[
        bool,
        typer.Option(
            "--leave-corpus-out",
            help="Score each corpus by a head that was trained on the others too (pretrained encoder).",
        ),
    ] = False,
    tune_block: Annotated[
        bool,
        typer.Option(
            "--tune-block",
            help="Tune the encoder's last block on the emotions before the head is trained; heads that score "
            "held-out speakers have blocks of their own (Whisper encoder).",
        ),
    ] = False,
    auxiliary: Annotated[
        str, typer.Option(help="Auxiliary tasks: any of v (valence), a (arousal), d (dominance).")
    ] = "v,a,d",
    epochs: Epochs = 30,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-7,
            help="Peak of gamma, the outer step size. [default: 0.001; 0.003 with --encoder, 0.0003 from a "
            "checkpoint of such a run]",
        ),
    ] = None,
    inner_lr: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="alpha, step size of equation 4 (mmtl) and of reptile. [default: 0.01; 0.05 with --encoder]",
        ),
    ] = None,
    transfer_lr: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="beta, step size of equation 5 (mmtl). [default: 0.01; 0.05 with --encoder]"
        ),
    ] = None,
    inner_steps: Annotated[int, typer.Option(min=1, help="Number of steps of equation 4 (mmtl).")] = 1,
    query: Annotated[
        Literal["same", "disjoint"],
        typer.Option(help="Segments of the emotion loss: the support's, or others (mmtl)."),
    ] = "same",
    heads: Annotated[
        Literal["shared", "separate"],
        typer.Option(help="One output for all auxiliary tasks, or one each; mtl always has one each."),
    ] = "shared",
    double_softmax: DoubleSoftmax = False,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9,
            help="Share of each label spread evenly over the classes. [default: 0; 0.1 with --encoder]",
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option(help="Use the paper's layers, which cannot be streamed or exported.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint or bundle to start from, or the name of one that ships; sets the layers too, "
            "and the encoder if it has one."
        ),
    ] = None,
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
    speakers: Annotated[
        int | None,
        typer.Option(min=1, help="Speakers in a step (mmtl). [default: 4; 8 with --encoder, any algorithm]"),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=2, help="Segments of each speaker (mmtl). [default: 16; 32 with --encoder, any algorithm]"
        ),
    ] = None,
    augment: Augment = 1.0,
    split: Annotated[
        Path | None, typer.Option(help="JSON file that names the validation and test speakers.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Corpus to leave out; may be repeated.")] = None,
    scripted: Scripted = False,
    excited_as_happy: ExcitedAsHappy = False,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads.")] = None,
    device: Annotated[
        str | None, typer.Option(help="torch device, such as cpu or cuda; CUDA if available.")
    ] = None,
    precision: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(
            help="Of the forward passes (CNN-LSTM). [default: the faster on this machine, measured before "
            "the first step]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in the folder.")] = False,
) -> None:
    """Train a model and score it on speakers that it was not trained on."""
    import torch

    from train.console import ConsoleProgress
    from train.mmtl import Loss
    from train.pretrained_command import is_pretrained, require_effect, starting_point, training_split
    from train.run_folder import RunFolder, write_json

    if threads:
        torch.set_num_threads(threads)
    begin = starting_point(start)
    pretrained = encoder is not None or is_pretrained(begin)
    require_effect(context, pretrained=pretrained)
    tasks = auxiliary_tasks(auxiliary)
    clips = labelled_clips(
        corpora, exclude or [], improvised_only=not scripted, excited_as_happy=excited_as_happy
    )
    sides = training_split(clips, split) if pretrained else _split(clips, split)
    folder, progress = RunFolder(out), ConsoleProgress()
    require_distinct_files(
        {f"--out ({file.name})": file for file in folder.files},
        [*files_of(corpora, clips), begin, encoder, split],
    )
    without_labels = _without_labels(unlabelled)
    provenance = _provenance([*sides.train, *sides.validation, *sides.test], begin, without_labels)
    stepped = _given(algorithm=algorithm, learning_rate=learning_rate, seed=seed)
    _require_inner_step(algorithm, inner_lr)
    rates = _given(inner_lr=inner_lr, transfer_lr=transfer_lr, inner_steps=inner_steps)
    drawn = _given(speakers=speakers, samples=samples)
    if pretrained:
        from train.episodes import EpisodeConfig
        from train.head_training import RATES
        from train.last_block import BlockTuning
        from train.pretrained_command import head_options, noises, train_pretrained
        from train.pretrained_run import PretrainedOptions, PretrainedSetup

        head = head_options(begin, steps=steps, unlabelled_weight=unlabelled_weight, members=members)
        if label_smoothing is not None:
            rates["loss"] = Loss(label_smoothing)
        train_pretrained(
            sides,
            PretrainedOptions(
                head=replace(head, rates=replace(RATES, **rates), **stepped),
                episodes=EpisodeConfig(**drawn),
                copies=copies,
                folds=folds,
                leave_corpus_out=leave_corpus_out,
                tuning=BlockTuning(seed=seed) if tune_block else None,
            ),
            PretrainedSetup(
                folder,
                cache or out / "features",
                noises(noise),
                resume=resume,
                unlabelled=without_labels,
                provenance=provenance,
                label_check=lambda: check_corpora(clips, progress),
            ),
            (encoder, begin),
            progress,
            blocks=blocks,
            baseline=baseline,
        )
    else:
        from train.mmtl import MetaRates
        from train.ranks import torchrun_ranks
        from train.run import RunSetup, architecture_of, assist, run
        from train.training import Options

        arch = architecture_of(algorithm or "mmtl", len(tasks), heads, paper=paper)
        base, chosen_device = Options(), _device(device)
        options = replace(
            base,
            epochs=epochs,
            averaging=averaging,
            freeze_norm=freeze_norm,
            rates=MetaRates(query=query, loss=Loss(label_smoothing or 0.0, double_softmax), **rates),
            draw=replace(base.draw, batch_size=batch_size, auxiliary=tasks, **drawn),
            augmentation=base.augmentation.scaled(augment),
            **stepped,
        )
        with torchrun_ranks(chosen_device) as ranks:
            setup = RunSetup(folder, chosen_device, begin, resume, provenance, precision, ranks, cache)
            if ranks.rank > 0:
                assist(sides, arch, options, setup)
                return
            checked = check_corpora(clips, progress)
            scores = run(sides, arch, options, setup, progress)
        if checked:
            write_json(folder.label_check, checked.to_dict())
        typer.echo(
            f"UAR {100 * scores.uar:.1f}  accuracy {100 * scores.accuracy:.1f}  ({scores.clips} clips)  {out}"
        )


def _given(**values: Any) -> dict[str, Any]:
    """Keep the options that were given; the records have the defaults of the others."""
    return {name: value for name, value in values.items() if value is not None}


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
        if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:  # of torchrun
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"torch cannot use the device {name!r} ({str(error).splitlines()[0]})", remedy="name cpu or cuda"
        ) from error
    return device


def _split(clips: list[Clip], path: Path | None) -> Split:
    from train.splits import default_split, read_split, split_by_speaker

    if path is None:
        return default_split(clips)
    named = read_split(path)
    kept = [clip for clip in clips if clip.corpus not in named["exclude_corpora"]]
    return split_by_speaker(kept, validation=named["validation"], test=named["test"])


def _require_inner_step(algorithm: str | None, inner_lr: float | None) -> None:
    if algorithm == "reptile" and inner_lr == 0.0:
        raise UsageError(
            "--inner-lr 0 does not move a speaker's weights, which reptile averages",
            remedy="give a larger one, such as 0.01",
        )


def _without_labels(manifest: Path | None) -> list[Clip]:
    """Read the speech without labels that is learned from."""
    from train.speech_claims import read_speech
    from train.unlabelled import learned_recordings

    return learned_recordings(read_speech(manifest)) if manifest else []


def _provenance(clips: list[Clip], start: Path | None, unlabelled: Sequence[Clip]) -> dict[str, Any]:
    names = sorted({clip.corpus for clip in clips})
    beside = Counter(clip.corpus for clip in unlabelled)
    return {
        "command": command_line(),
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
        ]
        + [
            {"name": name, "licence": LICENCES.get(name, "unknown"), "clips": count, "ratings": NO_LABELS}
            for name, count in sorted(beside.items())
        ],
    }
