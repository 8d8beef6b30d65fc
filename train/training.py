"""Epochs of ERM, MTL, MMTL or Reptile, scored on validation speakers after each, and resumable.

Each algorithm runs its forward passes in bfloat16 under autocast, or in float32 (`Computing`); losses are
float32, and gradients are taken outside autocast. What MMTL does is in `train.mmtl`; where it differs from
the paper, in `docs/training.md`.

Differs from Cai et al. 2020 in what surrounds equations 4 to 7, unless `OuterStep` and `Options.averaging`
say otherwise:
- AdamW with weight decay takes the outer step, and gamma rises and falls (`scheduled`); the paper uses Adam
  and states one gamma.
- The norm of the outer gradient is clipped at `LARGEST_NORM`.
- The network that is scored and kept is a running average of the weights.
- Batch normalisation, which the paper's network lacks, uses the statistics of the batch in both passes of a
  speaker, at theta and at theta', and both passes update its running statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edge.arrays import Array
from edge.errors import ModelError
from edge.labels import EMOTIONS
from edge.system.files import atomic_write
from train.augment import Augmentation
from train.batches import Batches, SamplingConfig, padded
from train.mmtl import (
    MetaRates,
    Samples,
    auxiliary_loss,
    emotion_loss,
    outer_gradient,
)
from train.model import EmotionNet
from train.precision import Precision, autocast
from train.ranks import Ranks, running_statistics
from train.reptile import reptile_gradient
from train.segments import Normalisation, Spectra, network_input, segment_starts
from train.systems.base import System

Algorithm = Literal["erm", "mtl", "mmtl", "reptile"]

BY_SPEAKER: Final[tuple[Algorithm, ...]] = ("mmtl", "reptile")
"""Algorithms whose batches are several speakers, each with segments of their own."""

LARGEST_NORM: Final = 5.0
"""Of the gradient of all parameters together; a larger gradient is scaled down to it."""


@dataclass(frozen=True)
class Options:
    """Options of a run. Choices between them are made on validation speakers."""

    algorithm: Algorithm = "mmtl"
    epochs: int = 30
    learning_rate: float = 0.001
    """gamma at the peak of its schedule, > 0."""
    weight_decay: float = 0.01
    warm_up: float = 0.1
    """Share of the steps in which gamma rises."""
    averaging: float = 0.99
    """Decay per step of the running average of the weights, which is scored and kept; 0: no average."""
    freeze_norm: bool = False
    """Keep the batch normalisation's running statistics of the checkpoint that the run starts from."""
    seed: int = 0
    rates: MetaRates = field(default_factory=MetaRates)
    draw: SamplingConfig = field(default_factory=lambda: SamplingConfig(window=297))
    """Named as in the configuration that run folders and bundles keep."""
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class OuterStep:
    """How the step of size gamma is taken; `PAPER_STEP` is the paper's."""

    optimiser: Literal["adamw", "adam"] = "adamw"
    """`adam` has no weight decay."""
    clipping: bool = True
    """Whether the gradient's norm is limited to `LARGEST_NORM`."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of gamma: `scheduled`, or the same in all steps."""


@dataclass(frozen=True)
class Computing:
    """How the steps are computed; what they compute is the same but for rounding."""

    precision: Precision = "float32"
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the speakers of a step (mmtl)."""


PAPER_STEP: Final = OuterStep("adam", clipping=False, schedule="constant")


@dataclass(frozen=True)
class EpochRecord:
    """Losses and scores of one epoch."""

    epoch: int
    loss: float
    """Mean training loss of the emotions."""
    auxiliary_loss: float | None
    """Mean training loss of the auxiliary tasks; None without any."""
    validation_uar: float
    """Percent, averaged over corpora."""
    by_corpus: dict[str, float]


StepLosses = tuple[float, float | None]
"""Emotion and auxiliary loss of one step."""


class Training:
    """A network in training.

    Keeps the network, its running average, the optimiser and the number of epochs done. `save` and `resume`
    restore all of it exactly, because every epoch has its own seed.
    """

    def __init__(
        self,
        net: EmotionNet | System,
        training: Sequence[Spectra],
        normalisation: Normalisation,
        options: Options,
        device: torch.device,
        outer: OuterStep = OuterStep(),
        computing: Computing = Computing(),
    ) -> None:
        self.options = options
        self.computing = computing
        self._outer = outer
        self.device = device
        on_device = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = cast(EmotionNet, on_device)  # a `System` has no learners; it is trained by erm alone
        self.batches = Batches(training, normalisation, options.augmentation, options.draw, options.seed)
        self.average = AveragedModel(
            self.net,
            multi_avg_fn=get_ema_multi_avg_fn(options.averaging),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        decay = options.weight_decay if outer.optimiser == "adamw" else 0.0
        self.optimiser = torch.optim.AdamW(  # without decay it is Adam
            self.net.parameters(), lr=options.learning_rate, weight_decay=decay
        )
        self.epochs_done = 0
        self._index = 0
        steps: dict[Algorithm, Callable[..., StepLosses]] = {
            "erm": self._erm_step,
            "mtl": self._mtl_step,
            "mmtl": self._mmtl_step,
            "reptile": self._reptile_step,
        }
        self._step = steps[options.algorithm]

    @property
    def steps(self) -> int:
        """Optimiser steps in an epoch."""
        meta = self.options.algorithm in BY_SPEAKER
        return self.batches.meta_steps if meta else self.batches.mixed_steps

    def evaluated_net(self) -> EmotionNet:
        """Return the network that is scored and kept: the running average, unless `averaging` is 0."""
        module = cast(EmotionNet, self.average.module) if self.options.averaging > 0 else self.net
        return module.eval()

    def epoch(self) -> Iterator[StepLosses]:
        """Run one epoch, yielding the losses of each step."""
        self.net.train()
        if self.options.freeze_norm:
            _freeze_norms(self.net)
        torch.manual_seed(self.options.seed * 100_003 + self.epochs_done)
        draw = self.batches.by_speaker if self.options.algorithm in BY_SPEAKER else self.batches.mixed
        for index, batch in enumerate(draw(self.epochs_done)):
            self._set_rate(self.epochs_done * self.steps + index)
            self._index = index
            losses = self._step(batch)
            if self._outer.clipping:
                nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_NORM)
            self.optimiser.step()
            self.average.update_parameters(self.net)
            yield losses
        self.epochs_done += 1

    def save(self, path: Path) -> None:
        """Write the state for `resume`."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        with atomic_write(path) as partial:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                partial,
                {"epochs_done": str(self.epochs_done)},
            )

    def resume(self, path: Path) -> None:
        """Restore the state that `save` wrote.

        Raises:
            ModelError: the file is damaged.
        """
        tensors, epochs_done = _read_state(path, self.device)
        self.net.load_state_dict(_below("net.", tensors))
        self.average.load_state_dict(_below("average.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below("optimiser.", tensors).items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        self.epochs_done = epochs_done

    def _set_rate(self, step: int) -> None:
        share = 1.0
        if self._outer.schedule == "cosine":
            share = scheduled(step / max(1, self.options.epochs * self.steps), self.options.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = share * self.options.learning_rate

    def _erm_step(self, batch: Samples) -> StepLosses:
        samples = _on(batch, self.device)
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(self.device, self.computing.precision):
            loss = self._supervised_loss(samples)
        torch.autograd.backward(loss)
        return loss.item(), None

    def _supervised_loss(self, samples: Samples) -> Tensor:
        net: nn.Module = self.net
        if isinstance(net, System):
            return net.loss(samples, self.options.rates.loss)
        return emotion_loss(net(samples.frames, samples.lengths), samples, self.options.rates.loss)

    def _mtl_step(self, batch: Samples) -> StepLosses:
        samples = _on(batch, self.device)
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(self.device, self.computing.precision):
            outputs = self.net.meta(samples.frames, samples.lengths)
            logits = self.net.transfer(outputs)
        loss = emotion_loss(logits, samples, self.options.rates.loss)
        auxiliary = auxiliary_loss(outputs, samples, self.options.rates.loss)
        torch.autograd.backward(loss + auxiliary)
        return loss.item(), auxiliary.item()

    def _mmtl_step(self, batch: list[Samples]) -> StepLosses:
        ranks, learners = self.computing.ranks, (self.net.meta, self.net.transfer)
        before = running_statistics(self.net)
        with autocast(self.device, self.computing.precision):
            records = outer_gradient(*learners, self._own_speakers(batch), self.options.rates)
        ranks.add_gradients(self.net)
        ranks.chain(self.net, before)
        losses = torch.tensor([[item.after, item.auxiliary_loss] for item in records], dtype=torch.float64)
        after, auxiliary = (ranks.added(losses.sum(dim=0).to(self.device)) / len(batch)).tolist()
        return after, auxiliary

    def _own_speakers(self, batch: list[Samples]) -> Iterator[Samples]:
        """Yield this rank's speakers; each has random numbers of its own, whichever rank it is on."""
        for index in self.computing.ranks.share(len(batch)):
            state = np.random.SeedSequence((self.options.seed, self.epochs_done, self._index, index))
            torch.manual_seed(int(state.generate_state(1)[0]))
            yield _on(batch[index], self.device)

    def _reptile_step(self, batch: list[Samples]) -> StepLosses:
        speakers = [_on(samples, self.device) for samples in batch]
        with autocast(self.device, self.computing.precision):
            before = reptile_gradient(self.net, speakers, self.options.rates)
        return float(np.mean(before)), None


def scheduled(done: float, warm_up: float) -> float:
    """Return the learning rate relative to its peak: a linear rise, then half a cosine down to 1 %.

    Args:
        done: share of the run that is done, in [0, 1).
        warm_up: share of the run in which the rate rises.
    """
    if done < warm_up:
        return (done / warm_up) * 0.96 + 0.04
    falling = (done - warm_up) / (1.0 - warm_up)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * falling))


def predict(
    net: EmotionNet | System,
    spectra: Sequence[Spectra],
    normalisation: Normalisation,
    window: int,
    device: torch.device,
    precision: Precision = "float32",
) -> list[Array]:
    """Compute the emotion logits of each clip's segments, without adaptation. Each clip starts a new stream.

    Returns:
        For each clip (S, C) logits of its S segments; `temperature.averaged` averages their posteriors, as in
        Cai et al. 2020, section 3.1.1.
    """
    cuts = [segment_starts(item.frames, window) for item in spectra]
    logits = [np.zeros((len(starts), len(EMOTIONS)), np.float32) for starts in cuts]
    places = [(clip, segment) for clip, starts in enumerate(cuts) for segment in range(len(starts))]
    places.sort(key=lambda place: min(spectra[place[0]].frames, window))
    for first in range(0, len(places), 64):
        batch = places[first : first + 64]
        segments = [
            network_input(spectra[clip], normalisation, cuts[clip][segment], window)
            for clip, segment in batch
        ]
        frames, lengths = padded(segments)
        with torch.no_grad(), autocast(device, precision):
            outputs = net(frames.to(device), lengths).float().cpu().numpy()
        for (clip, segment), output in zip(batch, outputs, strict=True):
            logits[clip][segment] = output
    return logits


def _read_state(path: Path, device: torch.device) -> tuple[dict[str, Tensor], int]:
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, int(file.metadata()["epochs_done"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} is damaged, so the run cannot be resumed", remedy="train again in another folder"
        ) from error


def _freeze_norms(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _on(samples: Samples, device: torch.device) -> Samples:
    return Samples(
        frames=samples.frames.to(device),
        lengths=samples.lengths,
        emotion=samples.emotion.to(device),
        ratings=samples.ratings.to(device),
        emotion_weights=samples.emotion_weights.to(device),
        rating_weights=samples.rating_weights.to(device),
    )


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
