from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from train.first_convolution import convolved


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 1, 14, 17, generator=generator).to(dtype)
    weight = torch.randn(5, 1, 4, 6, generator=generator).to(dtype).requires_grad_()
    return maps, weight, torch.randn(5, generator=generator).to(dtype).requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torchs_convolution(memory_format: torch.memory_format) -> None:
    maps, weight, bias = tensors(torch.float64)
    factor = torch.randn(3, 5, 11, 12, dtype=torch.float64).to(memory_format=memory_format)
    found = convolved(maps, weight, bias)
    expected = F.conv2d(maps, weight, bias)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((y * factor).sum(), [weight, bias]) for y in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_under_autocast_the_gradients_are_those_of_torchs_convolution() -> None:
    maps, weight, bias = tensors(torch.float32)
    gradients = []
    for convolution in (convolved, F.conv2d):
        with torch.autocast("cpu", torch.bfloat16):
            y = convolution(maps, weight, bias)
        assert y.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(y.float().square().sum(), [weight, bias]))
    assert all(gradient.dtype == torch.float32 for gradient in gradients[0])
    torch.testing.assert_close(
        gradients[0], gradients[1], rtol=0.02, atol=0.02 * float(gradients[1][0].abs().max())
    )


def test_maps_that_need_a_gradient_get_one() -> None:
    maps, weight, bias = tensors(torch.float64)
    maps.requires_grad_()
    (of_maps,) = torch.autograd.grad(convolved(maps, weight, bias).sum(), [maps])
    assert of_maps.abs().max() > 0
