"""One training run on a pretrained encoder: features, cross-fitted scores, the final head, its checkpoint.

clips -> copies of pooled features -> head for each fold, which scores the fold's speakers
-> temperature, fitted on those answers
-> head on all training speakers, which scores the test speakers
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from edge.errors import ModelError, UsageError
from edge.features.frontend import FrontEnd
from edge.features.log_mel import LOG_MEL
from edge.features.mel_power import MEL_POWER
from edge.features.normaliser import BinStatistics, GainConfig
from edge.labels import EMOTIONS
from train.baseline_protocols import (
    Answers,
    BaselineProtocol,
    FittedHead,
    ProtocolConfig,
    answers_by_protocol,
    merged,
    scores_by_protocol,
)
from train.checkpoint import Checkpoint, save_checkpoint
from train.corpora import Clip
from train.cross_fitting import (
    held_out_answers,
    require_disjoint,
    speaker_folds,
    temperature_of,
    without_speakers_of,
)
from train.encoder_file import read_encoder_file
from train.episodes import EpisodeConfig, Episodes
from train.evaluation import CorpusScores
from train.evaluation import described as described_scores
from train.feature_cache import EncoderNet, Features, encoder_digest
from train.head_members import joined
from train.head_training import HeadOptions, Steps, train_head
from train.label_check import LabelCheck
from train.last_block import BlockTuning
from train.plots import plot_confusion
from train.pretrained_net import PretrainedArchitecture, PretrainedNet
from train.recording_conditions import Ambience, ChannelConfig
from train.recurrent_net import RecurrentArchitecture, RecurrentNet, load_recurrent_encoder
from train.run import ProgressReporter, continued, require_unheard
from train.run_features import (
    CopyOptions,
    Encoding,
    FrozenEncoding,
    RunClips,
    RunFeatures,
    TunedEncoding,
)
from train.run_folder import RunFolder, described, git_revision, write_json
from train.segments import Normalisation
from train.speaker_head import (
    INPUTS,
    LEARNED_INPUTS,
    BaselineKind,
    EmbeddingStatistics,
    SpeakerHead,
    fit_statistics,
)
from train.splits import Split, refuse_shared_names, speakers_of, unheard_clips
from train.unlabelled import UnlabelledSpeech
from train.whisper_encoder import load_whisper_encoder

Scores = dict[BaselineProtocol, dict[str, CorpusScores]]

EVERYONE: Final = "all training speakers"


@dataclass(frozen=True)
class PretrainedOptions:
    """Options of a run on a pretrained encoder."""

    head: HeadOptions = field(default_factory=HeadOptions)
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    protocols: ProtocolConfig = field(default_factory=ProtocolConfig)
    conditions: ChannelConfig = field(default_factory=ChannelConfig)
    copies: int = 5
    """Augmented copies of each training clip, besides the clip as recorded."""
    folds: int = 4
    """Number of folds of the training speakers; 0: no cross-fitting, so no scores and no temperature."""
    leave_corpus_out: bool = False
    """Score each corpus by a head that was trained on the others."""
    tuning: BlockTuning | None = None
    """Tune the last block of a Whisper encoder before each head; None: the encoder stays as it is."""


@dataclass(frozen=True)
class PretrainedSetup:
    """Folders, noises and starting point of a run."""

    folder: RunFolder
    cache: Path
    """Folder of the features."""
    ambience: Ambience = field(default_factory=lambda: Ambience((), ()))
    start: Checkpoint[PretrainedNet] | None = None
    """Checkpoint whose encoder, statistics and head the run starts from."""
    resume: bool = False
    unlabelled: Sequence[Clip] = ()
    """Speech without labels, in which the head is to claim no emotion."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Kept with the model: command, corpora, licences, encoder."""
    label_check: Callable[[], LabelCheck | None] = lambda: None
    """Compares the labels of the corpora; called when everything that takes no time has been checked."""


def untrained(
    encoder: Path, *, dimensions: int = 3, blocks: int | None = None, baseline: BaselineKind = "mean"
) -> EncoderNet:
    """Put a head that is untrained on a published encoder; the names of its tensors say which it is.

    Args:
        encoder: its file.
        dimensions: outputs between the layers of the head.
        blocks: of a Whisper encoder; those of the default model if None.
        baseline: what of the speaker the relative inputs of the head are made with.

    Raises:
        ModelError: the encoder's file is missing, damaged or of another model, or has fewer blocks.
        UsageError: blocks are asked for of a recurrent encoder.
    """
    names = read_encoder_file(encoder, _REMEDY)
    if any(name.startswith("lstm.") for name in names):
        if blocks:
            raise UsageError(
                f"--blocks has no effect on {encoder}, a recurrent encoder", remedy="leave it out"
            )
        recurrent = load_recurrent_encoder(encoder)
        layers = recurrent.layer
        net = RecurrentNet(
            RecurrentArchitecture(
                units=cast("nn.LSTM", layers[0]).hidden_size,
                layers=len(layers),
                dimensions=dimensions,
                baseline=baseline,
            )
        )
        net.encoder.load_state_dict(recurrent.state_dict())
        return net.eval()
    if "conv1.weight" not in names:
        raise ModelError(
            f"{encoder} holds neither a Whisper encoder (conv1.weight) nor a recurrent speaker encoder "
            "(lstm.weight_hh_l0)",
            remedy=_REMEDY,
        )
    return _on_whisper(encoder, blocks or PretrainedArchitecture.blocks, dimensions, baseline)


_REMEDY: Final = "give the file of a Whisper or a recurrent speaker encoder, complete and unchanged"


def _on_whisper(encoder: Path, blocks: int, dimensions: int, baseline: BaselineKind) -> PretrainedNet:
    whisper = load_whisper_encoder(encoder, blocks)
    net = PretrainedNet(
        PretrainedArchitecture(
            width=whisper.conv1.out_channels, blocks=blocks, dimensions=dimensions, baseline=baseline
        )
    )
    net.encoder.load_state_dict(whisper.state_dict())
    return net.eval()


def run_pretrained(
    split: Split,
    net: EncoderNet,
    options: PretrainedOptions,
    setup: PretrainedSetup,
    progress: ProgressReporter,
) -> dict[str, Scores]:
    """Train a head on the pooled features of an encoder, and keep it with its scores.

    Args:
        split: the clips of each side; the validation speakers join the training side.
        net: has the encoder; its head is not used unless `setup.start` has it.
        options: of the training.
        setup: folders, noises and starting point.
        progress: shows the progress.

    Returns:
        The scores by part: "cross_fitted" and "leave_corpus_out" of the training speakers, each by a head
        that was not trained on them, and "test", as far as the run has them.

    Raises:
        UsageError: the folder holds another run, there are too few speakers, a corpus has no neutral clip, a
            recording is on two sides, or the checkpoint to start from was trained on test speakers.
    """
    sides = Split((*split.train, *split.validation), (), split.test)
    before = setup.start.training if setup.start else {}
    require_unheard(sides, before)
    _require_neutral(sides.train)
    refuse_shared_names([*sides.train, *sides.test])
    unheard = unheard_clips(sides.train, before)  # those of the checkpoint cannot be scored
    folds = speaker_folds(unheard, options.folds) if options.folds else []
    corpora_out = without_speakers_of(unheard) if options.leave_corpus_out else {}
    config = _config(sides, net, options, setup)
    if setup.start:
        config = continued(config, before)
    setup.folder.require_usable(config, resume=setup.resume)
    with setup.folder.locked():
        config = setup.folder.begin(config)
        if checked := setup.label_check():
            write_json(setup.folder.label_check, checked.to_dict())
        _say_ratings(setup.provenance, progress)
        encoding = _encoding(sides, net, options, setup, progress)
        named = {f"fold {number}": fold for number, fold in enumerate(folds, 1)}
        heard = {"the checkpoint's own speakers": set(speakers_of(sides.train)) - set(speakers_of(unheard))}
        training = {**named, **heard} if named else {"training": speakers_of(sides.train)}
        if setup.unlabelled:
            training["the speech without labels"] = speakers_of(setup.unlabelled)
        require_disjoint(
            {**training, "test": speakers_of(sides.test)}, [*sides.train, *sides.test], encoding.digests
        )

        def fit_on(features: RunFeatures) -> _Fit:
            return _Fit(features, options, setup.start is not None, progress, setup.unlabelled)

        def held_out(groups: Mapping[str, Sequence[str]]) -> Answers:
            parts = []
            for name, speakers in groups.items():
                read = encoding.without(name, speakers)
                one = {name: speakers}
                parts.append(held_out_answers(sides.train, read.copies, one, fit_on(read), options.protocols))
            return merged(parts)

        result = _Result(setup.start.temperature if setup.start else None)
        if named:
            result.cross_fit(held_out(named))
            result.content["folds"] = folds
        if corpora_out:
            result.add("leave_corpus_out", held_out(corpora_out))
        features = encoding.without(EVERYONE, ())
        final = fit_on(features)(sides.train, features.copies, EVERYONE)
        model = Checkpoint(
            net=_network(features.net, final),
            front_end=_front_end(net),
            normalisation=_unit_normalisation(_front_end(net), encoding.levels),
            training=config,
            temperature=result.temperature,
        )
        save_checkpoint(setup.folder.best, model)
        if sides.test:
            result.add("test", answers_by_protocol(final, sides.test, features.test, options.protocols))
        result.content["joined_the_training_side"] = speakers_of(split.validation)
        _write(result, setup.folder)
        return result.parts


@dataclass
class _Result:
    """What scores.json holds, as far as it is known."""

    temperature: float | None
    content: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Scores] = field(default_factory=dict)

    def cross_fit(self, answers: Answers) -> None:
        """Fit the temperature to held-out answers, and add their scores."""
        self.temperature = temperature_of(answers)
        self.add("cross_fitted", answers)

    def add(self, part: str, answers: Answers) -> None:
        """Add the scores of one part by protocol and corpus, with the mean over the corpora."""
        scores = scores_by_protocol(answers, self.temperature or 1.0)
        self.content[part] = {
            protocol: {
                "mean_uar": float(np.mean([item.uar for item in by_corpus.values()])),
                "corpora": described_scores(by_corpus),
            }
            for protocol, by_corpus in scores.items()
        }
        self.parts[part] = scores


@dataclass(frozen=True)
class _Fit:
    """Trains heads on features: what is replaced to train in another way."""

    features: RunFeatures
    options: PretrainedOptions
    tuning: bool
    """Start from the head and keep the statistics of the features' network."""
    progress: ProgressReporter
    unlabelled: Sequence[Clip] = ()

    def __call__(self, clips: Sequence[Clip], copies: Sequence[Features], name: str) -> FittedHead:
        """Train on some clips; the first copy gives the statistics."""
        net = self.features.net
        statistics = (
            EmbeddingStatistics(net.embedding_mean.numpy(), net.embedding_std.numpy())
            if self.tuning
            else fit_statistics(np.asarray(copies[0].values, np.float32))
        )
        members = [
            self._member(number, clips, copies, statistics, name)
            for number in range(self.options.head.members)
        ]
        return FittedHead(statistics, joined(members), INPUTS[net.arch.baseline])

    def _member(
        self,
        number: int,
        clips: Sequence[Clip],
        copies: Sequence[Features],
        statistics: EmbeddingStatistics,
        name: str,
    ) -> SpeakerHead:
        """Train one of the heads that are joined, by its number from 0."""
        net, options = self.features.net, self.options.head
        kind, seed = net.arch.baseline, options.seed + number
        label = f"training: {name}"
        if options.members > 1:
            label += f", head {number + 1} of {options.members}"

        def shown(steps: Steps) -> Steps:
            return self.progress(steps, label, options.steps)

        beside = (
            UnlabelledSpeech(self.unlabelled, self.features.unlabelled, statistics, seed, kind)
            if self.unlabelled
            else None
        )
        return train_head(
            Episodes(clips, copies, statistics, self.options.episodes, seed, LEARNED_INPUTS[kind]),
            net.arch.head,
            replace(options, seed=seed),
            start=net.head if self.tuning else None,
            unlabelled=beside,
            shown=shown,
        )


def _encoding(
    sides: Split,
    net: EncoderNet,
    options: PretrainedOptions,
    setup: PretrainedSetup,
    progress: ProgressReporter,
) -> Encoding:
    clips = RunClips(sides.train, sides.test, setup.unlabelled)
    conditions = (setup.ambience, options.conditions)
    copies = CopyOptions(options.copies, setup.cache, conditions, options.head.seed)
    if options.tuning and isinstance(net, PretrainedNet):
        return TunedEncoding(clips, net, copies, options.tuning, progress)
    return FrozenEncoding(clips, net, copies, progress)


def _network(net: EncoderNet, fitted: FittedHead) -> EncoderNet:
    """Put a fitted head on the encoder."""
    made = copy.deepcopy(net)
    made.arch = replace(net.arch, fully_connected=fitted.head.arch.fully_connected)
    made.head = copy.deepcopy(fitted.head)
    made.embedding_mean.copy_(torch.from_numpy(fitted.statistics.mean))
    made.embedding_std.copy_(torch.from_numpy(fitted.statistics.std))
    return made.eval()


def _front_end(net: EncoderNet) -> FrontEnd:
    return MEL_POWER if isinstance(net, RecurrentNet) else LOG_MEL


def _unit_normalisation(front_end: FrontEnd, levels: GainConfig) -> Normalisation:
    """Return the gain, and statistics that leave the frames as they are."""
    bands = front_end.frame_size
    return Normalisation(levels, BinStatistics(np.zeros(bands, np.float32), np.ones(bands, np.float32)))


def _write(result: _Result, folder: RunFolder) -> None:
    """Write the scores, and plot the confusion matrix without a baseline."""
    write_json(folder.scores, {"temperature": result.temperature, **result.content})
    for part, title in (("test", "Test speakers"), ("cross_fitted", "Held-out speakers")):
        if part in result.parts:
            matrices = [np.array(item.confusion) for item in result.parts[part]["none"].values()]
            plot_confusion(np.sum(matrices, axis=0), folder.confusion, f"{title}, without a baseline")
            break


def _say_ratings(provenance: dict[str, Any], progress: ProgressReporter) -> None:
    corpora = provenance.get("corpora", [])
    for kind in ("human", "derived"):
        if names := [corpus["name"] for corpus in corpora if corpus["ratings"] == kind]:
            progress.say(f"ratings of valence, arousal and dominance: {kind} in {', '.join(names)}")


def _require_neutral(clips: Sequence[Clip]) -> None:
    """Refuse a corpus without neutral speech: neither training nor scoring could use a neutral baseline."""
    emotions: dict[str, set[str]] = {}
    for clip in clips:
        emotions.setdefault(clip.corpus, set()).add(clip.emotion)
    for corpus, found in sorted(emotions.items()):
        if EMOTIONS[0] not in found:
            raise UsageError(
                f"the corpus {corpus} has no neutral clips, which are a speaker's baseline",
                remedy=f"add some, or leave it out with --exclude {corpus}",
            )


def _config(
    sides: Split, net: EncoderNet, options: PretrainedOptions, setup: PretrainedSetup
) -> dict[str, Any]:
    names = ("train", "validation", "test")
    return {
        "architecture": asdict(net.arch),
        "front_end": described(_front_end(net)),
        "options": described(options),
        "encoder_sha256": encoder_digest(net),
        "speakers": {
            **{name: speakers_of(getattr(sides, name)) for name in names},
            **({"unlabelled": speakers_of(setup.unlabelled)} if setup.unlabelled else {}),
        },
        "clips": {name: len(getattr(sides, name)) for name in names},
        "git_revision": git_revision(),
        **setup.provenance,
    }
