"""Reptile (Nichol et al. 2018) on the emotions: the algorithm whose first-order step MMTL takes.

    theta_i' = theta after n steps of size alpha on the loss of speaker i
    theta   <- theta - gamma * (1/m) sum_i (theta - theta_i') / alpha

Unlike MMTL (`train.mmtl`) it has one loss, of the emotions: no auxiliary task, no query, and no step of the
transfer learner alone. With n = 1 it would be supervised learning.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.func import functional_call

from train.mmtl import MetaRates, Samples, emotion_loss, gradient_of, inner_step


def reptile_gradient(net: nn.Module, speakers: Sequence[Samples], rates: MetaRates) -> list[float]:
    """Write the mean of (theta - theta_i') / alpha over the speakers to the `.grad` of the parameters.

    n is `rates.inner_steps` + 1, because one step alone is plain supervised learning.

    Args:
        net: (B, T, F) frames and (B,) lengths to (B, C) emotion logits; frozen parameters are left out.
        speakers: segments of each.
        rates: alpha, n and the variant of cross entropy.

    Returns:
        The emotion loss of each speaker at theta.
    """
    net.zero_grad(set_to_none=True)
    theta = {name: value for name, value in net.named_parameters() if value.requires_grad}
    before = []
    for item in speakers:
        theta_i = {name: value.detach().clone().requires_grad_() for name, value in theta.items()}
        for step in range(rates.inner_steps + 1):
            logits = functional_call(net, theta_i, (item.frames, item.lengths))
            loss = emotion_loss(logits, item, rates.loss)
            before += [loss.item()] if step == 0 else []
            theta_i = inner_step(theta_i, gradient_of(loss, theta_i), rates.inner_lr)
        for name, value in theta.items():
            moved = (value.detach() - theta_i[name].detach()) / (rates.inner_lr * len(speakers))
            value.grad = moved if value.grad is None else value.grad + moved
    return before
