"""The layers on the frozen encoder: absolute and speaker-relative inputs, FC 64, V/A/D outputs, FC.

The roles are those of Cai et al. 2020: FC 1 and FC 2 are the meta learner (theta), FC 3 the transfer
learner (phi). Shapes by letter: B batch, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edge.arrays import Array
from edge.features.log_mel import LOG_MEL
from edge.labels import DIMENSION_CLASSES, EMOTIONS
from edge.model.manifest import BaselineConfig
from edge.recognition.speaker_baseline import recorded_level

BaselineKind = Literal["mean", "deviation"]
"""Whether the relative inputs are z - b, or (z - b) / s with the deviation s of what was heard too."""


@dataclass(frozen=True)
class HeadArchitecture:
    """Sizes and variants."""

    embedding: int
    """D: mean and deviation of the encoder's hidden states."""
    fully_connected: int = 64
    dimensions: int = 3
    """Number of auxiliary tasks among valence, arousal and dominance."""
    heads: Literal["shared", "separate"] = "separate"
    """Whether the dimensions share one 4-way output, as in the paper, or have one each."""
    dropout: float = 0.3

    @property
    def auxiliary_outputs(self) -> int:
        """Outputs of FC 2."""
        return DIMENSION_CLASSES * (1 if self.heads == "shared" else self.dimensions)


@dataclass(frozen=True)
class EmbeddingStatistics:
    """Mean and standard deviation of the embedding over the training windows; each (D,)."""

    mean: Array
    std: Array

    def standardised(self, embedding: Array) -> Array:
        """Map (..., D) embeddings to zero mean and unit deviation."""
        values: Array = ((embedding - self.mean) / self.std).astype(np.float32)
        return values


def fit_statistics(embeddings: Array) -> EmbeddingStatistics:
    """Fit the statistics to (N, D) embeddings of training speakers."""
    values = embeddings.astype(np.float64)
    std = np.maximum(values.std(axis=0), 1e-4)
    return EmbeddingStatistics(values.mean(axis=0).astype(np.float32), std.astype(np.float32))


def clip_weight(seconds: float) -> float:
    """Return the weight of a recording in a baseline: its windows without overlap, at least 1."""
    return max(1.0, 1000.0 * seconds / LOG_MEL.window_ms)


SpeakerInputs = Callable[[Array, Array, NDArray[np.float64]], Array]
"""Makes the (N, 2 D) inputs of the head from (N, D) standardised embeddings, and from the (W, D) windows of
the speaker that were heard and their (W,) weights; there may be none of them."""


LEARNED_PRIOR: Final = 4.0
"""`BaselineConfig.prior_windows` in the episodes that a head learns from. It answers better by baselines that
are shrunken less than those (docs/default_model.md, "How much a baseline is shrunken")."""


def relative_inputs(
    standardised: Array,
    heard: Array,
    weights: NDArray[np.float64],
    prior_windows: float = BaselineConfig.prior_windows,
) -> Array:
    """Return [z, z - b]; b is the shrunken mean of what was heard (`SpeakerInputs`)."""
    level = recorded_level(heard, weights, BaselineConfig(prior_windows))
    return head_inputs(standardised, level.mean)


def scaled_inputs(
    standardised: Array,
    heard: Array,
    weights: NDArray[np.float64],
    prior_windows: float = BaselineConfig.prior_windows,
) -> Array:
    """Return [z, (z - b) / s]; s is the shrunken deviation of what was heard (`SpeakerInputs`)."""
    level = recorded_level(heard, weights, BaselineConfig(prior_windows, scaled=True))
    return head_inputs(standardised, level.mean, level.deviation)


INPUTS: Final[dict[BaselineKind, SpeakerInputs]] = {"mean": relative_inputs, "deviation": scaled_inputs}
"""As the recogniser makes them."""

LEARNED_INPUTS: Final[dict[BaselineKind, SpeakerInputs]] = {
    "mean": partial(relative_inputs, prior_windows=LEARNED_PRIOR),
    "deviation": partial(scaled_inputs, prior_windows=LEARNED_PRIOR),
}
"""Those of a training."""


def head_inputs(standardised: Array, baseline: Array, deviation: Array | None = None) -> Array:
    """Concatenate (..., D) standardised embeddings with their difference from the baseline: (..., 2 D).

    Args:
        standardised: z.
        baseline: b.
        deviation: s, > 0, which divides the difference; None: 1.
    """
    relative = standardised - baseline
    if deviation is not None:
        relative = relative / deviation
    inputs: Array = np.concatenate([standardised, relative], axis=-1)
    return inputs


class MetaHead(nn.Module):
    """theta: inputs to the classes of the auxiliary tasks."""

    def __init__(self, arch: HeadArchitecture) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * arch.embedding, arch.fully_connected)
        self.dropout = nn.Dropout(arch.dropout)
        self.fc2 = nn.Linear(arch.fully_connected, arch.auxiliary_outputs)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, 2 D) to auxiliary logits; `lengths`, which `train.mmtl` passes, has no effect."""
        logits: Tensor = self.fc2(self.dropout(F.relu(self.fc1(inputs))))
        return logits


class SpeakerHead(nn.Module):
    """Both learners: inputs to emotion logits."""

    def __init__(self, arch: HeadArchitecture) -> None:
        super().__init__()
        self.arch = arch
        self.meta = MetaHead(arch)
        self.transfer = nn.Linear(arch.auxiliary_outputs, len(EMOTIONS))

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, 2 D) to (B, C) emotion logits; `lengths` has no effect."""
        logits: Tensor = self.transfer(self.meta(inputs, lengths))
        return logits
