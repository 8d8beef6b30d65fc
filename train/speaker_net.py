"""What the networks on a published encoder share: a standardised embedding and a speaker-relative head.

Shapes by letter: B batch, S states or features of a window, W width, D embedding, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from edge.bounds import within
from train.speaker_head import BaselineKind, HeadArchitecture, SpeakerHead


@dataclass(frozen=True)
class SpeakerArchitecture(ABC):
    """Sizes of the layers after the embedding."""

    fully_connected: int = field(default=64, metadata=within(1, 4_096))
    dimensions: int = field(default=3, metadata=within(1, 3))
    """Number of auxiliary tasks among valence, arousal and dominance; each has outputs of its own."""
    dropout: float = field(default=0.3, metadata=within(0.0, 0.9))
    baseline: BaselineKind = "mean"
    """What of the speaker the relative inputs of the head are made with."""

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """D."""

    @property
    def head(self) -> HeadArchitecture:
        """Sizes of the head."""
        return HeadArchitecture(
            embedding=self.embedding_size,
            fully_connected=self.fully_connected,
            dimensions=self.dimensions,
            dropout=self.dropout,
        )


Arch = TypeVar("Arch", bound=SpeakerArchitecture)
Encoder = TypeVar("Encoder", bound=nn.Module)


class SpeakerNet(nn.Module, Generic[Arch, Encoder]):
    """Windows to emotion logits, by an encoder, pooling over time and the head."""

    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, arch: Arch, encoder: Encoder) -> None:
        super().__init__()
        self.arch = arch
        self.encoder = encoder
        self.register_buffer("embedding_mean", torch.zeros(arch.embedding_size))
        self.register_buffer("embedding_std", torch.ones(arch.embedding_size))
        self.head = SpeakerHead(arch.head)

    def pooled(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map windows, (B, T or S, ...), to (B, D) embeddings before standardisation.

        Args:
            inputs: of the windows; what lies past an item's end has no effect.
            lengths: (B,) number of valid frames or features; all if None.
        """
        raise NotImplementedError

    def embedding(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map windows to (B, D) embeddings with the training set's mean 0, deviation 1, as `pooled` does."""
        return (self.pooled(inputs, lengths) - self.embedding_mean) / self.embedding_std

    def forward(
        self, inputs: Tensor, baseline: Tensor | None = None, deviation: Tensor | None = None
    ) -> Tensor:
        """Map windows of one length to (B, C) emotion logits.

        Args:
            inputs: as `pooled` takes them.
            baseline: (D,) or (B, D) of the speaker; 0, the training set's mean, if None.
            deviation: (D,) or (B, D) of the speaker, > 0; 1, the training set's, if None.
        """
        embedding = self.embedding(inputs)
        relative = embedding if baseline is None else embedding - baseline
        if deviation is not None:
            relative = relative / deviation
        logits: Tensor = self.head(torch.cat([embedding, relative], dim=1))
        return logits


def moments(states: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, (B, W) each, of (B, S, W) hidden states.

    Args:
        states: padded hidden states.
        counts: (B,) number of valid states; all if None.
    """
    if counts is None:
        mean = states.mean(dim=1)
        return mean, (states - mean[:, None]).square().mean(dim=1).sqrt()
    return weighted_moments(states, valid(states, counts).to(states.dtype))


def weighted_moments(states: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, (B, W) each, of (B, S, W) states weighted by (B, S)."""
    shares = (weights / weights.sum(dim=1, keepdim=True))[:, :, None]
    mean = (states * shares).sum(dim=1)
    return mean, ((states - mean[:, None]).square() * shares).sum(dim=1).sqrt()


def valid(states: Tensor, counts: Tensor) -> Tensor:
    """Mark the first `counts` (B,) of (B, S, W) states: (B, S)."""
    return torch.arange(states.shape[1], device=states.device)[None, :] < counts[:, None]
