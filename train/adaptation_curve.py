"""Test-time adaptation by number of labelled clips (Cai et al. 2020, section 2.4).

Differs: the paper tunes on the labels of the very clips that it scores. Here a speaker's clips are divided
once: some to tune on, the others to score, and the scored clips are the same at every point of the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from edge.arrays import Array
from edge.errors import UsageError
from edge.labels import DIMENSION_CLASSES, EMOTIONS
from train.metrics import accuracy, uar
from train.mmtl import Samples, class_weights
from train.model import EmotionNet
from train.speaker_finetune import Tuning, tune
from train.speaker_head import SpeakerHead

SHOTS: Final = (0, 1, 2, 4, 8, 12, 16, 20)
"""K: labelled clips of the speaker. 0 is the network without adaptation."""

PAPER_TUNING: Final = Tuning(inner_lr=0.001, inner_steps=20, transfer_steps=0)
"""Equation 4 at gamma on the ratings; the emotions are not used.

The paper does not state the number of steps; its released code takes up to 300 epochs and scores every fifth.
Here it is one number, set before any table was computed.
"""


@dataclass(frozen=True)
class CurvePoint:
    """Scores of one speaker after tuning on K clips."""

    shots: int
    """K."""
    uar: float
    """In [0, 1], as the accuracy."""
    accuracy: float
    clips: int
    """Number that are scored, the same at every K."""


def adaptation_curve(
    net: EmotionNet | SpeakerHead,
    clips: Sequence[Samples],
    tuning: Tuning = PAPER_TUNING,
    shots: Sequence[int] = SHOTS,
    seed: int = 0,
) -> list[CurvePoint]:
    """Tune a copy of the network on K clips of a speaker and score the others, for each K.

    Args:
        net: the generic network; it is not changed.
        clips: the segments of each clip of one speaker; a clip's emotion is known.
        tuning: step sizes and counts; with `transfer_steps` > 0 the emotions are used too.
        shots: each K, >= 0. K = 0 is scored even if it is not among them.
        seed: of the order in which the clips are taken.

    Raises:
        UsageError: no clip is left to score.
    """
    most = max(shots, default=0)
    if most >= len(clips):
        raise UsageError(
            f"the speaker has {len(clips)} clips, so none is left to score after tuning on {most}",
            remedy="tune on fewer clips, or leave the speaker out",
        )
    learned, left = curve_division(len(clips), most, seed)
    pool, scored = [clips[index] for index in learned], [clips[index] for index in left]
    return [_point(_tuned(net, pool[:count], tuning), count, scored) for count in sorted({0, *shots})]


def curve_division(count: int, most: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide clips by index: `most` to tune on, in the order in which they are taken, and those to score."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    return order[:most], order[most:]


def joined(clips: Sequence[Samples]) -> Samples:
    """Put the segments of one speaker's clips together, padded with zeros, and weigh their classes."""
    longest = max(clip.frames.shape[1] for clip in clips)
    padded = [F.pad(clip.frames, (0, 0, 0, longest - clip.frames.shape[1])) for clip in clips]
    emotion = torch.cat([clip.emotion for clip in clips])
    ratings = torch.cat([clip.ratings for clip in clips], dim=1)
    return replace(
        clips[0],
        frames=torch.cat(padded),
        lengths=torch.cat([clip.lengths for clip in clips]),
        emotion=emotion,
        ratings=ratings,
        emotion_weights=class_weights(emotion, len(EMOTIONS)),
        rating_weights=torch.stack([class_weights(labels, DIMENSION_CLASSES) for labels in ratings]),
    )


def _tuned(
    net: EmotionNet | SpeakerHead, support: Sequence[Samples], tuning: Tuning
) -> EmotionNet | SpeakerHead:
    net = deepcopy(net).eval()
    if support:
        for _ in tune(net, joined(support), tuning):
            pass
    return net


def _point(net: nn.Module, shots: int, scored: Sequence[Samples]) -> CurvePoint:
    labels = [int(clip.emotion[0]) for clip in scored]
    predictions = [int(posterior(net, clip).argmax()) for clip in scored]
    return CurvePoint(shots, uar(labels, predictions), accuracy(labels, predictions), len(scored))


def posterior(net: nn.Module, clip: Samples) -> Array:
    """Average the posteriors of a clip's segments: (C,)."""
    with torch.no_grad():
        average: Array = net(clip.frames, clip.lengths).float().softmax(dim=1).mean(dim=0).numpy()
    return average
