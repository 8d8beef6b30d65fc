"""Meta Multi-Task Learning: equations 1 to 7 of Cai et al. 2020.

The shape of one outer step, for the speakers T_i of a batch:

    theta_i' = theta - alpha * (1/k) sum_j grad_theta L_S,j(theta)            (4)
    phi_i'   = phi   - beta  * grad_phi L_Q(theta_i', phi)                    (5)
    theta   <- theta - gamma * sum_i grad L_Q at (theta_i', phi_i')           (6), first order
    phi     <- phi   - gamma * sum_i grad L_Q at (theta_i', phi_i')           (7), first order

Equation 4 is the paper's Multi-train Stage (`multi_train_step`), equation 5 its Knowledge Transfer Stage
(`knowledge_transfer_step`); `speaker_gradient` and `outer_gradient` compute the sums of equations 6 and 7,
and an optimiser takes the step of size gamma.

The auxiliary tasks share one learner, so their mean loss takes one forward and one backward pass. The forward
pass at theta_i' serves (5), (6) and (7), because phi is only the last layer: two passes for each speaker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from edge.labels import DIMENSION_CLASSES

Weights = dict[str, Tensor]

UNKNOWN = -1
"""Label of a segment that was not labelled; it has no loss."""


@dataclass(frozen=True)
class Samples:
    """Segments of one speaker, or of several in ERM and MTL."""

    frames: Tensor
    """(B, T, F) normalised frames, zero past each segment's end."""
    lengths: Tensor
    """(B,) number of valid frames."""
    emotion: Tensor
    """(B,) class, or UNKNOWN."""
    ratings: Tensor
    """(k, B) class of each auxiliary dimension, or UNKNOWN."""
    emotion_weights: Tensor
    """(C,) loss weight of each emotion, for this speaker."""
    rating_weights: Tensor
    """(k, 4) loss weight of each class of each dimension, for this speaker."""

    def part(self, items: slice | Tensor) -> Samples:
        """Return a subset of the segments, by slice or by (n,) indices."""
        return Samples(
            frames=self.frames[items],
            lengths=self.lengths[items],
            emotion=self.emotion[items],
            ratings=self.ratings[:, items],
            emotion_weights=self.emotion_weights,
            rating_weights=self.rating_weights,
        )


@dataclass(frozen=True)
class Loss:
    """Variants of the cross entropy."""

    label_smoothing: float = 0.0
    """Share of each label spread evenly over the classes, in [0, 1)."""
    double_softmax: bool = False
    """Apply softmax before the cross entropy, as the paper's released code does."""


@dataclass(frozen=True)
class MetaRates:
    """Step sizes and variants of the inner loop."""

    inner_lr: float = 0.01
    """alpha, > 0."""
    transfer_lr: float = 0.01
    """beta, > 0."""
    inner_steps: int = 1
    """Number of steps of equation 4."""
    query: Literal["same", "disjoint"] = "same"
    """Whether the emotion loss uses the support's segments, as in the paper, or others."""
    loss: Loss = Loss()


@dataclass(frozen=True)
class SpeakerRecord:
    """Losses of one speaker's pass."""

    auxiliary_loss: float
    """At theta, before equation 4."""
    before: float
    """Emotion loss at (theta', phi)."""
    after: float
    """Emotion loss at (theta', phi')."""


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weigh the classes of one task of one speaker.

    w_c = (N / N_c) / max_c (N / N_c)      Cai et al. 2020, section 3.1.3

    Args:
        labels: (N,) classes; UNKNOWN does not count.
        classes: C.

    Returns:
        (C,) weights in [0, 1]; 0 for a class without labels.
    """
    counts = torch.bincount(labels[labels != UNKNOWN], minlength=classes).float()
    weights = torch.where(counts > 0, 1.0 / counts.clamp(min=1.0), 0.0)
    return weights / weights.max().clamp(min=torch.finfo(torch.float32).tiny)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, loss: Loss) -> Tensor:
    """Average the cross entropy of (B, C) logits over the known labels, each weighted by its class.

    Without a known label the loss is 0 and its gradient too.
    """
    known = labels != UNKNOWN
    if not known.any():
        return logits.sum() * 0.0
    scores = logits[known].to(torch.promote_types(logits.dtype, torch.float32))
    scores = scores.softmax(dim=1) if loss.double_softmax else scores
    return F.cross_entropy(scores, labels[known], weight=weights, label_smoothing=loss.label_smoothing)


def auxiliary_loss(logits: Tensor, samples: Samples, loss: Loss) -> Tensor:
    """Average the k auxiliary losses: (1/k) sum_j L_S,j.

    Args:
        logits: (B, 4), shared by the k dimensions, or (B, >= 4 * k), whose first 4 * k are one each.
        samples: their labels.
        loss: the variant of cross entropy.
    """
    heads = list(torch.split(logits, DIMENSION_CLASSES, dim=1))  # each (B, 4)
    heads = heads * len(samples.ratings) if len(heads) == 1 else heads[: len(samples.ratings)]
    losses = [
        weighted_cross_entropy(head, labels, weights, loss)
        for head, labels, weights in zip(heads, samples.ratings, samples.rating_weights, strict=True)
    ]
    return torch.stack(losses).mean()


def emotion_loss(logits: Tensor, samples: Samples, loss: Loss) -> Tensor:
    """Return L_Q of (B, C) emotion logits."""
    return weighted_cross_entropy(logits, samples.emotion, samples.emotion_weights, loss)


def inner_step(weights: Mapping[str, Tensor], gradient: Mapping[str, Tensor], rate: float) -> Weights:
    """Take one gradient step and detach the result, so that later gradients are first order.

    w' = w - rate * gradient

    The result keeps the memory format of the weights: convolution of channels-last maps depends on it.

    Args:
        weights: by parameter name.
        gradient: same keys and shapes.
        rate: alpha of equation 4 or beta of equation 5.
    """
    return {
        name: value.detach().clone().sub_(rate * gradient[name]).requires_grad_()
        for name, value in weights.items()
    }


def multi_train_step(
    meta: nn.Module, theta: Weights, support: Samples, rates: MetaRates
) -> tuple[Weights, float]:
    """Tune the meta learner on a speaker's auxiliary tasks, equation 4.

    Returns:
        theta' and the auxiliary loss before the first step.
    """
    first = 0.0
    for step in range(rates.inner_steps):
        logits = functional_call(meta, theta, (support.frames, support.lengths))
        loss = auxiliary_loss(logits, support, rates.loss)
        theta = inner_step(theta, gradient_of(loss, theta), rates.inner_lr)
        first = loss.item() if step == 0 else first
    return theta, first


def knowledge_transfer_step(
    transfer: nn.Module, phi: Weights, auxiliary_logits: Tensor, query: Samples, rates: MetaRates
) -> tuple[Weights, float]:
    """Tune the transfer learner on a speaker's emotions by one step, equation 5.

    Args:
        transfer: the transfer learner.
        phi: its weights.
        auxiliary_logits: (B, auxiliary outputs) of the query at theta', detached.
        query: labels of the same segments.
        rates: beta, and the variant of cross entropy.

    Returns:
        phi' and the emotion loss before the step.
    """
    loss = emotion_loss(functional_call(transfer, phi, (auxiliary_logits,)), query, rates.loss)
    return inner_step(phi, gradient_of(loss, phi), rates.transfer_lr), loss.item()


def speaker_gradient(
    meta: nn.Module, transfer: nn.Module, support: Samples, query: Samples, rates: MetaRates
) -> tuple[Weights, Weights, SpeakerRecord]:
    """Compute one speaker's terms of the sums in equations 6 and 7.

    Returns:
        The gradients for theta and for phi, by parameter name, and the losses.
    """
    theta, phi = _parameters(meta), _parameters(transfer)
    theta_i, auxiliary = multi_train_step(meta, theta, support, rates)  # (4)
    query_auxiliary_logits = functional_call(meta, theta_i, (query.frames, query.lengths))

    phi_i, before = knowledge_transfer_step(
        transfer, phi, query_auxiliary_logits.detach(), query, rates
    )  # (5): theta' is fixed

    # (6) and (7), from the same forward pass
    after = emotion_loss(functional_call(transfer, phi_i, (query_auxiliary_logits,)), query, rates.loss)
    gradient = gradient_of(after, {**_prefixed("theta", theta_i), **_prefixed("phi", phi_i)})
    record = SpeakerRecord(auxiliary, before, after.item())
    return _unprefixed("theta", gradient), _unprefixed("phi", gradient), record


def outer_gradient(
    meta: nn.Module, transfer: nn.Module, speakers: Iterable[Samples], rates: MetaRates
) -> list[SpeakerRecord]:
    """Write the sums of equations 6 and 7 to the `.grad` of both learners' parameters.

    Returns:
        The losses of each speaker, in order.
    """
    meta.zero_grad(set_to_none=True)
    transfer.zero_grad(set_to_none=True)
    records = []
    for samples in speakers:
        support, query = support_and_query(samples, rates.query)
        theta, phi, record = speaker_gradient(meta, transfer, support, query, rates)
        _accumulate(meta, theta)
        _accumulate(transfer, phi)
        records.append(record)
    return records


def support_and_query(samples: Samples, query: Literal["same", "disjoint"]) -> tuple[Samples, Samples]:
    """Return the same segments twice (equations 1 and 3), or every second one for each side."""
    if query == "same":
        return samples, samples
    return samples.part(slice(0, None, 2)), samples.part(slice(1, None, 2))


def _parameters(module: nn.Module) -> Weights:
    return dict(module.named_parameters())


def gradient_of(loss: Tensor, weights: Weights) -> Weights:
    """Differentiate a loss; a weight that it does not depend on has a gradient of zero.

    Outside autocast even where the caller computed the loss inside: a backward pass takes the types that
    autocast chose for the forward pass.
    """
    with torch.autocast(loss.device.type, enabled=False):
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }


def _accumulate(module: nn.Module, gradient: Weights) -> None:
    for name, parameter in module.named_parameters():
        parameter.grad = gradient[name] if parameter.grad is None else parameter.grad + gradient[name]


def _prefixed(learner: str, weights: Weights) -> Weights:
    return {f"{learner}/{name}": value for name, value in weights.items()}


def _unprefixed(learner: str, weights: Weights) -> Weights:
    prefix = f"{learner}/"
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
