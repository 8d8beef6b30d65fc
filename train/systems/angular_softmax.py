"""CNN-LSTM with a class-specific angular softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge.labels import EMOTIONS
from train.mmtl import Loss, Samples, emotion_loss
from train.model import Architecture, MetaLearner
from train.systems.base import System

SCALE = 16.0
"""Factor on the cosines; without it the softmax of values in [-1, 1] cannot become certain."""


class AngularSoftmax(nn.Module):
    """Cosine classifier with an angular margin on the target class.

    logit_c = s psi_c(angle_c) for the target c, s cos(angle_c) for the others
    psi_c(a) = (-1)^k cos(m_c a) - 2k  with  k = floor(m_c a / pi)      Liu et al. 2017 (SphereFace), eq. 7

    Weights and embedding have unit length. m_c = 1 is no margin.
    """

    def __init__(self, size: int, margins: Sequence[float]) -> None:
        super().__init__()
        if min(margins) < 1.0:
            raise ValueError(f"margins are at least 1, not {min(margins)}")
        self.weight = nn.Parameter(torch.randn(len(margins), size))
        self.margins: Tensor
        self.register_buffer("margins", torch.tensor(list(margins), dtype=torch.float32))

    def forward(self, embedding: Tensor, target: Tensor | None = None) -> Tensor:
        """Map (B, D) to (B, C) logits, with the margin if the (B,) target is given; -1 has none."""
        cosine = F.normalize(embedding.float()) @ F.normalize(self.weight.float()).T  # (B, C)
        if target is None:
            return SCALE * cosine
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        turned = self.margins * angle
        half_turns = (turned.detach() / math.pi).floor()
        psi = torch.where(half_turns % 2 == 0, 1.0, -1.0) * turned.cos() - 2.0 * half_turns
        is_target = target[:, None] == torch.arange(len(self.margins), device=target.device)
        return SCALE * torch.where(is_target, psi, cosine)


class AngularCnnLstm(System):
    """The CNN-LSTM of this project with an angular softmax as its last layer.

    After Li, He, Li, Wang and Zhang 2019, [20] of the paper; re-implemented. Differs: the margins are the
    same for all classes unless given.
    """

    def __init__(self, arch: Architecture, margins: Sequence[float] = (2.0,) * len(EMOTIONS)) -> None:
        super().__init__()
        self.meta = MetaLearner(arch)
        self.meta.fc2 = nn.Linear(arch.fully_connected, arch.fully_connected)
        self.angular = AngularSoftmax(arch.fully_connected, margins)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, T, F) to (B, C) logits, without margin."""
        logits: Tensor = self.angular(self.meta(frames, lengths))
        return logits

    def loss(self, samples: Samples, loss: Loss) -> Tensor:
        """Return the cross entropy of the logits with the margin."""
        logits = self.angular(self.meta(samples.frames, samples.lengths), samples.emotion)
        return emotion_loss(logits, samples, loss)
