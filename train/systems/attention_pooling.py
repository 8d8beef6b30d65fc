"""CNN with global attention pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge.labels import EMOTIONS
from train.systems.base import MaskedConv, System, zero_past


class AttentionPoolingCnn(System):
    """Two parallel convolutions, three more, then pooling by two attention maps.

    logit_c = (1 / n) sum_x (top_c . h_x) (bottom . h_x)   over the n valid positions x

    a rank-1 approximation of second-order pooling: a class-specific map times a class-agnostic one.
    After Li, Song, McLoughlin, Guo and Dai 2018, [22] of the paper; re-implemented.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.along_time = MaskedConv(1, channels // 2, (10, 2))
        self.along_frequency = MaskedConv(1, channels // 2, (2, 8))
        self.blocks = nn.ModuleList(
            [
                MaskedConv(channels, 2 * channels, (3, 3)),
                MaskedConv(2 * channels, 3 * channels, (3, 3)),
                MaskedConv(3 * channels, 5 * channels, (3, 3), pool=(1, 1)),
            ]
        )
        self.top_down = nn.Conv2d(5 * channels, len(EMOTIONS), 1)
        self.bottom_up = nn.Conv2d(5 * channels, 1, 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, T, F) to (B, C) logits."""
        maps = zero_past(frames, lengths, dim=1).unsqueeze(1)  # (B, 1, T, F)
        in_time, after = self.along_time(maps, lengths)
        in_frequency, _ = self.along_frequency(maps, lengths)
        maps, lengths = torch.cat([in_time, in_frequency], dim=1), after  # (B, channels, T / 2, F / 2)
        for block in self.blocks:
            maps, lengths = block(maps, lengths)  # (B, 5 * channels, T / 8, F / 8)
        product = zero_past(self.top_down(maps) * self.bottom_up(maps), lengths, dim=2)
        positions = lengths.to(maps.device).clamp(min=1) * maps.shape[3]
        logits: Tensor = product.float().sum(dim=(2, 3)) / positions.unsqueeze(1)
        return logits
