"""A pretrained encoder's first blocks, pooled over time, and the speaker-relative head on them.

    log mel (B, T, 80) -> level of the window -> WhisperEncoder -> mean of the block before the last, mean
    and deviation of the last -> standardised embedding (B, D) -> SpeakerHead

Shapes by letter: B batch, T frames of 10 ms, M mel bands, W width, D = 3 W embedding, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from edge.bounds import within
from edge.labels import EMOTIONS
from train.speaker_head import HeadArchitecture, SpeakerHead
from train.whisper_encoder import WhisperEncoder

DYNAMIC_RANGE: Final = 8.0
"""Decades of mel power kept below the maximum of a window: 80 dB."""

MAXIMUM: Final = 1.5
"""Log10 mel power to which the maximum of a window is shifted: that of clear speech near full scale."""


@dataclass(frozen=True)
class PretrainedArchitecture:
    """Sizes of the network."""

    width: int = field(default=384, metadata=within(64, 4_096))
    """W of the encoder: 384 in Whisper tiny, 512 in base."""
    blocks: int = field(default=2, metadata=within(1, 32))
    fully_connected: int = field(default=64, metadata=within(1, 4_096))
    dimensions: int = field(default=3, metadata=within(1, 3))
    """Number of auxiliary tasks among valence, arousal and dominance; each has outputs of its own."""
    dropout: float = field(default=0.3, metadata=within(0.0, 0.9))

    @property
    def embedding_size(self) -> int:
        """D."""
        return 3 * self.width

    @property
    def head(self) -> HeadArchitecture:
        """Sizes of the head."""
        return HeadArchitecture(
            embedding=self.embedding_size,
            fully_connected=self.fully_connected,
            dimensions=self.dimensions,
            dropout=self.dropout,
        )


class PretrainedNet(nn.Module):
    """Log mel spectrograms of windows to emotion logits."""

    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, arch: PretrainedArchitecture) -> None:
        super().__init__()
        self.arch = arch
        self.encoder = WhisperEncoder(arch.width, arch.blocks)
        self.register_buffer("embedding_mean", torch.zeros(arch.embedding_size))
        self.register_buffer("embedding_std", torch.ones(arch.embedding_size))
        self.head = SpeakerHead(arch.head)

    def pooled(self, log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, M) log10 mel power to (B, D) embeddings before standardisation.

        Args:
            log_mel: frames; what lies past an item's end has no effect.
            lengths: (B,) number of valid frames; all if None.
        """
        frames = normalised(log_mel, lengths)
        states = self.encoder.hidden_states(frames, lengths)
        counts = None if lengths is None else self.encoder.states_in(lengths)
        mean, deviation = moments(states[-1], counts)
        return torch.cat([moments(states[-2], counts)[0], mean, deviation], dim=1)

    def embedding(self, log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, M) log10 mel power to (B, D) embeddings with the training set's mean 0, deviation 1."""
        return (self.pooled(log_mel, lengths) - self.embedding_mean) / self.embedding_std

    def forward(self, log_mel: Tensor, baseline: Tensor | None = None) -> Tensor:
        """Map (B, T, M) log10 mel power to (B, C) emotion logits.

        Args:
            log_mel: windows of one length.
            baseline: (D,) or (B, D) of the speaker; 0, the training set's mean, if None.
        """
        embedding = self.embedding(log_mel)
        relative = embedding if baseline is None else embedding - baseline
        logits: Tensor = self.head(torch.cat([embedding, relative], dim=1))
        assert logits.shape[1] == len(EMOTIONS)
        return logits


def normalised(log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Normalise the level of windows, and scale them to the encoder's range.

    The maximum of a window is shifted to `MAXIMUM`, values more than `DYNAMIC_RANGE` below it are clipped,
    and (x + 4) / 4 is Whisper's own scaling. Frames past an item's end become 0.

    Differs: Whisper cuts 8 decades below the maximum of the whole clip and keeps its level. The maximum of
    the window is known in a stream, and makes the result independent of the microphone's gain.

    Args:
        log_mel: (B, T, M) log10 mel power.
        lengths: (B,) number of valid frames; all if None.
    """
    if lengths is None:
        return _scaled(log_mel - log_mel.amax(dim=(1, 2), keepdim=True))
    valid = (torch.arange(log_mel.shape[1], device=log_mel.device)[None, :] < lengths[:, None])[:, :, None]
    loudest = log_mel.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    return _scaled(log_mel - loudest) * valid


def moments(states: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, (B, W) each, of (B, S, W) hidden states.

    Args:
        states: padded hidden states.
        counts: (B,) number of valid states; all if None.
    """
    if counts is None:
        mean = states.mean(dim=1)
        return mean, (states - mean[:, None]).square().mean(dim=1).sqrt()
    within_item = (torch.arange(states.shape[1], device=states.device)[None, :] < counts[:, None])[:, :, None]
    count = counts[:, None].to(states.dtype)
    mean = (states * within_item).sum(dim=1) / count
    return mean, (((states - mean[:, None]) * within_item).square().sum(dim=1) / count).sqrt()


def _scaled(relative: Tensor) -> Tensor:
    return (relative.clamp(min=-DYNAMIC_RANGE) + (MAXIMUM + 4.0)) / 4.0
