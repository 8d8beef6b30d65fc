"""Convolution of spectrograms, maps of one channel, with a gradient that a CPU computes fast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def convolved(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve (B, 1, T, F) maps with (C, 1, t, f) kernels: (B, C, T - t + 1, F - f + 1).

    `F.conv2d` with another backward pass on a CPU, equal but for rounding; maps that need a gradient of their
    own take `F.conv2d` itself.
    """
    if maps.requires_grad or maps.device.type != "cpu":
        return F.conv2d(maps, weight, bias)
    convolution: Tensor = _Convolution.apply(maps.contiguous(), weight, bias)
    return convolution


class _Convolution(torch.autograd.Function):
    """`F.conv2d` whose weight gradient reads the maps as f channels, shifted by one bin each.

    oneDNN computes the weight gradient of a convolution of one channel 3 to 4 times as slowly as that of the
    same number of products over f channels and kernels of t x 1.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(maps)
        ctx.kernel = weight.shape
        return F.conv2d(maps, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:
        (gradient,) = gradients  # (B, C, T', F')
        maps = ctx.saved_tensors[0].to(gradient.dtype)
        channels, _, time, frequency = ctx.kernel
        batch, _, frames, bins = maps.shape
        shifted = maps.as_strided(
            (batch, frequency, frames, bins - frequency + 1), (frames * bins, 1, bins, 1)
        )  # (B, f, T, F'), a view
        kernels = gradient.new_empty(channels, frequency, time, 1)
        _, of_kernels, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            shifted,
            kernels,
            [channels],
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, True],
        )
        return None, of_kernels.permute(0, 3, 2, 1), of_bias
