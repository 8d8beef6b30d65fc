"""What each part of the default model is worth: a command computes a row, another one prints the table.

    python benchmarks/accuracy/ablation.py row deviation ../shared/data --exclude emotale
        --pretrained ../shared/pretrained --noise ../shared/noise --unlabelled ../shared/speech
    python benchmarks/accuracy/ablation.py excluded deviation ... (the same)
    python benchmarks/accuracy/ablation.py table

Each training speaker is scored by a head that was trained on other speakers (four folds), and each corpus by
a head that was trained on the other corpora, as `mmtl train --encoder --leave-corpus-out` does. The encoders'
states are pooled once, for all rows, in `--cache`. A row is one head, and its baselines are shrunken as in
its training; what ships is five heads joined, whose baselines are shrunken half as much. `excluded` scores
the corpus that is left out by a head of all training speakers. Nothing is chosen by that corpus.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.diagnostics.machine import this_machine
from edge.labels import EMOTIONS
from train.acoustics import measures
from train.baseline_protocols import Answers, FittedHead, ProtocolConfig, answers_by_protocol, merged
from train.command_inputs import labelled_clips
from train.console import ConsoleProgress
from train.corpora import Clip
from train.cross_fitting import held_out_answers, speaker_folds, without_speakers_of
from train.episodes import EpisodeConfig, Episodes
from train.evaluation import score_by_corpus
from train.feature_cache import Copy, Features, cached_features
from train.head_training import RATES, HeadAlgorithm, HeadOptions, train_head
from train.last_block import BlockTuning
from train.metrics import confusion_by_speaker, uar_of
from train.pretrained_command import noises
from train.pretrained_net import PretrainedArchitecture, PretrainedNet, normalised
from train.pretrained_run import untrained
from train.recording_conditions import ChannelConfig
from train.run_features import CopyOptions, RunClips, TunedEncoding
from train.speaker_head import LEARNED_INPUTS, BaselineKind, HeadArchitecture, fit_statistics
from train.speaker_net import moments
from train.speech_claims import read_speech
from train.temperature import averaged
from train.unlabelled import UnlabelledSpeech, learned_recordings
from train.whisper_encoder import WhisperEncoder, load_whisper_encoder

BLOCKS: Final = 3
"""In the published files that are used here."""

PROSODY: Final = 7
"""First values of `train.acoustics.measures`: loudness, pitch, rate, their spread, voiced share, duration."""

DRAWS: Final = 1000
"""Bootstrap samples of the speakers."""

REFERENCE: Final = "reference"
"""The row that the others are compared with, and differ from in what they name."""

Part = Literal["speakers", "corpora"]
PARTS: Final[tuple[Part, ...]] = ("speakers", "corpora")

Confusions = dict[str, dict[str, dict[str, list[list[int]]]]]
"""By protocol, corpus and speaker; rows are the truth."""


@dataclass(frozen=True)
class Row:
    """A recipe for the head; the defaults are those of `REFERENCE`."""

    what: str
    """In the table."""
    encoder: Literal["tiny", "base"] = "tiny"
    pooled: tuple[str, ...] = ("mean 1", "mean 2", "deviation 2")
    """Statistic and number of the block whose states it is of; 0 is the stem."""
    copies: int = 3
    algorithm: HeadAlgorithm = "mmtl"
    heads: Literal["shared", "separate"] = "separate"
    query: Literal["same", "disjoint"] = "disjoint"
    baseline: Literal["none", "mean", "deviation"] = "mean"
    prosody: bool = False
    unlabelled: float = 0.3
    """Weight of the speech without labels; 0 leaves it out."""
    tuned: bool = False
    """Block 2 is tuned on the speakers of each head first (`train.last_block`)."""
    seed: int = 0


def _last(block: int) -> tuple[str, ...]:
    """Return the usual pooling, as it is with another number of blocks."""
    return f"mean {block - 1}", f"mean {block}", f"deviation {block}"


ROWS: Final = {
    REFERENCE: Row("block 2 as published, baseline of the mean"),
    "tuned-deviation": Row("block 2 tuned, baseline of mean and deviation", tuned=True, baseline="deviation"),
    "seed-1": Row("another seed", seed=1),
    "seed-2": Row("another seed", seed=2),
    "one-block": Row("1 block", pooled=_last(1)),
    "three-blocks": Row("3 blocks", pooled=_last(3)),
    "mean": Row("pooled by the mean of block 2", pooled=("mean 2",)),
    "last-block": Row("pooled by mean and deviation of block 2", pooled=("mean 2", "deviation 2")),
    "no-copies": Row("no copies in other conditions", copies=0),
    "one-copy": Row("one copy in other conditions", copies=1),
    "base-1": Row("base, 1 block, no copies", "base", _last(1), copies=0),
    "base-2": Row("base, 2 blocks, no copies", "base", _last(2), copies=0),
    "base-3": Row("base, 3 blocks, no copies", "base", _last(3), copies=0),
    "base-3-copies": Row("base, 3 blocks", "base", _last(3)),
    "all-labelled": Row("no speech without labels", unlabelled=0.0),
    "unlabelled-0.1": Row("speech without labels with weight 0.1", unlabelled=0.1),
    "unlabelled-1": Row("speech without labels with weight 1", unlabelled=1.0),
    "frozen": Row("no copies, no speech without labels", copies=0, unlabelled=0.0),
    "tuned": Row("the same, block 2 tuned", copies=0, unlabelled=0.0, tuned=True),
    "block-tuned": Row("block 2 tuned", tuned=True),
    "prosody": Row("pitch, loudness and rate beside, no copies", copies=0, prosody=True),
    "no-baseline": Row("no baseline", baseline="none"),
    "deviation": Row("baseline of mean and deviation", baseline="deviation"),
    "erm": Row("plain supervised training", algorithm="erm"),
    "mtl": Row("multi-task learning", algorithm="mtl"),
    "reptile": Row("Reptile", algorithm="reptile"),
    "shared-same": Row("MMTL, one output for the ratings, support as query", heads="shared", query="same"),
}


@dataclass(frozen=True)
class EveryBlockArchitecture(PretrainedArchitecture):
    """Sizes of a network that pools the stem and each block."""

    blocks: int = BLOCKS

    @property
    def embedding_size(self) -> int:
        """D: mean and deviation of each."""
        return 2 * (self.blocks + 1) * self.width


class EveryBlock(PretrainedNet):
    """Pools the stem and each block, from which a row takes its part."""

    def pooled(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, M) frames to (B, D): mean and deviation of the stem, of block 1, and so on."""
        states = self.encoder.hidden_states(normalised(inputs, lengths), lengths)
        counts = None if lengths is None else self.encoder.states_in(lengths)
        return torch.cat([values for state in states for values in moments(state, counts)], dim=1)


def columns(row: Row, width: int) -> NDArray[np.int64]:
    """Return the places in `EveryBlock.pooled` of the values that a row reads."""
    places = []
    for name in row.pooled:
        statistic, block = name.split()
        first = (2 * int(block) + (statistic == "deviation")) * width
        places.append(np.arange(first, first + width))
    return np.concatenate(places)


@dataclass(frozen=True)
class Fit:
    """Trains heads by a row's recipe."""

    row: Row
    progress: ConsoleProgress
    speech: Sequence[Clip]
    """Without labels ..."""
    speech_copies: Sequence[Features]
    """... and its features."""

    def __call__(self, clips: Sequence[Clip], copies: Sequence[Features], name: str) -> FittedHead:
        """Train on some clips; the first copy gives the statistics."""
        row = self.row
        values = np.asarray(copies[0].values, np.float32)
        episodes = EpisodeConfig(without=1.0) if row.baseline == "none" else EpisodeConfig()
        kind: BaselineKind = "deviation" if row.baseline == "deviation" else "mean"
        rates = replace(RATES, inner_lr=0.01, transfer_lr=0.01, query=row.query)
        options = HeadOptions(
            algorithm=row.algorithm, rates=rates, seed=row.seed, unlabelled_weight=row.unlabelled
        )
        statistics = fit_statistics(values)
        drawn = Episodes(clips, copies, statistics, episodes, row.seed, LEARNED_INPUTS[kind])
        beside = (
            UnlabelledSpeech(self.speech, self.speech_copies, statistics, row.seed, kind)
            if row.unlabelled
            else None
        )
        head = train_head(
            drawn,
            HeadArchitecture(values.shape[1], heads=row.heads),
            options,
            unlabelled=beside,
            shown=lambda steps: self.progress(steps, f"training without {name}", options.steps),
        )
        return FittedHead(statistics, head, LEARNED_INPUTS[kind])


def compute(row: Row, clips: Sequence[Clip], options: argparse.Namespace) -> dict[Part, Confusions]:
    """Train the heads of a row, and count their answers for speakers that they have not heard."""
    heard = Heard(row, clips, [], options)
    folds = {f"fold {number}": fold for number, fold in enumerate(speaker_folds(clips, 4), 1)}
    groups: dict[Part, dict[str, list[str]]] = {"speakers": folds, "corpora": without_speakers_of(clips)}

    def answers(name: str, speakers: Sequence[str]) -> Answers:
        copies, _, fit = heard.without(name, speakers)
        return held_out_answers(clips, copies, {name: speakers}, fit, ProtocolConfig())

    return {
        part: counted(merged([answers(name, speakers) for name, speakers in held_out.items()]), row)
        for part, held_out in groups.items()
    }


def compute_excluded(
    row: Row, clips: Sequence[Clip], excluded: Sequence[Clip], options: argparse.Namespace
) -> dict[str, Any]:
    """Train a row's head on all clips, and count its answers for a corpus that it has not heard."""
    copies, recorded, fit = Heard(row, clips, excluded, options).without("the excluded corpus", ())
    fitted = fit(clips, copies, "the excluded corpus")
    answers = answers_by_protocol(fitted, excluded, recorded[0], ProtocolConfig())
    return {"confusions": counted(answers, row), "harmed": harmed(answers)}


class Heard:
    """What a row reads of the clips, of an excluded corpus and of the speech without labels."""

    def __init__(
        self, row: Row, clips: Sequence[Clip], excluded: Sequence[Clip], options: argparse.Namespace
    ) -> None:
        self._row, self._progress = row, ConsoleProgress()
        self._speech = learned_recordings(read_speech(options.unlabelled)) if row.unlabelled else []
        self._encoding: TunedEncoding | None = None
        if row.tuned:
            every = RunClips(clips, excluded, self._speech)
            self._encoding = tuned_encoding(row, every, options, self._progress)
            return
        as_recorded = replace(row, copies=0)
        self._copies = row_features(row, clips, "labelled", options, self._progress)
        self._excluded = row_features(as_recorded, excluded, "excluded", options, self._progress)
        self._beside = row_features(row, self._speech, "unlabelled", options, self._progress)

    def without(self, name: str, speakers: Sequence[str]) -> tuple[list[Features], list[Features], Fit]:
        """Return the copies of the clips, those of the excluded corpus, if any, and what trains a head."""
        if self._encoding:
            read = self._encoding.without(name, speakers)
            return read.copies, [read.test], Fit(self._row, self._progress, self._speech, read.unlabelled)
        return self._copies, self._excluded, Fit(self._row, self._progress, self._speech, self._beside)


def tuned_encoding(
    row: Row, clips: RunClips, options: argparse.Namespace, progress: ConsoleProgress
) -> TunedEncoding:
    """Return the encoding by a last block that is tuned without the speakers that are held out."""
    net = cast("PretrainedNet", untrained(encoder_file(row, options)))
    folder = options.cache / row.encoder / ("excluded" if clips.test else "labelled")
    copies = CopyOptions(row.copies, folder, (noises(options.noise), ChannelConfig()))
    return TunedEncoding(clips, net, copies, BlockTuning(seed=row.seed), progress)


def encoder_file(row: Row, options: argparse.Namespace) -> Path:
    """Name the file of the row's encoder."""
    return Path(options.pretrained / f"whisper_{row.encoder}_encoder_{BLOCKS}_blocks.safetensors")


def pretrained_encoder(row: Row, options: argparse.Namespace) -> WhisperEncoder:
    """Read the row's encoder, with all blocks of its file."""
    return load_whisper_encoder(encoder_file(row, options), BLOCKS)


def row_features(
    row: Row, clips: Sequence[Clip], kind: str, options: argparse.Namespace, progress: ConsoleProgress
) -> list[Features]:
    """Return the values that a row reads, of the clips as recorded and of its copies; none of no clips.

    Args:
        row: says what is read.
        clips: what is heard.
        kind: names the folder in the cache.
        options: of the command.
        progress: shows the progress.
    """
    if not clips:
        return []
    whisper = pretrained_encoder(row, options)
    net = EveryBlock(EveryBlockArchitecture(width=whisper.conv1.out_channels))
    net.encoder.load_state_dict(whisper.state_dict())
    conditions = (noises(options.noise), ChannelConfig())

    def shown(some: Sequence[Clip], label: str) -> Iterable[Clip]:
        return progress(some, label, len(some))

    chosen = columns(row, net.arch.width)
    folder = options.cache / row.encoder / kind
    found = []
    for number in range(row.copies + 1):
        copy = cached_features(folder, clips, net.eval(), Copy(number), conditions, shown)
        found.append(replace(copy, values=copy.values[:, chosen]))
    if row.prosody:
        beside = np.array([prosody(clip) for clip in shown(clips, "prosody")], np.float16)
        found = [
            replace(copy, values=np.concatenate([copy.values, beside[copy.clip]], axis=1)) for copy in found
        ]
    return found


def prosody(clip: Clip) -> Array:
    """Measure a clip; what has no value, such as the pitch of a whisper, is 0."""
    return np.nan_to_num(measures(read_clip(clip.path))[:PROSODY])


def counted(answers: Answers, row: Row) -> Confusions:
    """Count the answers by protocol, corpus and speaker."""
    found: Confusions = {}
    for protocol, items in answers.items():
        if not items or (row.baseline == "none" and protocol != "none"):
            continue
        guesses = averaged([item.logits for item in items]).argmax(axis=1)
        truth = [EMOTIONS.index(item.clip.emotion) for item in items]
        corpus_of = {item.clip.speaker: item.clip.corpus for item in items}
        by_speaker = confusion_by_speaker(truth, guesses, [item.clip.speaker for item in items])
        for speaker, matrix in by_speaker.items():
            found.setdefault(protocol, {}).setdefault(corpus_of[speaker], {})[speaker] = matrix.tolist()
    return found


def harmed(answers: Answers) -> dict[str, float]:
    """Return by baseline the percentage of speakers that it harms, against none on the same clips."""
    alone = {item.clip.path: item.logits for item in answers["none"]}
    found = {}
    for protocol, items in answers.items():
        if protocol == "none" or not items:
            continue
        clips = [item.clip for item in items]
        without = averaged([alone[clip.path] for clip in clips])
        scores = score_by_corpus(clips, averaged([item.logits for item in items]), without).values()
        lost = sum(item.speakers * (item.harmed or 0.0) for item in scores)
        found[str(protocol)] = lost / sum(item.speakers for item in scores)
    return found


def mean_uars(confusions: Mapping[str, Mapping[str, Any]]) -> Array:
    """Return the mean UAR of the corpora in percent: of all speakers, then of `DRAWS` samples of speakers.

    Args:
        confusions: counts by corpus and speaker. The samples of two rows are of the same speakers.
    """
    totals = []
    for number, corpus in enumerate(sorted(confusions)):
        matrices = np.array([confusions[corpus][name] for name in sorted(confusions[corpus])])
        rng = np.random.default_rng(number)
        count = len(matrices)
        times = rng.multinomial(count, np.full(count, 1.0 / count), size=DRAWS)
        summed = np.tensordot(np.vstack([np.ones(count, np.int64), times]), matrices, axes=1)
        totals.append(100.0 * uar_of(summed))
    result: Array = np.mean(totals, axis=0)
    return result


def table(folder: Path) -> str:
    """Write the tables of the rows whose results are in a folder: scores, and differences to `REFERENCE`."""
    results = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))["parts"]
        for name in ROWS
        if (folder / f"{name}.json").exists()
    }
    heads = [f"{part}: {protocol}" for part in PARTS for protocol in ("none", "running", "ordinary")]
    top = ["| " + " | ".join(["row", "", *heads]) + " |", "|" + " --- |" * (len(heads) + 2)]
    first, second = list(top), list(top)
    for name, parts in results.items():
        figures, gains = [], []
        for head in heads:
            part, protocol = head.split(": ")
            found = parts[part].get(protocol)
            usual = results.get(REFERENCE, {}).get(part, {}).get(protocol)
            figures.append(_with_interval(mean_uars(found), ".1f") if found else "")
            gains.append(
                _with_interval(mean_uars(found) - mean_uars(usual), "+.1f") if found and usual else ""
            )
        first.append("| " + " | ".join([f"`{name}`", ROWS[name].what, *figures]) + " |")
        if name != REFERENCE:
            second.append("| " + " | ".join([f"`{name}`", ROWS[name].what, *gains]) + " |")
    return "\n".join([*first, "", f"Difference to `{REFERENCE}`, for the same speakers:", "", *second])


def excluded_table(folder: Path) -> str:
    """Write the table of the rows that were scored on the excluded corpus; empty if there are none."""
    lines = []
    for name, row in ROWS.items():
        if not (folder / f"{name}.json").exists():
            continue
        found = json.loads((folder / f"{name}.json").read_text("utf-8"))["excluded"]
        by_protocol, harm = found["confusions"], found["harmed"]
        alone = [
            100.0 * float(uar_of(np.array(matrix)))
            for speakers in by_protocol["none"].values()
            for matrix in speakers.values()
        ]
        cells = [f"`{name}`", row.what]
        for protocol in ("none", "running", "ordinary"):
            scored = by_protocol.get(protocol)
            cells.append(_with_interval(mean_uars(scored), ".1f") if scored else "")
        cells.append(f"{min(alone):.0f}")
        cells += [f"{harm[name]:.0f}" if name in by_protocol else "" for name in ("running", "ordinary")]
        lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return ""
    heads = ["row", "", "none", "running", "ordinary", "worst speaker, none", "harmed: running", "ordinary"]
    top = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join(["", "", "The excluded corpus, by heads of all training speakers:", "", *top, *lines])


def _with_interval(values: Array, form: str) -> str:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return f"{values[0]:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    """Compute a row, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/ablation"), help="features and results")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table", help="print the rows that were computed")
    for command, what in (("row", "compute a row"), ("excluded", "score a row on the excluded corpus")):
        row = commands.add_parser(command, help=what)
        row.add_argument("row", choices=list(ROWS))
        row.add_argument("corpus", type=Path)
        row.add_argument("--exclude", default=None, help="corpus to leave out")
        row.add_argument("--pretrained", type=Path, required=True, help="folder of the encoders' files")
        row.add_argument("--unlabelled", type=Path, required=True, help="speech without labels")
        row.add_argument("--noise", type=Path, help="noises and rooms of the copies")
    options = parser.parse_args()
    rows, excluded = options.cache / "rows", options.cache / "excluded"
    if options.command == "table":
        print(table(rows) + excluded_table(excluded))
        return
    if options.command == "excluded" and not options.exclude:
        parser.error("excluded needs --exclude CORPUS")
    began, chosen = time.perf_counter(), ROWS[options.row]
    left_out = [options.exclude] if options.exclude else []
    clips = labelled_clips([options.corpus], left_out, improvised_only=True, excited_as_happy=False)
    found: dict[str, Any]
    if options.command == "row":
        folder, found = rows, {"parts": compute(chosen, clips, options)}
    else:
        every = labelled_clips([options.corpus], [], improvised_only=True, excited_as_happy=False)
        unheard = [clip for clip in every if clip.corpus in left_out]
        folder, found = excluded, {"excluded": compute_excluded(chosen, clips, unheard, options)}
    kept = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": this_machine().processor,
        "seconds": round(time.perf_counter() - began),
        **found,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{options.row}.json").write_text(json.dumps(kept), "utf-8")
    print(table(rows) + excluded_table(excluded))


if __name__ == "__main__":
    main()
