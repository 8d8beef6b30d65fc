"""The last block of a Whisper encoder, tuned on the emotions of some speakers before a head is trained on it.

    states in front of the block, cached -> block -> pooling -> standardised embedding -> FC -> FC -> emotion

The block learns by plain supervision, through a small classifier that is then thrown away; what is in front
of it stays as published, so that its states are computed once for all speakers that are held out. Shapes by
letter: N windows, S hidden states of a window, W width, D embedding.
"""

from __future__ import annotations

import copy as copying
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.rnn import pad_sequence

from edge.arrays import Array
from edge.features.normaliser import GainConfig
from edge.labels import EMOTIONS
from train.corpora import Clip
from train.feature_cache import (
    BATCH,
    ClipProgress,
    Copy,
    Features,
    batches,
    cached_rows,
    encoded_clips,
    made_from,
)
from train.pretrained_net import PretrainedNet, normalised, pooled_states
from train.recording_conditions import Ambience, ChannelConfig
from train.speaker_head import EmbeddingStatistics
from train.whisper_encoder import WhisperEncoder

CLASSIFIER_RATE: Final = 1e-3
"""Peak learning rate of the classifier that is thrown away."""

HIDDEN: Final = 64

DROPOUT: Final = 0.3

Shown = Callable[[range], Iterable[int]]
"""Wraps the steps of a piece of work to show the progress."""


@dataclass(frozen=True)
class BlockTuning:
    """Options of the tuning."""

    steps: int = 240
    windows: int = 24
    """In a step; each corpus and emotion is as likely as any other."""
    learning_rate: float = 1e-4
    """At the peak of half a cosine."""
    seed: int = 0


@dataclass(frozen=True)
class States:
    """The hidden states in front of an encoder's last block, of the windows of some clips."""

    values: NDArray[np.float16]
    """(sum of S, W), window after window, memory-mapped."""
    clip: NDArray[np.int64]
    """(N,) index of each window's clip."""
    frames: NDArray[np.int64]
    """(N,) length of each window."""
    seconds: tuple[float, ...]
    """Duration of each clip."""
    digests: tuple[str, ...]
    """Hash of each clip's samples."""

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(states_in(self.frames))])

    def of_windows(self, numbers: Iterable[int]) -> list[Tensor]:
        """Return the (S, W) states of some windows, in float32."""
        return [
            torch.from_numpy(self.values[self._bounds[number] : self._bounds[number + 1]].astype(np.float32))
            for number in numbers
        ]

    @torch.inference_mode()
    def pooled(self, block: nn.Module, shown: Shown = iter) -> Features:
        """Apply a last block to all windows, and pool them as `PretrainedNet.pooled` does.

        Args:
            block: maps (B, S, W) states and their mask to (B, S, W).
            shown: wraps the batches to show the progress.
        """
        order = np.argsort(self.frames, kind="stable")  # batches then have little padding
        rows: list[NDArray[np.float16]] = []
        for first in shown(range(0, len(order), BATCH)):
            states = self.of_windows(order[first : first + BATCH].tolist())
            rows.append(_pooled(block, states).numpy().astype(np.float16))
        values = np.concatenate(rows)[np.argsort(order)]
        return Features(values, self.clip, self.frames, self.seconds, self.digests)


def states_in(frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of hidden states of windows of some lengths."""
    return WhisperEncoder.states_in(torch.from_numpy(frames)).numpy()


def cached_states(
    folder: Path,
    clips: Sequence[Clip],
    net: PretrainedNet,
    copy: Copy,
    conditions: tuple[Ambience, ChannelConfig],
    progress: ClipProgress,
) -> States:
    """Return the states of a copy, computing them only if the folder does not hold them.

    Args:
        folder: where the copies are kept.
        clips: the clips that the indices in `States.clip` refer to.
        net: its encoder's stem and blocks before the last are used.
        copy: the copy to compute.
        conditions: noises and rooms, and how often each is used.
        progress: wraps the clips to show the progress.
    """
    levels = GainConfig()
    described = {**made_from(clips, net, copy, conditions, levels), "of": "states in front of the last block"}
    values, kept = cached_rows(
        folder / f"states-{copy.name}",
        described,
        lambda: encoded_clips(clips, net, copy, conditions, progress, partial(_states, net=net), levels),
        states_in,
    )
    return States(values, **kept)


def tuned_block(
    net: PretrainedNet,
    clips: Sequence[Clip],
    copies: Sequence[States],
    speakers: frozenset[str],
    statistics: EmbeddingStatistics,
    options: BlockTuning,
    shown: Shown = iter,
) -> nn.Module:
    """Tune a copy of an encoder's last block on the emotions of some speakers.

    Args:
        net: has the block to start from; it is not changed.
        clips: that the copies are of.
        copies: a window of each is as likely.
        speakers: whose clips are learned.
        statistics: of the embedding by the published block.
        options: of the tuning.
        shown: wraps the steps to show the progress.

    Returns:
        The block, its weights rounded to float16, in which they are stored.
    """
    own = [number for number, clip in enumerate(clips) if clip.speaker in speakers]
    windows = [np.flatnonzero(np.isin(states.clip, own)) for states in copies]
    chances = [_even(clips, states.clip[found]) for states, found in zip(copies, windows, strict=True)]
    rng = np.random.default_rng((options.seed, len(own)))
    torch.manual_seed(options.seed)
    block = copying.deepcopy(net.encoder.block[-1])
    mean, std = torch.from_numpy(statistics.mean), torch.from_numpy(statistics.std)
    classifier = nn.Sequential(
        nn.Linear(len(mean), HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(EMOTIONS))
    )
    groups = [
        {"params": list(block.parameters()), "lr": options.learning_rate},
        {"params": list(classifier.parameters()), "lr": CLASSIFIER_RATE},
    ]
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, options.steps))
    for _ in shown(range(options.steps)):
        number = int(rng.integers(len(copies)))
        states, found = copies[number], windows[number]
        drawn = rng.choice(found, options.windows, p=chances[number]).tolist()
        labels = torch.tensor([EMOTIONS.index(clips[place].emotion) for place in states.clip[drawn].tolist()])
        embedding = (_pooled(block, states.of_windows(drawn)) - mean) / std
        loss = F.cross_entropy(classifier(embedding), labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(parameter.half().float())
    return block.eval()


def _even(clips: Sequence[Clip], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the chance of each window, so that each corpus and emotion is as likely as any other."""
    classes = [(clips[number].corpus, clips[number].emotion) for number in numbers.tolist()]
    count = Counter(classes)
    chance = np.array([1.0 / count[item] for item in classes], np.float64)
    total: NDArray[np.float64] = chance / chance.sum()
    return total


@torch.inference_mode()
def _states(windows: Sequence[Array], net: PretrainedNet) -> Array:
    """Encode (T, 80) log mel windows up to the last block: (sum of S, W), in their order."""
    blocks = len(net.encoder.block) - 1
    found = [np.zeros((0, net.arch.width), np.float16)] * len(windows)
    for places, frames, lengths in batches(windows):
        states = net.encoder.hidden_states(normalised(frames, lengths), lengths, blocks)[-1]
        counts = net.encoder.states_in(lengths).tolist()
        for place, row, count in zip(places, states, counts, strict=True):
            found[place] = row[:count].numpy().astype(np.float16)
    return np.concatenate(found)


def _pooled(block: nn.Module, states: Sequence[Tensor]) -> Tensor:
    """Return the (B, D) embeddings, before standardisation, of windows' (S, W) states before the block."""
    counts = torch.tensor([len(item) for item in states])
    padded = pad_sequence(list(states), batch_first=True)
    within = torch.arange(padded.shape[1])[None] < counts[:, None]
    return pooled_states(padded, block(padded, within[:, None, None, :]), counts)
