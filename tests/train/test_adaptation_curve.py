from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edge.errors import UsageError
from edge.labels import EMOTIONS
from tests.train.synthetic import TINY
from train.adaptation_curve import PAPER_TUNING, _tuned, adaptation_curve, joined
from train.mmtl import Samples
from train.model import EmotionNet
from train.speaker_finetune import Tuning

STRONG = Tuning(inner_lr=1.0, inner_steps=100, transfer_lr=0.5, transfer_steps=200)


def clip(number: int, frames: int = 64) -> Samples:
    """Make a clip of two segments whose band tells the emotion."""
    emotion = number % len(EMOTIONS)
    values = 0.3 * torch.randn(2, frames, 200)
    values[:, :, 50 * emotion : 50 * emotion + 50] += 2.0
    labels = torch.full((2,), emotion)
    return Samples(
        values, torch.full((2,), frames), labels, labels.repeat(3, 1), torch.ones(4), torch.ones(3, 4)
    )


@pytest.fixture
def net() -> EmotionNet:
    return EmotionNet(replace(TINY, heads="separate")).eval()


def test_step_0_is_scored_even_if_it_is_not_asked_for(net: EmotionNet) -> None:
    points = adaptation_curve(net, [clip(index) for index in range(12)], shots=(4,))
    assert [point.shots for point in points] == [0, 4]


def test_the_same_clips_are_scored_at_every_k_and_none_is_tuned_on(net: EmotionNet) -> None:
    points = adaptation_curve(net, [clip(index) for index in range(12)], shots=(1, 4))
    assert {point.clips for point in points} == {8}


def test_labelled_clips_help_a_network_that_knows_nothing(net: EmotionNet) -> None:
    before, after = adaptation_curve(net, [clip(index) for index in range(24)], STRONG, shots=(12,))
    assert after.uar > before.uar + 0.2


def test_the_network_itself_is_not_changed(net: EmotionNet) -> None:
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    adaptation_curve(net, [clip(index) for index in range(12)], STRONG, shots=(4,))
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_the_papers_tuning_does_not_read_the_emotions(net: EmotionNet) -> None:
    clips = [clip(index) for index in range(12)]

    def tuned_on(emotion: int) -> torch.Tensor:
        support = [replace(item, emotion=torch.full((2,), emotion)) for item in clips[:6]]
        return torch.cat(
            [value.flatten() for value in _tuned(net, support, PAPER_TUNING).state_dict().values()]
        )

    generic = torch.cat([value.flatten() for value in net.state_dict().values()])
    assert torch.equal(tuned_on(0), tuned_on(1))
    assert not torch.equal(tuned_on(0), generic)


def test_too_few_clips_are_refused(net: EmotionNet) -> None:
    with pytest.raises(UsageError, match="none is left to score"):
        adaptation_curve(net, [clip(index) for index in range(4)], shots=(4,))


def test_clips_of_different_lengths_are_joined_and_weighed() -> None:
    both = joined([clip(0, 50), clip(1, 64)])
    assert both.frames.shape == (4, 64, 200)
    assert both.lengths.tolist() == [50, 50, 64, 64]
    assert not both.frames[:2, 50:].any()
    assert both.emotion_weights.tolist() == [1.0, 1.0, 0.0, 0.0]
