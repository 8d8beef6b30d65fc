"""Self-attention over windows of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge.labels import EMOTIONS
from train.systems.base import System, masked_mean, valid, zero_past


class SelfAttention(System):
    """Layers of multi-head self-attention, averaged over time, and a classifier.

    After Tarantino, Garner and Lazaridis 2019, [23] of the paper; re-implemented. Differs: a position is a
    window of `window` spectra, where theirs is one of openSMILE's descriptors. Positions are not encoded.
    """

    def __init__(
        self, bins: int = 200, *, window: int = 8, size: int = 128, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.window = window
        self.embed = nn.Linear(window * bins, size)
        layer = nn.TransformerEncoderLayer(size, heads, 2 * size, dropout=0.2, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.classifier = nn.Linear(size, len(EMOTIONS))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, T, F) to (B, C) logits."""
        frames = F.pad(zero_past(frames, lengths, dim=1), (0, 0, 0, -frames.shape[1] % self.window))
        windows = self.embed(
            frames.reshape(len(frames), -1, self.window * frames.shape[2])
        )  # (B, T / window, size)
        counts = torch.div(lengths + self.window - 1, self.window, rounding_mode="floor")
        padding = ~valid(counts, windows.shape[1], windows.device)
        attended = self.layers(windows, src_key_padding_mask=padding)
        logits: Tensor = self.classifier(masked_mean(attended.float(), counts))
        return logits
