"""bfloat16 or float32: what a machine can train in, and which of them is faster."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from edge.errors import UsageError
from train.model import EmotionNet

Precision = Literal["bfloat16", "float32"]
"""Of the forward passes; losses, gradients of the weights and the outer step are float32."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return the context of the forward passes.

    Raises:
        UsageError: the device cannot train in that precision.
    """
    if precision not in supported_precisions(device):
        raise UsageError(f"this {device.type} cannot train in {precision}", remedy="give --precision float32")
    context: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16"
    )
    return context


@cache
def supported_precisions(device: torch.device) -> tuple[Precision, ...]:
    """List what a device can train in. Not every processor has PyTorch's LSTM in bfloat16."""
    try:
        with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16):
            nn.LSTM(1, 1, device=device)(torch.zeros(1, 1, 1, device=device))
    except RuntimeError:
        return ("float32",)
    return PRECISIONS


def measured_precisions(
    net: EmotionNet, window: int, device: torch.device, segments: int = 8
) -> dict[Precision, float]:
    """Return the seconds of a forward and backward pass, the shorter of two, in each supported precision.

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
        supported = supported_precisions(device)
        seconds: dict[Precision, list[float]] = {precision: [] for precision in supported}
        for _ in range(3):  # the first pass prepares kernels
            for precision in supported:
                seconds[precision].append(_seconds(copy, frames, lengths, precision))
    return {precision: min(times[1:]) for precision, times in seconds.items()}


def faster(seconds: dict[Precision, float]) -> Precision:
    """Return the precision that takes fewer seconds."""
    return min(seconds, key=lambda precision: seconds[precision])


def comparison(seconds: dict[Precision, float], segments: int = 8) -> str:
    """Say which precision is used here and why, with the seconds of `measured_precisions`."""
    if len(seconds) == 1:
        return f"training in {faster(seconds)}: this processor cannot train in bfloat16"
    times = ", ".join(f"{1000 * taken:.0f} ms in {name}" for name, taken in seconds.items())
    return f"training in {faster(seconds)}, the faster here: a pass of {segments} segments takes {times}"


def _seconds(net: EmotionNet, frames: Tensor, lengths: Tensor, precision: Precision) -> float:
    began = time.perf_counter()
    with autocast(frames.device, precision):
        logits = net(frames, lengths)
    torch.autograd.backward(logits.float().square().mean())
    if frames.device.type == "cuda":
        torch.cuda.synchronize(frames.device)
    return time.perf_counter() - began
