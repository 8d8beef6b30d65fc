"""CNN with a GRU and sequential capsules (CNN + GRU + SeqCap)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge.labels import EMOTIONS
from train.mmtl import UNKNOWN, Loss, Samples, weighted_cross_entropy
from train.systems.base import MaskedConv, System, masked_mean, zero_past


def squash(vectors: Tensor) -> Tensor:
    """Shrink vectors along the last axis to a length in [0, 1), keeping their direction.

    v = |s|^2 / (1 + |s|^2) * s / |s|      Sabour et al. 2017, eq. 1
    """
    squared = vectors.square().sum(dim=-1, keepdim=True)
    return squared / (1.0 + squared) * vectors / (squared + 1e-9).sqrt()


def margin_loss(lengths: Tensor, labels: Tensor) -> Tensor:
    """Return the (B,) margin loss of (B, C) capsule lengths.

    L = sum_c T_c max(0, 0.9 - |v_c|)^2 + 0.5 (1 - T_c) max(0, |v_c| - 0.1)^2      Sabour et al. 2017, eq. 4
    """
    target = F.one_hot(labels, lengths.shape[1])
    present = (0.9 - lengths).clamp(min=0.0).square()
    absent = 0.5 * (lengths - 0.1).clamp(min=0.0).square()
    return torch.where(target == 1, present, absent).sum(dim=1)


class Routing(nn.Module):
    """Capsules of one layer to those of the next, by dynamic routing (Sabour et al. 2017, procedure 1).

    A capsule of zeros changes nothing, so padded positions may be given as zeros.
    """

    def __init__(self, kinds: int, size: int, outputs: int, output_size: int, iterations: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(kinds, outputs, size, output_size))
        self.iterations = iterations

    def forward(self, capsules: Tensor) -> Tensor:
        """Map (N, P, kinds, size), positions P sharing weights, to (N, outputs, output size)."""
        votes = torch.einsum("npks,kosd->npkod", capsules, self.weight).flatten(1, 2)  # (N, P * kinds, O, D)
        fixed = votes.detach()  # gradients flow through the last iteration only
        agreement = torch.zeros(votes.shape[:3], device=votes.device)
        for _ in range(self.iterations - 1):
            output = squash((agreement.softmax(dim=2).unsqueeze(3) * fixed).sum(dim=1))
            agreement = agreement + (fixed * output.unsqueeze(1)).sum(dim=3)
        return squash((agreement.softmax(dim=2).unsqueeze(3) * votes).sum(dim=1))


class SequentialCapsules(System):
    """Convolutions, then a branch of capsules (by window, then by segment) and a branch with a GRU.

    posterior = (1 - w) softmax(GRU branch) + w |v_c| / sum_c |v_c|
    loss      = (1 - w) cross entropy + w margin loss

    After Wu et al. 2019, [21] of the paper; re-implemented.
    """

    def __init__(
        self,
        bins: int = 200,
        *,
        channels: int = 16,
        window: int = 8,
        kinds: int = 8,
        size: int = 8,
        capsule_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.window, self.kinds, self.share = window, kinds, capsule_share
        self.blocks = nn.ModuleList(
            [MaskedConv(1, channels, (5, 5)), MaskedConv(channels, channels, (3, 3), (4, 4))]
        )
        features = channels * (bins // 8)
        self.primary = nn.Linear(features, kinds * size)
        self.by_window = Routing(kinds, size, kinds, size)
        self.by_segment = Routing(kinds, size, len(EMOTIONS), 2 * size)
        self.gru = nn.GRU(features, 64, batch_first=True)
        self.classifier = nn.Linear(64, len(EMOTIONS))

    def branches(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, C) lengths of the emotions' capsules and the (B, C) logits of the GRU branch."""
        maps = zero_past(frames, lengths, dim=1).unsqueeze(1)
        for block in self.blocks:
            maps, lengths = block(maps, lengths)  # (B, channels, T / 8, F / 8) after both
        features = maps.permute(0, 2, 1, 3).flatten(2)  # (B, S, channels * F / 8)
        states, _ = self.gru(features)
        logits: Tensor = self.classifier(masked_mean(states.float(), lengths))
        return self._capsules(features, lengths).norm(dim=2), logits

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, T, F) to the (B, C) logarithms of the posterior."""
        capsules, logits = self.branches(frames, lengths)
        shares = (capsules + 1e-6) / (capsules + 1e-6).sum(dim=1, keepdim=True)
        return ((1 - self.share) * logits.softmax(dim=1) + self.share * shares).log()

    def loss(self, samples: Samples, loss: Loss) -> Tensor:
        """Return the weighted sum of both branches' losses."""
        capsules, logits = self.branches(samples.frames, samples.lengths)
        entropy = weighted_cross_entropy(logits, samples.emotion, samples.emotion_weights, loss)
        known = samples.emotion != UNKNOWN
        if not known.any():
            return entropy
        labels = samples.emotion[known]
        weights = samples.emotion_weights[labels]
        margin = (weights * margin_loss(capsules[known], labels)).sum() / weights.sum()
        return (1 - self.share) * entropy + self.share * margin

    def _capsules(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Route (B, S, D) features to (B, C, size) capsules of the emotions."""
        count, steps, _ = features.shape
        primary = squash(self.primary(features).float().reshape(count, steps, self.kinds, -1))
        primary = zero_past(primary, lengths, dim=1)  # (B, S, kinds, size)
        primary = F.pad(primary, (0, 0, 0, 0, 0, -steps % self.window))
        windows = primary.reshape(-1, self.window, *primary.shape[2:])  # (B * W, window, kinds, size)
        routed = self.by_window(windows).reshape(count, -1, *primary.shape[2:])  # (B, W, kinds, size)
        emotions: Tensor = self.by_segment(routed)
        return emotions
