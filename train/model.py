"""The network of Cai et al. 2020, Table 1: CNN, BiLSTM and fully connected layers.

Axes: every kernel is time x frequency, as the paper's N x M. Shapes by letter: B batch, T frames of
10 ms, F bins, S features of 80 ms, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge.bounds import within
from edge.labels import DIMENSION_CLASSES, EMOTIONS
from train.first_convolution import convolved

POOL = 2
"""Stride of each max-pool, in time and frequency."""


@dataclass(frozen=True)
class Architecture:
    """Sizes and variants. The defaults are the shipped model's; `paper()` returns the paper's."""

    bins: int = field(default=200, metadata=within(8, 4_097))
    channels: tuple[int, int, int] = field(default=(16, 24, 32), metadata=within(1, 4_096))
    kernels: tuple[tuple[int, int], ...] = field(default=((12, 16), (8, 12), (5, 7)), metadata=within(1, 64))
    """(time, frequency) of each convolution."""
    time_padding: Literal["valid", "same"] = "valid"
    """Differs: the paper pads. `valid`: a feature does not depend on where the window starts, so it can be
    streamed."""
    batch_norm: bool = True
    """Differs: the paper has none. After each convolution; folded into it on export."""
    projection: int | None = field(default=128, metadata=within(1, 2**16))
    """Differs: size to which the 800 values of a feature are reduced before the LSTM; None: the paper's
    800."""
    hidden: int = field(default=128, metadata=within(1, 4_096))
    """LSTM units per direction."""
    pooling: Literal["last", "mean"] = "mean"
    """How the BiLSTM's outputs become one vector: the last state of each direction, or the mean."""
    fully_connected: int = field(default=64, metadata=within(1, 4_096))
    dimensions: int = field(default=3, metadata=within(1, 3))
    """Number of auxiliary tasks among valence, arousal and dominance."""
    heads: Literal["shared", "separate"] = "shared"
    """Whether the dimensions share one 4-way output, as in the paper, or have one each."""
    emotions: Literal["transferred", "direct"] = "transferred"
    """Emotions by the transfer learner from the auxiliary logits, or (plain multi-task learning)
    from four more outputs of FC 2, which the transfer learner then only selects."""
    dropout: float = field(default=0.2, metadata=within(0.0, 0.99))

    def __post_init__(self) -> None:
        """Refuse direct emotions with a shared head: one output would have two meanings."""
        if self.emotions == "direct" and self.heads == "shared":
            raise ValueError("direct emotions need separate heads, not a shared one")

    @staticmethod
    def paper(bins: int = 200) -> Architecture:
        """Return Table 1's layers: padded convolutions, no normalisation, the last state, a shared head."""
        return Architecture(
            bins=bins, time_padding="same", batch_norm=False, projection=None, pooling="last", dropout=0.0
        )

    @property
    def auxiliary_outputs(self) -> int:
        """Outputs of FC 2."""
        auxiliary = DIMENSION_CLASSES * (1 if self.heads == "shared" else self.dimensions)
        return auxiliary + (len(EMOTIONS) if self.emotions == "direct" else 0)

    @property
    def feature_bins(self) -> int:
        """Frequency positions after three pools."""
        return self.bins // POOL**3

    def features_in(self, frames: int) -> int:
        """Return the number of features of `frames` frames."""
        for time, _ in self.kernels:
            frames = frames // POOL if self.time_padding == "same" else (frames - time + 1) // POOL
        return max(0, frames)


class ConvBlock(nn.Module):
    """Convolution, ReLU, 2 x 2 max-pool; frequency padded, time as the architecture says."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], arch: Architecture) -> None:
        super().__init__()
        time, frequency = kernel
        top, left = (time - 1) // 2, (frequency - 1) // 2
        in_time = (top, time - 1 - top) if arch.time_padding == "same" else (0, 0)
        self.padding = (left, frequency - 1 - left, *in_time)
        self.conv = nn.Conv2d(inputs, outputs, kernel)
        self.norm = nn.BatchNorm2d(outputs) if arch.batch_norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, T, F) to (B, outputs, T', F / 2)."""
        maps, conv = F.pad(maps, self.padding), self.conv
        if conv.in_channels == 1 and conv.bias is not None:
            maps = convolved(maps, conv.weight, conv.bias)
        else:
            maps = conv(maps)
        pooled = F.max_pool2d(self.norm(maps), POOL)
        return F.relu(pooled)  # equal to ReLU before the pool, on a quarter of the values


class MetaLearner(nn.Module):
    """theta: spectrogram to embedding to the classes of the auxiliary tasks."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        sizes = (1, *arch.channels)
        self.blocks = nn.ModuleList(
            ConvBlock(inputs, outputs, kernel, arch)
            for inputs, outputs, kernel in zip(sizes[:-1], sizes[1:], arch.kernels, strict=True)
        )
        feature_size = arch.channels[-1] * arch.feature_bins
        self.projection = nn.Linear(feature_size, arch.projection) if arch.projection else nn.Identity()
        self.lstm = nn.LSTM(
            arch.projection or feature_size, arch.hidden, batch_first=True, bidirectional=True
        )
        self.dropout = nn.Dropout(arch.dropout)
        self.fc1 = nn.Linear(2 * arch.hidden, arch.fully_connected)
        self.fc2 = nn.Linear(arch.fully_connected, arch.auxiliary_outputs)

    def features(self, frames: Tensor) -> Tensor:
        """Encode (B, T, F) normalised frames to (B, S, P), one feature every 80 ms."""
        maps = frames.unsqueeze(1)  # (B, 1, T, F)
        for block in self.blocks:
            maps = block(maps)  # (B, channels, T / 2, F / 2), three times
        flat = maps.permute(0, 2, 1, 3).flatten(2)  # (B, S, 32 * F / 8)
        projected: Tensor = self.projection(flat)  # (B, S, P)
        return projected

    def embedding(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Summarise (B, S, P) features, of which the first `lengths` (B,) are valid, as (B, 2 * hidden)."""
        lengths = torch.full((len(features),), features.shape[1]) if lengths is None else lengths
        lengths = lengths.to(features.device)
        positions = torch.arange(features.shape[1], device=features.device)
        # Where each step of the reversed sequence comes from; past the end a sequence stays as it is.
        reversal = torch.where(positions < lengths[:, None], lengths[:, None] - 1 - positions, positions)
        forwards = self._direction(features.float(), "")  # (B, S, hidden)
        backwards = self._direction(_rows(features.float(), reversal), "_reverse")
        if self.arch.pooling == "last":
            last = (lengths - 1)[:, None]
            return torch.cat([_rows(forwards, last), _rows(backwards, last)], dim=2)[:, 0]
        within_item = (positions < lengths[:, None]).to(forwards.dtype)[:, :, None]
        totals = (torch.cat([forwards, backwards], dim=2) * within_item).sum(dim=1)
        return totals / lengths[:, None]  # (B, 2 * hidden)

    def _direction(self, inputs: Tensor, suffix: str) -> Tensor:
        """Run one direction of the LSTM over (B, S, P) padded sequences: (B, S, hidden).

        Packed sequences would do both directions in one call, at four times the cost on a CPU: oneDNN's LSTM
        takes none.
        """
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [getattr(self.lstm, name + suffix) for name in names]
        state = inputs.new_zeros(1, len(inputs), self.arch.hidden)
        outputs: Tensor = torch.lstm(
            inputs, (state, state), weights, True, 1, 0.0, self.training, False, True
        )[0]
        return outputs

    def classify(self, embedding: Tensor) -> Tensor:
        """Map (B, 2 * hidden) to the logits of the auxiliary classes."""
        logits: Tensor = self.fc2(F.relu(self.fc1(self.dropout(embedding))))
        return logits

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, F) to auxiliary logits; `lengths` (B,) are the valid frames, all if None."""
        valid = None
        if lengths is not None:
            valid = torch.tensor([self.arch.features_in(length) for length in lengths.tolist()])
        return self.classify(self.embedding(self.features(frames), valid))


class TransferLearner(nn.Module):
    """phi: auxiliary logits to emotion logits (FC 3)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.fc3 = nn.Linear(arch.auxiliary_outputs, len(EMOTIONS))
        if arch.emotions == "direct":
            _select_last(self.fc3)

    def forward(self, auxiliary_logits: Tensor) -> Tensor:
        """Map (B, auxiliary outputs) to (B, C) emotion logits."""
        logits: Tensor = self.fc3(auxiliary_logits)
        return logits


class EmotionNet(nn.Module):
    """Both learners: spectrogram to emotion logits."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.meta = MetaLearner(arch)
        self.transfer = TransferLearner(arch)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, T, F) normalised frames to (B, C) emotion logits."""
        logits: Tensor = self.transfer(self.meta(frames, lengths))
        return logits


def _select_last(layer: nn.Linear) -> None:
    """Fix a layer so that it passes on its last inputs unchanged."""
    with torch.no_grad():
        layer.weight.copy_(torch.eye(layer.in_features)[-layer.out_features :])
        layer.bias.zero_()
    layer.requires_grad_(requires_grad=False)


def _rows(sequences: Tensor, positions: Tensor) -> Tensor:
    """Take the (B, N) positions of (B, S, D) sequences: (B, N, D)."""
    return sequences.gather(1, positions[:, :, None].expand(-1, -1, sequences.shape[2]))
