"""Features of all clips of a run, by an encoder as it is or by one whose last block is tuned first."""

from __future__ import annotations

import copy as copying
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from torch import nn

from edge.features.normaliser import GainConfig
from train.corpora import Clip
from train.feature_cache import Copy, EncoderNet, Features, cached_features
from train.last_block import BlockTuning, States, cached_states, tuned_block
from train.pretrained_net import PretrainedNet
from train.recording_conditions import Ambience, ChannelConfig
from train.recurrent_net import RecurrentNet
from train.run import ProgressReporter
from train.speaker_head import fit_statistics
from train.splits import speakers_of
from train.stream_features import reference_level

Item = TypeVar("Item")


@dataclass(frozen=True)
class RunClips:
    """The clips of a run."""

    train: Sequence[Clip]
    test: Sequence[Clip] = ()
    unlabelled: Sequence[Clip] = ()
    """Speech without labels."""


@dataclass(frozen=True)
class CopyOptions:
    """How often and in which conditions the clips are heard."""

    count: int
    """Copies of the training clips, besides the clips as recorded."""
    cache: Path
    """Folder of what the encoder makes of them."""
    conditions: tuple[Ambience, ChannelConfig] = (Ambience((), ()), ChannelConfig())
    seed: int = 0


@dataclass(frozen=True)
class RunFeatures:
    """The features of a run's clips by one encoder."""

    net: EncoderNet
    """Has the encoder; its head is not used."""
    copies: list[Features]
    """Of the training clips; the first is as recorded."""
    test: Features
    """As recorded."""
    unlabelled: list[Features]
    """Of the speech without labels, as many copies; none if there is no such speech."""


class Encoding(Protocol):
    """Makes the features of a run."""

    @property
    def levels(self) -> GainConfig:
        """Gain in front of the encoder."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Hashes of the samples of the training clips, then of the test clips."""

    def without(self, name: str, speakers: Collection[str]) -> RunFeatures:
        """Return features by an encoder that has not learned from some speakers, nor from test speakers.

        Args:
            name: of these speakers, in the progress.
            speakers: they are among the training speakers.
        """


class FrozenEncoding:
    """Features by a published encoder, which has learned from none of the speakers."""

    def __init__(
        self, clips: RunClips, net: EncoderNet, copies: CopyOptions, progress: ProgressReporter
    ) -> None:
        """Compute or read the features.

        Args:
            clips: of the run.
            net: its encoder is used.
            copies: their number and conditions.
            progress: shows the progress.
        """
        recurrent = isinstance(net, RecurrentNet)
        self.levels = GainConfig()
        if recurrent:
            measured = progress(clips.train, "measuring levels", len(clips.train))
            self.levels = GainConfig(reference=reference_level(measured))

        def features(folder: Path, some: Sequence[Clip], number: int) -> Features:
            copy = Copy(number, copies.seed, plain=recurrent and number % 2 == 1)
            shown = _with_total(progress)
            return cached_features(folder, some, net, copy, copies.conditions, shown, self.levels)

        recorded, further, unlabelled = _each(clips, copies, features)
        self.digests = recorded.digests
        self._features = _split(clips, net, recorded, further, unlabelled)

    def without(self, name: str, speakers: Collection[str]) -> RunFeatures:
        """Return the features; they are the same for all speakers (`Encoding`)."""
        return self._features


class TunedEncoding:
    """Features by an encoder whose last block is tuned on the training speakers that are not held out."""

    levels = GainConfig()

    def __init__(
        self,
        clips: RunClips,
        net: PretrainedNet,
        copies: CopyOptions,
        tuning: BlockTuning,
        progress: ProgressReporter,
    ) -> None:
        """Compute or read the states in front of the block.

        Args:
            clips: of the run.
            net: its encoder is used.
            copies: their number and conditions; the block learns from all of them.
            tuning: options of the tuning.
            progress: shows the progress.
        """
        self._clips, self._net, self._tuning, self._progress = clips, net, tuning, progress

        def states(folder: Path, some: Sequence[Clip], number: int) -> States:
            copy, shown = Copy(number, copies.seed), _with_total(progress)
            return cached_states(folder, some, net, copy, copies.conditions, shown)

        self._recorded, self._further, self._unlabelled = _each(clips, copies, states)
        self.digests = self._recorded.digests
        self._published = self._pooled(self._recorded, net.encoder.block[-1], "as published")

    def without(self, name: str, speakers: Collection[str]) -> RunFeatures:
        """Tune the block, and return the features by it (`Encoding`)."""
        learned = frozenset(speakers_of(self._clips.train)) - frozenset(speakers)
        block = self._tuned(name, learned)
        net = copying.deepcopy(self._net)
        net.encoder.block[-1] = block

        def pooled(states: States) -> Features:
            return self._pooled(states, block, f"tuned: {name}")

        return _split(
            self._clips,
            net,
            pooled(self._recorded),
            [pooled(states) for states in self._further],
            [pooled(states) for states in self._unlabelled],
        )

    def _tuned(self, name: str, learned: frozenset[str]) -> nn.Module:
        every = [*self._clips.train, *self._clips.test]
        own = np.array([clip.speaker in learned for clip in every])[self._published.clip]
        return tuned_block(
            self._net,
            every,
            [self._recorded, *self._further],
            learned,
            fit_statistics(np.asarray(self._published.values[own], np.float32)),
            self._tuning,
            lambda steps: self._progress(steps, f"tuning the last block: {name}", self._tuning.steps),
        )

    def _pooled(self, states: States, block: nn.Module, name: str) -> Features:
        def shown(batches: range) -> Iterable[int]:
            return self._progress(batches, f"last block, {name}", len(batches))

        return states.pooled(block, shown)


def _each(
    clips: RunClips, copies: CopyOptions, heard: Callable[[Path, Sequence[Clip], int], Item]
) -> tuple[Item, list[Item], list[Item]]:
    """Return the labelled clips as recorded, other copies of the training clips, copies of the unlabelled."""
    numbers = range(copies.count + 1)
    return (
        heard(copies.cache, [*clips.train, *clips.test], 0),
        [heard(copies.cache, clips.train, number) for number in numbers[1:]],
        [heard(copies.cache / "unlabelled", clips.unlabelled, number) for number in numbers]
        if clips.unlabelled
        else [],
    )


def _split(
    clips: RunClips,
    net: EncoderNet,
    recorded: Features,
    further: Sequence[Features],
    unlabelled: Sequence[Features],
) -> RunFeatures:
    train, test = len(clips.train), len(clips.test)
    return RunFeatures(
        net,
        [recorded.of(np.arange(train)), *further],
        recorded.of(np.arange(train, train + test)),
        list(unlabelled),
    )


def _with_total(progress: ProgressReporter) -> Callable[[Sequence[Clip], str], Iterable[Clip]]:
    return lambda clips, label: progress(clips, label, len(clips))
