from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.tolerances import float32_tolerance
from train.mmtl import (
    UNKNOWN,
    Loss,
    MetaRates,
    Samples,
    auxiliary_loss,
    class_weights,
    emotion_loss,
    outer_gradient,
    speaker_gradient,
    support_and_query,
    weighted_cross_entropy,
)

BINS, HIDDEN, FRAMES = 5, 7, 6


class ToyMeta(nn.Module):
    """Tanh layer, mean over the frames that count, linear layer. Counts its passes."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(BINS, HIDDEN)
        self.outer = nn.Linear(HIDDEN, outputs)
        self.forwards = 0
        self.backwards = 0
        self.seen: list[Tensor] = []

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        self.forwards += 1
        self.seen.append(self.inner.weight.detach().clone())
        hidden = torch.tanh(self.inner(frames))
        hidden.register_hook(self._count)  # type: ignore[no-untyped-call]
        counts = (torch.arange(frames.shape[1])[None, :] < lengths[:, None]).to(frames.dtype)
        logits: Tensor = self.outer((hidden * counts[:, :, None]).sum(1) / lengths[:, None])
        return logits

    def _count(self, _: Tensor) -> None:
        self.backwards += 1


same = partial(pytest.approx, rel=float32_tolerance(5 * 4, 1.0))
"""A float32 loss of five rows of four logits, each computed in its own order."""


def learners(outputs: int) -> tuple[ToyMeta, nn.Linear]:
    torch.manual_seed(3)
    return ToyMeta(outputs).double(), nn.Linear(outputs, 4).double()


def speaker(seed: int, tasks: int = 3, size: int = 8) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    emotion = torch.randint(0, 4, (size,), generator=generator)
    ratings = torch.randint(0, 4, (tasks, size), generator=generator)
    emotion[1], ratings[0, 2], ratings[-1, 3] = UNKNOWN, UNKNOWN, UNKNOWN
    return Samples(
        frames=torch.randn(size, FRAMES, BINS, generator=generator, dtype=torch.float64),
        lengths=torch.randint(2, FRAMES + 1, (size,), generator=generator),
        emotion=emotion,
        ratings=ratings,
        emotion_weights=class_weights(emotion, 4).double(),
        rating_weights=torch.stack([class_weights(labels, 4).double() for labels in ratings]),
    )


# What follows is written out by hand, with nothing of train.mmtl in it but the container of samples.


def by_hand_meta(theta: Sequence[Tensor], samples: Samples) -> Tensor:
    inner_weight, inner_bias, outer_weight, outer_bias = theta
    rows = []
    for frames, length in zip(samples.frames, samples.lengths.tolist(), strict=True):
        hidden = torch.tanh(frames[:length] @ inner_weight.T + inner_bias)
        rows.append(hidden.mean(0) @ outer_weight.T + outer_bias)
    return torch.stack(rows)


def by_hand_transfer(phi: Sequence[Tensor], query_auxiliary_logits: Tensor) -> Tensor:
    weight, bias = phi
    return query_auxiliary_logits @ weight.T + bias


def by_hand_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    losses, total = [], 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label != UNKNOWN:
            losses.append(-weights[label] * (row[label] - torch.logsumexp(row, 0)))
            total += float(weights[label])
    return torch.stack(losses).sum() / total


def leaves(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().clone().requires_grad_() for weight in weights]


def by_hand_gradients(
    theta: Sequence[Tensor],
    phi: Sequence[Tensor],
    support: Samples,
    query: Samples,
    rates: MetaRates,
    separate: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return one speaker's gradients of equations 6 and 7, first order."""
    tasks = len(support.ratings)
    theta_i = leaves(theta)
    for _ in range(rates.inner_steps):  # (4): the k gradients one by one
        summed = [torch.zeros_like(weight) for weight in theta_i]
        for j in range(tasks):
            outputs = by_hand_meta(theta_i, support)
            logits = outputs[:, 4 * j : 4 * j + 4] if separate else outputs
            loss = by_hand_cross_entropy(logits, support.ratings[j], support.rating_weights[j])
            gradient = torch.autograd.grad(loss, theta_i, allow_unused=True)
            summed = [a + (0 if b is None else b) for a, b in zip(summed, gradient, strict=True)]
        theta_i = leaves([w - rates.inner_lr / tasks * g for w, g in zip(theta_i, summed, strict=True)])
    phi_0 = leaves(phi)  # (5): theta' is no variable here
    fixed = [weight.detach() for weight in theta_i]
    loss = by_hand_cross_entropy(
        by_hand_transfer(phi_0, by_hand_meta(fixed, query)), query.emotion, query.emotion_weights
    )
    gradient = torch.autograd.grad(loss, phi_0)
    phi_i = leaves([w - rates.transfer_lr * g for w, g in zip(phi_0, gradient, strict=True)])
    # (6), (7): theta' and phi' are the variables
    logits = by_hand_transfer(phi_i, by_hand_meta(theta_i, query))
    loss = by_hand_cross_entropy(logits, query.emotion, query.emotion_weights)
    gradients = torch.autograd.grad(loss, [*theta_i, *phi_i])
    return list(gradients[: len(theta_i)]), list(gradients[len(theta_i) :])


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("heads", ["shared", "separate"])
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("query", ["same", "disjoint"])
def test_the_step_is_equations_4_to_7_for_every_parameter(
    tasks: int, heads: str, inner_steps: int, query: Literal["same", "disjoint"]
) -> None:
    separate = heads == "separate"
    meta, transfer = learners(4 * tasks if separate else 4)
    rates = MetaRates(inner_lr=0.3, transfer_lr=0.5, inner_steps=inner_steps, query=query)
    speakers = [speaker(seed, tasks) for seed in (10, 11, 12)]
    theta, phi = leaves(list(meta.parameters())), leaves(list(transfer.parameters()))

    outer_gradient(meta, transfer, speakers, rates)

    expected = [torch.zeros_like(weight) for weight in [*theta, *phi]]
    for samples in speakers:
        support = samples.part(slice(0, None, 2)) if query == "disjoint" else samples
        other = samples.part(slice(1, None, 2)) if query == "disjoint" else samples
        of_theta, of_phi = by_hand_gradients(theta, phi, support, other, rates, separate)
        expected = [a + b for a, b in zip(expected, [*of_theta, *of_phi], strict=True)]
    found = [parameter.grad for parameter in [*meta.parameters(), *transfer.parameters()]]
    for gradient, wanted in zip(found, expected, strict=True):
        assert gradient is not None
        assert wanted.abs().max() > 0
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-14)


def test_the_step_differs_from_plain_gradients_at_theta_and_phi() -> None:
    """The twin of the test above: without the inner steps its comparison would fail."""
    meta, transfer = learners(4)
    samples = speaker(10)
    theta, phi, _ = speaker_gradient(meta, transfer, samples, samples, MetaRates(0.3, 0.5))
    loss = emotion_loss(transfer(meta(samples.frames, samples.lengths)), samples, Loss())
    plain = torch.autograd.grad(loss, [*meta.parameters(), *transfer.parameters()])
    for gradient, other in zip([*theta.values(), *phi.values()], plain, strict=True):
        assert (gradient - other).abs().max() > 1e-3 * other.abs().max()


def by_hand_adapted(theta: Sequence[Tensor], support: Samples, rate: float) -> list[Tensor]:
    """Take equation 4 as a function of theta, with a graph, so that it can be differentiated again."""
    outputs = by_hand_meta(theta, support)
    losses = [
        by_hand_cross_entropy(outputs, labels, weights)
        for labels, weights in zip(support.ratings, support.rating_weights, strict=True)
    ]
    gradient = torch.autograd.grad(torch.stack(losses).mean(), theta, create_graph=True)
    return [w - rate * g for w, g in zip(theta, gradient, strict=True)]


def by_hand_second_order(
    theta: Sequence[Tensor], phi_i: Sequence[Tensor], samples: Samples, rate: float
) -> list[Tensor]:
    """Return grad_theta L_Q(theta - alpha/k sum_j grad L_S,j(theta), phi'), equation 6 as it is written."""
    theta = leaves(theta)
    logits = by_hand_transfer(phi_i, by_hand_meta(by_hand_adapted(theta, samples, rate), samples))
    loss = by_hand_cross_entropy(logits, samples.emotion, samples.emotion_weights)
    return list(torch.autograd.grad(loss, theta))


def test_the_second_order_gradient_is_the_slope_of_the_loss_after_adaptation() -> None:
    meta, transfer = learners(4)
    theta, phi, samples = leaves(list(meta.parameters())), list(transfer.parameters()), speaker(10)

    def loss_at(moved: Sequence[Tensor]) -> float:
        logits = by_hand_transfer(phi, by_hand_meta(by_hand_adapted(leaves(moved), samples, 0.3), samples))
        return by_hand_cross_entropy(logits, samples.emotion, samples.emotion_weights).item()

    direction = [torch.randn_like(weight) for weight in theta]
    ahead = loss_at([w + 1e-5 * d for w, d in zip(theta, direction, strict=True)])
    behind = loss_at([w - 1e-5 * d for w, d in zip(theta, direction, strict=True)])
    gradient = by_hand_second_order(theta, phi, samples, 0.3)
    slope = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True))
    assert (ahead - behind) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_the_step_is_first_order_and_the_second_order_term_is_seen() -> None:
    """The paper's Reptile-style approximation leaves out the Hessian; this comparison can tell."""
    meta, transfer = learners(4)
    samples, rates = speaker(10), MetaRates(inner_lr=0.3, transfer_lr=0.0)  # phi' = phi
    found, _, _ = speaker_gradient(meta, transfer, samples, samples, rates)
    theta, phi = leaves(list(meta.parameters())), leaves(list(transfer.parameters()))
    first, _ = by_hand_gradients(theta, phi, samples, samples, rates, separate=False)
    second = by_hand_second_order(theta, phi, samples, rates.inner_lr)
    for gradient, one, two in zip(found.values(), first, second, strict=True):
        torch.testing.assert_close(gradient, one, rtol=1e-10, atol=1e-14)
        assert (gradient - two).abs().max() > 1e-3 * two.abs().max()


def test_the_learners_themselves_are_left_to_the_optimiser() -> None:
    meta, transfer = learners(4)
    before = [weight.detach().clone() for weight in [*meta.parameters(), *transfer.parameters()]]
    outer_gradient(meta, transfer, [speaker(10), speaker(11)], MetaRates(0.3, 0.5))
    after = [*meta.parameters(), *transfer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_gradients_of_an_earlier_step_do_not_add_up() -> None:
    meta, transfer = learners(4)
    outer_gradient(meta, transfer, [speaker(10)], MetaRates())
    once = [p.grad.clone() for p in meta.parameters() if p.grad is not None]
    outer_gradient(meta, transfer, [speaker(10)], MetaRates())
    twice = [p.grad for p in meta.parameters() if p.grad is not None]
    assert once
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_theta_of_a_speaker_stays_fixed_in_equation_5() -> None:
    seen = []
    for transfer_lr in (0.0, 10.0):
        meta, transfer = learners(4)
        outer_gradient(meta, transfer, [speaker(10)], MetaRates(0.3, transfer_lr))
        seen.append(meta.seen)
    (before, first), (_, second) = seen
    assert torch.equal(first, second)
    assert not torch.equal(before, first)


@pytest.mark.parametrize(("inner_steps", "passes"), [(1, 2), (2, 3)])
def test_a_speaker_costs_two_passes_over_the_meta_learner(inner_steps: int, passes: int) -> None:
    meta, transfer = learners(12)
    speakers = [speaker(seed) for seed in (10, 11, 12)]
    outer_gradient(meta, transfer, speakers, MetaRates(inner_steps=inner_steps))
    assert meta.forwards == passes * len(speakers)
    assert meta.backwards == passes * len(speakers)


def test_the_record_tells_the_losses_before_and_after() -> None:
    meta, transfer = learners(4)
    samples = speaker(10)
    (record,) = outer_gradient(meta, transfer, [samples], MetaRates(0.3, 0.5))
    auxiliary = auxiliary_loss(meta(samples.frames, samples.lengths), samples, Loss())
    assert record.auxiliary_loss == pytest.approx(auxiliary.item())
    assert record.after < record.before


def test_class_weights_are_the_papers() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3] * 1 + [UNKNOWN] * 5)
    # w = 10/6, 10/3, 10/1; the largest is 10
    assert class_weights(labels, 4).tolist() == pytest.approx([1 / 6, 1 / 3, 0.0, 1.0])


def test_a_speaker_without_labels_has_no_weights_and_no_loss() -> None:
    labels = torch.full((3,), UNKNOWN)
    assert class_weights(labels, 4).tolist() == [0.0] * 4
    logits = torch.randn(3, 4, requires_grad=True)
    loss = weighted_cross_entropy(logits, labels, class_weights(labels, 4), Loss())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0.0
    assert not gradient.any()


def test_unknown_labels_have_no_loss() -> None:
    logits, weights = torch.randn(5, 4), torch.tensor([1.0, 0.5, 0.2, 1.0])
    labels = torch.tensor([0, UNKNOWN, 3, UNKNOWN, 2])
    known = labels != UNKNOWN
    expected = F.cross_entropy(logits[known], labels[known], weight=weights)
    assert weighted_cross_entropy(logits, labels, weights, Loss()).item() == same(expected.item())


def test_double_softmax_is_another_loss() -> None:
    logits, labels, weights = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.ones(4)
    once = weighted_cross_entropy(logits, labels, weights, Loss())
    twice = weighted_cross_entropy(logits, labels, weights, Loss(double_softmax=True))
    assert twice.item() == same(F.cross_entropy(logits.softmax(1), labels).item())
    assert abs(twice.item() - once.item()) > 0.01


def test_label_smoothing_is_passed_on() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    found = weighted_cross_entropy(logits, labels, torch.ones(4), Loss(label_smoothing=0.2))
    assert found.item() == same(F.cross_entropy(logits, labels, label_smoothing=0.2).item())


def test_half_precision_logits_are_scored_in_full_precision() -> None:
    logits = torch.randn(5, 4).bfloat16()
    loss = weighted_cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0]), torch.ones(4), Loss())
    assert loss.dtype == torch.float32


def test_outputs_behind_the_auxiliary_ones_have_no_auxiliary_loss() -> None:
    samples = replace(speaker(10), rating_weights=torch.ones(3, 4))
    logits = torch.randn(8, 16)
    changed = torch.cat([logits[:, :12], torch.randn(8, 4)], dim=1)
    assert auxiliary_loss(logits, samples, Loss()) == auxiliary_loss(changed, samples, Loss())


def test_support_and_query_are_the_same_as_in_the_paper() -> None:
    samples = speaker(10)
    assert support_and_query(samples, "same") == (samples, samples)


@pytest.mark.parametrize("size", [2, 7, 8])
def test_support_and_query_are_disjoint_when_asked_and_nothing_is_lost(size: int) -> None:
    samples = replace(speaker(10, size=8), lengths=torch.arange(8)).part(slice(0, size))
    support, query = support_and_query(samples, "disjoint")
    assert not set(support.lengths.tolist()) & set(query.lengths.tolist())
    assert sorted(support.lengths.tolist() + query.lengths.tolist()) == list(range(size))
    for side in (support, query):
        assert torch.equal(side.frames, samples.frames[side.lengths])
        assert torch.equal(side.emotion, samples.emotion[side.lengths])
        assert torch.equal(side.ratings, samples.ratings[:, side.lengths])
