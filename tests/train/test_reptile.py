from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from train.mmtl import UNKNOWN, Loss, MetaRates, Samples, emotion_loss
from train.reptile import reptile_gradient


class Mean(nn.Module):
    """The mean over all frames, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.layer(frames.mean(dim=1))
        return logits


def speaker(seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(6, 3, 5, generator=generator, dtype=torch.float64)
    emotion = torch.randint(0, 4, (6,), generator=generator)
    return Samples(
        frames,
        torch.full((6,), 3),
        emotion,
        torch.full((3, 6), UNKNOWN),
        torch.ones(4).double(),
        torch.ones(3, 4),
    )


def plain_gradient(net: nn.Module, samples: Samples) -> list[Tensor]:
    loss = emotion_loss(net(samples.frames, samples.lengths), samples, Loss())
    return list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_gradient_is_the_mean_of_each_speakers_movement(inner_steps: int) -> None:
    net, speakers = Mean().double(), [speaker(1), speaker(2)]
    expected = [torch.zeros_like(value) for value in net.parameters()]
    for samples in speakers:
        moved = Mean().double()
        moved.load_state_dict(net.state_dict())
        for _ in range(inner_steps + 1):
            gradient = plain_gradient(moved, samples)
            with torch.no_grad():
                for value, slope in zip(moved.parameters(), gradient, strict=True):
                    value.sub_(0.3 * slope)
        for total, start, end in zip(expected, net.parameters(), moved.parameters(), strict=True):
            total.add_((start.detach() - end.detach()) / (0.3 * 2))
    reptile_gradient(net, speakers, MetaRates(inner_lr=0.3, inner_steps=inner_steps))
    for value, wanted in zip(net.parameters(), expected, strict=True):
        assert value.grad is not None
        torch.testing.assert_close(value.grad, wanted, rtol=1e-10, atol=1e-12)


def test_it_is_not_the_plain_gradient() -> None:
    net, samples = Mean().double(), speaker(1)
    plain = plain_gradient(net, samples)
    reptile_gradient(net, [samples], MetaRates(inner_lr=0.3))
    for value, other in zip(net.parameters(), plain, strict=True):
        assert value.grad is not None
        assert (value.grad / 2 - other).abs().max() > 1e-3 * other.abs().max()


def test_a_frozen_parameter_stays_without_gradient() -> None:
    net = Mean().double()
    net.layer.bias.requires_grad = False
    reptile_gradient(net, [speaker(1)], MetaRates())
    assert net.layer.bias.grad is None
    assert net.layer.weight.grad is not None
