"""Whether a machine trains faster in bfloat16 or in float32."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Literal, get_args

import torch
from torch import Tensor

from train.model import EmotionNet

Precision = Literal["bfloat16", "float32"]
"""Of the forward passes; losses, gradients of the weights and the outer step are float32."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return the context of the forward passes."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16"
    )
    return context


def measured_precisions(
    net: EmotionNet, window: int, device: torch.device, segments: int = 8
) -> dict[Precision, float]:
    """Return the seconds that a forward and backward pass takes in each precision: the shorter of two.

    The network and the random numbers of the run stay as they are.

    Args:
        net: to be trained.
        window: frames of a segment.
        device: that will train it.
        segments: of the batch.
    """
    copy = deepcopy(net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    copy.train()
    with torch.random.fork_rng():
        frames = torch.randn(segments, window, net.arch.bins, device=device)
        lengths = torch.full((segments,), window)
        seconds: dict[Precision, list[float]] = {precision: [] for precision in PRECISIONS}
        for _ in range(3):  # the first pass prepares kernels
            for precision in PRECISIONS:
                seconds[precision].append(_seconds(copy, frames, lengths, precision))
    return {precision: min(times[1:]) for precision, times in seconds.items()}


def faster(seconds: dict[Precision, float]) -> Precision:
    """Return the precision that takes fewer seconds."""
    return min(seconds, key=lambda precision: seconds[precision])


def comparison(seconds: dict[Precision, float], segments: int = 8) -> str:
    """Say which precision is the faster here, with the seconds of `measured_precisions`."""
    times = ", ".join(f"{1000 * seconds[name]:.0f} ms in {name}" for name in PRECISIONS)
    return f"training in {faster(seconds)}, the faster here: a pass of {segments} segments takes {times}"


def _seconds(net: EmotionNet, frames: Tensor, lengths: Tensor, precision: Precision) -> float:
    began = time.perf_counter()
    with autocast(frames.device, precision):
        logits = net(frames, lengths)
    torch.autograd.backward(logits.float().square().mean())
    if frames.device.type == "cuda":
        torch.cuda.synchronize(frames.device)
    return time.perf_counter() - began
