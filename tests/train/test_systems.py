"""The systems of Table 2: shapes, padding, and the properties that define each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edge.labels import EMOTIONS
from tests.train.synthetic import TINY, make_spectra
from train.augment import Augmentation
from train.batches import SamplingConfig
from train.mmtl import UNKNOWN, Loss, Samples
from train.segments import fit_normalisation
from train.systems.angular_softmax import AngularCnnLstm, AngularSoftmax
from train.systems.attention_pooling import AttentionPoolingCnn
from train.systems.base import System, masked_mean
from train.systems.capsules import Routing, SequentialCapsules, margin_loss, squash
from train.systems.self_attention import SelfAttention
from train.training import Options, Training, predict

SYSTEMS: dict[str, Callable[[], System]] = {
    "angular": lambda: AngularCnnLstm(TINY),
    "capsules": lambda: SequentialCapsules(channels=4, kinds=4, size=4),
    "attention pooling": lambda: AttentionPoolingCnn(channels=4),
    "self-attention": lambda: SelfAttention(size=16, heads=2, layers=1),
}

each_system = pytest.mark.parametrize("make", SYSTEMS.values(), ids=SYSTEMS.keys())


def samples(count: int = 8, frames: int = 72) -> Samples:
    """Make segments whose band tells the emotion."""
    emotion = torch.arange(count) % len(EMOTIONS)
    values = torch.randn(count, frames, 200)
    for row, label in zip(values, emotion.tolist(), strict=True):
        row[:, 50 * label : 50 * label + 50] += 2.0
    return Samples(
        frames=values,
        lengths=torch.full((count,), frames),
        emotion=emotion,
        ratings=torch.full((3, count), UNKNOWN),
        emotion_weights=torch.ones(len(EMOTIONS)),
        rating_weights=torch.ones(3, 4),
    )


@each_system
def test_there_is_a_finite_logit_for_each_emotion(make: Callable[[], System]) -> None:
    batch = samples(3)
    logits = make().eval()(batch.frames, batch.lengths)
    assert logits.shape == (3, len(EMOTIONS))
    assert logits.isfinite().all()


@each_system
def test_padded_frames_do_not_change_the_logits(make: Callable[[], System]) -> None:
    net = make().eval()
    frames = torch.randn(2, 96, 200)
    lengths = torch.tensor([77, 96])
    other = frames.clone()
    other[0, 77:] = 50.0
    alone = net(frames[:1, :77], lengths[:1])
    torch.testing.assert_close(net(frames, lengths)[:1], net(other, lengths)[:1])
    torch.testing.assert_close(net(frames, lengths)[:1], alone, atol=1e-4, rtol=1e-4)


@each_system
def test_valid_frames_change_the_logits(make: Callable[[], System]) -> None:
    net = make().eval()
    frames, lengths = torch.randn(1, 96, 200), torch.tensor([96])
    other = frames.clone()
    other[0, 40:60] += 5.0
    assert not torch.allclose(net(frames, lengths), net(other, lengths))


@each_system
def test_the_loss_falls_on_a_toy_problem(make: Callable[[], System]) -> None:
    net, batch = make().train(), samples(16)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = net.loss(batch, Loss())
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_angular_margin_lowers_the_target_logit_alone() -> None:
    layer = AngularSoftmax(6, (2.0, 3.0, 1.0, 2.0))
    embedding, target = torch.randn(4, 6), torch.arange(4)
    plain, margin = layer(embedding), layer(embedding, target)
    off = ~torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(margin[off], plain[off])
    difference = (plain - margin).diagonal()
    assert (difference[[0, 1, 3]] > 0.1).all()
    assert difference[2].item() == pytest.approx(0.0, abs=1e-3)  # m = 1: no margin


def test_the_angular_margin_is_monotone_in_the_angle() -> None:
    layer = AngularSoftmax(2, (3.0,))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0]]))
    angles = torch.linspace(0.01, 3.13, 200)
    embedding = torch.stack([angles.cos(), angles.sin()], dim=1)
    logits = layer(embedding, torch.zeros(200, dtype=torch.long))[:, 0]
    assert (logits.diff() < 0).all()


def test_a_margin_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AngularSoftmax(4, (0.5, 1.0))


def test_squash_keeps_the_direction_and_bounds_the_length() -> None:
    vectors = torch.tensor([[0.03, 0.04], [3.0, 4.0], [300.0, 400.0]])
    squashed = squash(vectors)
    expected = torch.tensor([0.05**2 / (1 + 0.05**2), 25 / 26, 250_000 / 250_001])
    torch.testing.assert_close(squashed.norm(dim=1), expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(squashed[1] / squashed[1].norm(), vectors[1] / 5.0)


def test_routing_prefers_the_output_that_the_votes_agree_on() -> None:
    def length_of_agreed(iterations: int) -> float:
        routing = Routing(4, 2, 2, 2, iterations)
        with torch.no_grad():  # all vote alike for output 0; for output 1 the votes cancel
            routing.weight[:, 0] = 2.0 * torch.eye(2)
            routing.weight[:, 1] = torch.eye(2) * torch.tensor([2.0, -2.0, 2.0, -2.0]).view(4, 1, 1)
        lengths: Tensor = routing(torch.ones(1, 1, 4, 2)).norm(dim=2)[0]
        assert lengths[1] < 0.1
        return lengths[0].item()

    assert length_of_agreed(3) > length_of_agreed(1)


def test_capsules_of_zeros_do_not_change_the_routing() -> None:
    routing, capsules = Routing(3, 4, 2, 4), torch.randn(2, 5, 3, 4)
    padded = torch.cat([capsules, torch.zeros(2, 7, 3, 4)], dim=1)
    torch.testing.assert_close(routing(padded), routing(capsules))


def test_the_margin_loss_is_zero_only_beyond_both_margins() -> None:
    lengths = torch.tensor([[0.95, 0.05], [0.5, 0.05], [0.95, 0.5]])
    loss = margin_loss(lengths, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.16, 0.08]))


def test_a_masked_mean_counts_valid_positions_only() -> None:
    values = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert masked_mean(values, torch.tensor([2])).item() == 2.0


@each_system
def test_a_system_is_trained_and_predicts_every_segment_of_every_clip(make: Callable[[], System]) -> None:
    spectra = make_spectra(4, takes=2)
    options = Options(
        algorithm="erm",
        epochs=1,
        draw=SamplingConfig(window=80, batch_size=16),
        augmentation=Augmentation().scaled(0.0),
    )
    normalisation, device = fit_normalisation(spectra), torch.device("cpu")
    net = make()
    before = [value.detach().clone() for value in net.parameters()]
    list(Training(net, spectra, normalisation, options, device).epoch())
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    logits = predict(net.eval(), spectra, normalisation, 80, device)
    assert [item.shape[1] for item in logits] == [len(EMOTIONS)] * len(spectra)
    assert all(len(item) >= 1 for item in logits)
