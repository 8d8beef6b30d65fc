"""What the systems share: their contract, and convolutions that do not read padded frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from train.mmtl import Loss, Samples, emotion_loss


class System(nn.Module):
    """A recogniser of one segment: (B, T, F) frames with (B,) lengths to (B, C) emotion logits.

    The softmax of the logits is the posterior. Frames past a segment's length do not change them.
    """

    def loss(self, samples: Samples, loss: Loss) -> Tensor:
        """Return the training loss of a batch: by default the cross entropy of the logits."""
        return emotion_loss(self(samples.frames, samples.lengths), samples, loss)


class MaskedConv(nn.Module):
    """Padded convolution, batch normalisation, ReLU and max-pool; positions past the end are zero.

    In training the batch statistics count the padded positions, as usual; in evaluation nothing does.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], pool: tuple[int, int] = (2, 2)
    ) -> None:
        super().__init__()
        time, frequency = kernel
        top, left = (time - 1) // 2, (frequency - 1) // 2
        self.padding = (left, frequency - 1 - left, top, time - 1 - top)
        self.conv = nn.Conv2d(inputs, outputs, kernel)
        self.norm = nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, maps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, inputs, T, F) to (B, outputs, T / pool, F / pool), with the lengths there."""
        pooled = F.max_pool2d(F.relu(self.norm(self.conv(F.pad(maps, self.padding)))), self.pool)
        lengths = torch.div(lengths, self.pool[0], rounding_mode="floor")
        return zero_past(pooled, lengths, dim=2), lengths


def zero_past(values: Tensor, lengths: Tensor, dim: int) -> Tensor:
    """Set the positions of a time axis past the (B,) lengths to zero."""
    shape = [1] * values.dim()
    shape[0], shape[dim] = len(lengths), values.shape[dim]
    return values.masked_fill(~valid(lengths, values.shape[dim], values.device).view(shape), 0.0)


def valid(lengths: Tensor, size: int, device: torch.device) -> Tensor:
    """Return the (B, size) mask of the positions before each length."""
    return torch.arange(size, device=device)[None, :] < lengths.to(device)[:, None]


def masked_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """Average (B, S, D) over the first `lengths` (B,) positions; zero where there are none."""
    total: Tensor = zero_past(values, lengths, dim=1).sum(dim=1)
    return total / lengths.to(values.device).clamp(min=1).unsqueeze(1)
