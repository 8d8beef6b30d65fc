"""Processes that share the speakers of a step: `torchrun --nproc-per-node N -m train ...`.

Every process, of rank 0 to N - 1, draws the same batch, computes the terms of its own speakers in the sums of
equations 6 and 7 (Cai et al. 2020), and takes the same outer step with the sum over all ranks. Rank 0 alone
scores and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def share(self, count: int) -> range:
        """Return which of `count` speakers are this rank's: a stretch of them."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def add_gradients(self, net: nn.Module) -> None:
        """Replace every gradient by its sum over the ranks."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        total = self.added(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(
            gradients, torch.split(total, [item.numel() for item in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def added(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def first_ones(self, value: int) -> int:
        """Return rank 0's value."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], device=self.device)
        distributed.broadcast(shared, src=0)
        return int(shared)

    def chain(self, net: nn.Module, before: Sequence[Tensor]) -> None:
        """Make the running statistics those of one process that passes the speakers of all ranks in order.

        A pass moves a statistic r to (1 - momentum) r + momentum s. After the n passes of a rank it is
        (1 - momentum)^n r + t, with a t that does not depend on r: the ranks' moves are applied in turn.

        Args:
            net: after this rank's passes.
            before: what `running_statistics` returned before them.
        """
        if self.size == 1:
            return
        after = running_statistics(net)
        moved = [torch.empty_like(torch.cat(after)) for _ in range(self.size)]
        distributed.all_gather(moved, torch.cat(after))
        for index, norm in enumerate(_norms(net)):
            size = len(before[index])
            first = sum(len(item) for item in before[:index])
            start, result = before[index], before[index].clone()
            for other in moved:
                end = other[first : first + size]
                kept = (1.0 - float(norm.momentum or 0.0)) ** float(end[-1] - start[-1])
                result[:-1] = kept * result[:-1] + (end[:-1] - kept * start[:-1])
                result[-1] += end[-1] - start[-1]
            mean, var = result[:-1].chunk(2)
            _buffer(norm.running_mean).copy_(mean)
            _buffer(norm.running_var).copy_(var)
            _buffer(norm.num_batches_tracked).fill_(int(result[-1]))


@contextmanager
def torchrun_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started: by gloo on CPUs, by NCCL on GPUs; alone without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), size, str(device))
    finally:
        distributed.destroy_process_group()


def running_statistics(net: nn.Module) -> list[Tensor]:
    """Return a vector for each batch normalisation: running means, variances, number of passes; float64."""
    return [
        torch.cat(
            [
                _buffer(norm.running_mean).double(),
                _buffer(norm.running_var).double(),
                _buffer(norm.num_batches_tracked).double()[None],
            ]
        )
        for norm in _norms(net)
    ]


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def _buffer(buffer: Tensor | None) -> Tensor:
    assert buffer is not None
    return buffer
