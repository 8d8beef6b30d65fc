"""The network on a pretrained encoder: level, padding and the speaker's baseline."""

from __future__ import annotations

import pytest
import torch

from train.pretrained_net import (
    DYNAMIC_RANGE,
    MAXIMUM,
    PretrainedArchitecture,
    PretrainedNet,
    normalised,
)
from train.speaker_net import moments
from train.whisper_encoder import HEAD_SIZE


@pytest.fixture(scope="module")
def net() -> PretrainedNet:
    torch.manual_seed(0)
    return PretrainedNet(PretrainedArchitecture(width=HEAD_SIZE, blocks=2)).eval()


def frames(items: int = 2, count: int = 40) -> torch.Tensor:
    return torch.randn(items, count, 80, generator=torch.Generator().manual_seed(1))


def test_the_gain_of_the_microphone_has_no_effect(net: PretrainedNet) -> None:
    torch.testing.assert_close(net(frames()), net(frames() + 1.7), rtol=0, atol=1e-4)


def test_what_is_far_below_the_maximum_of_a_window_is_clipped() -> None:
    window = frames(1)
    window[0, 3, 5] = -20.0
    found = normalised(window)
    assert found.max() == pytest.approx((MAXIMUM + 4.0) / 4.0)
    assert found[0, 3, 5] == pytest.approx((MAXIMUM - DYNAMIC_RANGE + 4.0) / 4.0)
    assert normalised(torch.full((1, 5, 80), -10.0)).isfinite().all()


def test_padding_has_no_effect(net: PretrainedNet) -> None:
    padded = frames()
    padded[1, 24:] = 9.0
    found = net.pooled(padded, torch.tensor([40, 24]))
    torch.testing.assert_close(found[1:], net.pooled(padded[1:, :24]), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:1], net.pooled(padded[:1]), rtol=0, atol=1e-5)


def test_the_embedding_is_the_mean_before_the_last_block_and_two_moments_after_it(net: PretrainedNet) -> None:
    window = frames(1)
    states = net.encoder.hidden_states(normalised(window))
    expected = torch.cat([states[1].mean(1), states[2].mean(1), states[2].std(1, correction=0)], dim=1)
    torch.testing.assert_close(net.pooled(window), expected)
    torch.testing.assert_close(moments(states[2])[1], states[2].std(1, correction=0))


def test_a_baseline_of_zero_is_no_baseline_and_another_one_counts(net: PretrainedNet) -> None:
    zero = torch.zeros(net.arch.embedding_size)
    torch.testing.assert_close(net(frames(), zero), net(frames()))
    assert not torch.allclose(net(frames(), zero + 1.0), net(frames()))


def test_a_deviation_of_one_is_none_and_another_one_divides_the_difference(net: PretrainedNet) -> None:
    size = net.arch.embedding_size
    baseline, deviation = torch.randn(size), 0.5 + torch.rand(size)
    torch.testing.assert_close(net(frames(), baseline, torch.ones(size)), net(frames(), baseline))
    embedding = net.embedding(frames())
    expected = net.head(torch.cat([embedding, (embedding - baseline) / deviation], dim=1))
    torch.testing.assert_close(net(frames(), baseline, deviation), expected)
