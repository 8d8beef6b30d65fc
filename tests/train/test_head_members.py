from __future__ import annotations

import pytest
import torch

from train.head_members import joined
from train.speaker_head import HeadArchitecture, SpeakerHead

INPUTS = torch.randn(50, 24, generator=torch.Generator().manual_seed(3))


def members(count: int, arch: HeadArchitecture) -> list[SpeakerHead]:
    heads = []
    for seed in range(count):
        torch.manual_seed(seed)
        head = SpeakerHead(arch).eval()
        head.meta.fc1.weight.data = head.meta.fc1.weight.half().float()
        heads.append(head)
    return heads


@pytest.mark.parametrize(
    "arch",
    [
        HeadArchitecture(12, fully_connected=8),
        HeadArchitecture(12, fully_connected=8, heads="shared"),
        HeadArchitecture(12, fully_connected=8, dimensions=1),
    ],
)
@torch.inference_mode()
def test_the_logits_are_the_mean_of_the_members(arch: HeadArchitecture) -> None:
    heads = members(5, arch)
    expected = torch.stack([head(INPUTS) for head in heads]).mean(dim=0)
    found = joined(heads)
    assert not found.training
    assert found.arch.fully_connected == 40
    torch.testing.assert_close(found(INPUTS), expected, rtol=0, atol=1e-5)
    assert (expected - heads[0](INPUTS)).abs().max() > 0.01


@torch.inference_mode()
def test_the_ratings_are_their_mean_with_the_smallest_change() -> None:
    heads = members(3, HeadArchitecture(12, fully_connected=8))
    found = joined(heads)
    mean = torch.stack([head.meta(INPUTS) for head in heads]).mean(dim=0)
    change = found.meta(INPUTS) - mean
    rows = found.transfer.weight
    inside = change @ torch.linalg.pinv(rows) @ rows  # what changes no emotion would be more than needed
    torch.testing.assert_close(inside, change, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_equal_members_are_as_one() -> None:
    head = members(1, HeadArchitecture(12, fully_connected=8))[0]
    assert joined([head]) is head
    twice = joined([head, head])
    torch.testing.assert_close(twice(INPUTS), head(INPUTS), rtol=0, atol=1e-6)
    torch.testing.assert_close(twice.meta(INPUTS), head.meta(INPUTS), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_fc_1_is_rounded_to_what_is_stored() -> None:
    heads = [SpeakerHead(HeadArchitecture(12, fully_connected=8)).eval() for _ in range(2)]
    found = joined(heads).meta.fc1.weight
    exact = torch.cat([head.meta.fc1.weight for head in heads])
    assert torch.equal(found, found.half().float())
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-6)
