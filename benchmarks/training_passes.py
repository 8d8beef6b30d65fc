"""Cost of an MMTL step in two passes per speaker, and in the five of the released research code.

    python benchmarks/training_passes.py [--dtype float32|bfloat16|both] [--rounds 3]

Both compute equations 4 to 7 of Cai et al. 2020 on the same network and the same batch, alternately in one
process; the difference of their gradients is printed too. The five passes through the meta learner, each
forward and backward: three for the losses of valence, arousal and dominance at theta, one at theta' for phi,
one at (theta', phi'). The two: the mean of the three losses at theta, the query at theta'. `bfloat16` is
autocast with channels_last, as `mmtl train` runs; `both` prints both types, which separates their effects. On
a CPU the time is CPU time, of one thread by default, so that other processes affect it little.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from train.mmtl import (
    MetaRates,
    Samples,
    Weights,
    emotion_loss,
    inner_step,
    outer_gradient,
    weighted_cross_entropy,
)
from train.model import Architecture, EmotionNet

TASKS = 3
FRAMES = 297
DTYPES = ("float32", "bfloat16")

Step = Callable[[EmotionNet, Sequence[Samples], MetaRates], None]


def main() -> None:
    """Measure and print."""
    options = arguments()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    kind = "CPU time" if device.type == "cpu" else "elapsed time"
    print(f"{name}, torch {torch.__version__}, threads {options.threads}, {kind}")
    print(f"speakers {options.speakers}, each of {options.samples} segments of {FRAMES} frames; medians")
    medians = {}
    for dtype in DTYPES if options.dtype == "both" else (options.dtype,):
        five, two, difference = compare(options, dtype, device)
        medians[dtype] = five, two
        print(
            f"{dtype:9} five passes {five:8.1f} ms/speaker   two passes {two:8.1f} ms/speaker   "
            f"ratio {five / two:.2f}   gradients differ by {difference:.1e} of the largest"
        )
    if len(medians) == len(DTYPES):
        print(
            f"five passes in float32 / two in bfloat16: {medians['float32'][0] / medians['bfloat16'][1]:.2f}"
        )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", choices=(*DTYPES, "both"), default="both")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions after one to warm up")
    parser.add_argument("--speakers", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8, help="segments of each speaker")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def compare(options: argparse.Namespace, dtype: str, device: torch.device) -> tuple[float, float, float]:
    """Return the median ms per speaker of each procedure, and the difference of their gradients."""
    torch.manual_seed(0)
    # Dropout would make the gradients differ although both procedures are correct.
    net = EmotionNet(replace(Architecture(), dropout=0.0)).to(device).train()
    if dtype == "bfloat16":
        net = net.to(memory_format=torch.channels_last)
    speakers = [made_speaker(options.samples, device) for _ in range(options.speakers)]
    spent: dict[Step, list[float]] = {five_passes: [], two_passes: []}
    found: dict[Step, Tensor] = {}
    for _ in range(options.rounds + 1):
        for step, times in spent.items():
            times.append(timed(step, net, speakers, dtype))
            found[step] = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    five, two = (1000.0 * float(np.median(times[1:])) / options.speakers for times in spent.values())
    gradients = list(found.values())
    difference = (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()
    return five, two, float(difference)


def timed(step: Step, net: EmotionNet, speakers: Sequence[Samples], dtype: str) -> float:
    """Return the duration of one outer gradient in seconds."""
    device = speakers[0].frames.device
    autocast = (
        torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
    )
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronise(device)
    began = clock()
    with autocast:
        step(net, speakers, MetaRates())
    synchronise(device)
    return clock() - began


def two_passes(net: EmotionNet, speakers: Sequence[Samples], rates: MetaRates) -> None:
    """Add the gradient of equations 6 and 7 to `.grad` by the project's own step."""
    outer_gradient(net.meta, net.transfer, speakers, rates)


def five_passes(net: EmotionNet, speakers: Sequence[Samples], rates: MetaRates) -> None:
    """Add the same gradient to `.grad` by the procedure of the released code."""
    net.zero_grad(set_to_none=True)
    for samples in speakers:
        theta: Weights = dict(net.meta.named_parameters())
        phi: Weights = dict(net.transfer.named_parameters())
        auxiliary = [auxiliary_gradient(net, theta, samples, task, rates) for task in range(TASKS)]  # 1, 2, 3
        mean = {name: torch.stack([part[name] for part in auxiliary]).mean(dim=0) for name in theta}
        theta_i = inner_step(theta, mean, rates.inner_lr)
        # 4: through the whole network, as `loss.backward()` does, although only phi changes
        _, of_phi = query_gradient(net, theta_i, phi, samples, rates)
        phi_i = inner_step(phi, of_phi, rates.transfer_lr)
        of_theta, of_phi = query_gradient(net, theta_i, phi_i, samples, rates)  # 5
        for name, parameter in net.meta.named_parameters():
            parameter.grad = of_theta[name] + (0.0 if parameter.grad is None else parameter.grad)
        for name, parameter in net.transfer.named_parameters():
            parameter.grad = of_phi[name] + (0.0 if parameter.grad is None else parameter.grad)


def auxiliary_gradient(
    net: EmotionNet, theta: Weights, samples: Samples, task: int, rates: MetaRates
) -> Weights:
    """Compute grad L_S,j at theta for one auxiliary task: one forward and one backward pass."""
    logits = functional_call(net.meta, theta, (samples.frames, samples.lengths))
    loss = weighted_cross_entropy(logits, samples.ratings[task], samples.rating_weights[task], rates.loss)
    return dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))


def query_gradient(
    net: EmotionNet, theta: Weights, phi: Weights, samples: Samples, rates: MetaRates
) -> tuple[Weights, Weights]:
    """Compute grad L_Q at (theta, phi): one forward and one backward pass."""
    query_auxiliary_logits = functional_call(net.meta, theta, (samples.frames, samples.lengths))
    loss = emotion_loss(functional_call(net.transfer, phi, (query_auxiliary_logits,)), samples, rates.loss)
    gradients = torch.autograd.grad(loss, [*theta.values(), *phi.values()])
    of_theta = dict(zip(theta, gradients, strict=False))
    return of_theta, dict(zip(phi, gradients[len(theta) :], strict=True))


def made_speaker(samples: int, device: torch.device) -> Samples:
    """Draw random segments of full length and labels for one speaker."""
    return Samples(
        frames=torch.randn(samples, FRAMES, 200, device=device),
        lengths=torch.full((samples,), FRAMES),
        emotion=torch.randint(0, 4, (samples,), device=device),
        ratings=torch.randint(0, 4, (TASKS, samples), device=device),
        emotion_weights=torch.ones(4, device=device),
        rating_weights=torch.ones(TASKS, 4, device=device),
    )


def synchronise(device: torch.device) -> None:
    """Wait until the GPU has finished; return at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
