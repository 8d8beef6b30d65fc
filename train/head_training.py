"""Train the head on cached features by ERM, MTL, MMTL or Reptile, with the same number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from train.episodes import Episodes
from train.mmtl import (
    Loss,
    MetaRates,
    Samples,
    auxiliary_loss,
    emotion_loss,
    outer_gradient,
)
from train.reptile import reptile_gradient
from train.speaker_head import HeadArchitecture, SpeakerHead
from train.threads import single_threaded
from train.unlabelled import UnlabelledSpeech, claim_loss

HeadAlgorithm = Literal["erm", "mtl", "mmtl", "reptile"]

WARM_UP: Final = 0.1
"""Share of the steps in which the learning rate rises."""

AVERAGED: Final = 0.6
"""Share of the steps after which the running average of the weights starts."""

AUXILIARY_LOSS: Final = Loss()
"""Of mtl's auxiliary tasks: the labels are not smoothed."""

Steps = Iterable[Sequence[Samples]]

RATES: Final = MetaRates(inner_lr=0.05, transfer_lr=0.05, query="disjoint", loss=Loss(label_smoothing=0.1))


@dataclass(frozen=True)
class HeadOptions:
    """Options of the training."""

    algorithm: HeadAlgorithm = "mtl"
    steps: int = 250
    learning_rate: float = 0.003
    """gamma at the peak of its schedule; AdamW takes the outer step."""
    weight_decay: float = 0.01
    auxiliary_weight: float = 0.3
    """Weight of the auxiliary loss in mtl; the emotion loss has weight 1."""
    averaging: float = 0.98
    """Decay per step of the running average of the weights."""
    rates: MetaRates = RATES
    unlabelled_weight: float = 0.3
    """Weight of the loss on speech without labels, if there is any; the emotion loss has weight 1."""
    members: int = 1
    """Heads that are trained apart and joined (`train.head_members`)."""
    seed: int = 0
    """Of the first member; that of each further one is one more."""


def train_head(
    episodes: Episodes,
    arch: HeadArchitecture,
    options: HeadOptions,
    *,
    start: SpeakerHead | None = None,
    unlabelled: UnlabelledSpeech | None = None,
    shown: Callable[[Steps], Steps] = iter,
) -> SpeakerHead:
    """Train one head and return the running average of its weights, ready to evaluate.

    Args:
        episodes: of the training speakers.
        arch: sizes of the head.
        options: algorithm, number and size of the steps; `members` has no effect.
        start: head of these sizes to start from; random weights if None.
        unlabelled: speech without labels, in which no emotion is to be claimed.
        shown: wraps the steps to show the progress.
    """
    torch.manual_seed(options.seed)
    head = SpeakerHead(arch)
    if start is not None:
        head.load_state_dict(start.state_dict())
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    average = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(options.averaging))  # type: ignore[no-untyped-call]
    write_gradient = _GRADIENTS[options.algorithm]
    with single_threaded():
        for step, speakers in enumerate(shown(episodes.steps(options.steps))):
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * scheduled(step / options.steps)
            optimiser.zero_grad()
            write_gradient(head, speakers, options)
            if unlabelled:
                held_back = options.unlabelled_weight * claim_loss(head(unlabelled.inputs()))
                torch.autograd.backward(held_back)
            optimiser.step()
            if step >= AVERAGED * options.steps:
                average.update_parameters(head)
    head.load_state_dict(average.module.state_dict())
    return head.eval()


def scheduled(done: float) -> float:
    """Return the learning rate relative to its peak: half a cosine down to 0, times a linear rise.

    Args:
        done: share of the steps that are done, in [0, 1).
    """
    return min(1.0, done / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * done))


def _supervised(head: SpeakerHead, speakers: Sequence[Samples], options: HeadOptions) -> None:
    """Write the gradient of the emotion loss to `.grad`."""
    losses = [emotion_loss(head(item.frames), item, options.rates.loss) for item in speakers]
    torch.autograd.backward(torch.stack(losses).mean())


def _multi_task(head: SpeakerHead, speakers: Sequence[Samples], options: HeadOptions) -> None:
    """Write the gradient of the emotion loss plus the weighted auxiliary loss to `.grad`."""
    losses = []
    for item in speakers:
        outputs = head.meta(item.frames)
        auxiliary = auxiliary_loss(outputs, item, AUXILIARY_LOSS)
        emotions = emotion_loss(head.transfer(outputs), item, options.rates.loss)
        losses.append(emotions + options.auxiliary_weight * auxiliary)
    torch.autograd.backward(torch.stack(losses).mean())


def _meta_multi_task(head: SpeakerHead, speakers: Sequence[Samples], options: HeadOptions) -> None:
    """Write the gradient of equations 6 and 7, averaged over the speakers, to `.grad`."""
    outer_gradient(head.meta, head.transfer, speakers, options.rates)
    for parameter in head.parameters():
        if parameter.grad is not None:
            parameter.grad /= len(speakers)


def _reptile(head: SpeakerHead, speakers: Sequence[Samples], options: HeadOptions) -> None:
    """Write Reptile's gradient on the emotions, averaged over the speakers, to `.grad`."""
    reptile_gradient(head, speakers, options.rates)


_GRADIENTS: Final[dict[HeadAlgorithm, Callable[[SpeakerHead, Sequence[Samples], HeadOptions], None]]] = {
    "erm": _supervised,
    "mtl": _multi_task,
    "mmtl": _meta_multi_task,
    "reptile": _reptile,
}
