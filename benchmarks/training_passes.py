"""Cost of an MMTL step in two passes per speaker, and in the five of the released research code.

    python benchmarks/training_passes.py [--dtype float32|bfloat16|both] [--rounds 3]

Both compute equations 4 to 7 of Cai et al. 2020 on the same network and the same batch, alternately in one
process; the difference of their gradients is printed too. The five passes, each forward and backward: three
for the losses of valence, arousal and dominance at theta, one at theta' for phi, one at (theta', phi'). They
are written plainly: a deep copy of the network for each speaker, samples that are made tensors one by one,
contiguous maps, ReLU before the pool, packed sequences. The two, as `mmtl train` runs them: the mean of the
three losses at theta, the query at theta', channels-last maps. `bfloat16` is autocast, for both; `both` adds
the ratio of the released procedure, which is float32, to the two passes in bfloat16 (if the CPU supports it).
On a CPU the time is CPU time, of one thread by default, so that other processes affect it little.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from train.mmtl import (
    MetaRates,
    Samples,
    emotion_loss,
    outer_gradient,
    weighted_cross_entropy,
)
from train.model import POOL, Architecture, ConvBlock, EmotionNet, MetaLearner
from train.precision import PRECISIONS, Precision, autocast, supported_precisions

TASKS = 3
FRAMES = 297

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
    for dtype in reversed(supported_precisions(device)) if options.dtype == "both" else (options.dtype,):
        five, two, difference = compare(options, dtype, device)
        medians[dtype] = five, two
        print(
            f"{dtype:9} five passes {five:8.1f} ms/speaker   two passes {two:8.1f} ms/speaker   "
            f"ratio {five / two:.2f}   gradients differ by {difference:.1e} of the largest"
        )
    if len(medians) == len(PRECISIONS):
        print(
            f"five passes in float32 / two in bfloat16: {medians['float32'][0] / medians['bfloat16'][1]:.2f}"
        )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", choices=(*PRECISIONS, "both"), default="both")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions after one to warm up")
    parser.add_argument("--speakers", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8, help="segments of each speaker")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def compare(
    options: argparse.Namespace, dtype: Precision, device: torch.device
) -> tuple[float, float, float]:
    """Return the median ms per speaker of each procedure, and the difference of their gradients."""
    torch.manual_seed(0)
    # Dropout would make the gradients differ although both procedures are correct.
    net = EmotionNet(replace(Architecture(), dropout=0.0)).to(device).train()
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


def timed(step: Step, net: EmotionNet, speakers: Sequence[Samples], dtype: Precision) -> float:
    """Return the duration of one outer gradient in seconds."""
    device = speakers[0].frames.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronise(device)
    began = clock()
    with autocast(device, dtype):
        step(net, speakers, MetaRates())
    synchronise(device)
    return clock() - began


def two_passes(net: EmotionNet, speakers: Sequence[Samples], rates: MetaRates) -> None:
    """Add the gradient of equations 6 and 7 to `.grad` by the project's own step."""
    outer_gradient(net.meta, net.transfer, speakers, rates)


def five_passes(net: EmotionNet, speakers: Sequence[Samples], rates: MetaRates) -> None:
    """Add the same gradient to `.grad` by the procedure of the released code."""
    net.zero_grad(set_to_none=True)
    for item in speakers:
        samples = from_lists(item)
        tuned = deepcopy(net).to(memory_format=torch.contiguous_format)
        for task in range(TASKS):  # 1, 2, 3: grad L_S,j at theta
            logits = plain_meta(tuned.meta, samples.frames, samples.lengths)
            labels, weights = samples.ratings[task], samples.rating_weights[task]
            backward(weighted_cross_entropy(logits, labels, weights, rates.loss) / TASKS)
        descend(tuned.meta, rates.inner_lr)
        backward(query_loss(tuned, samples, rates))  # 4: through the whole network, although only phi changes
        descend(tuned.transfer, rates.transfer_lr)
        tuned.zero_grad()
        backward(query_loss(tuned, samples, rates))  # 5
        for parameter, own in zip(net.parameters(), tuned.parameters(), strict=True):
            if own.grad is not None:
                parameter.grad = own.grad + (0.0 if parameter.grad is None else parameter.grad)


def from_lists(samples: Samples) -> Samples:
    """Make the tensors of a batch again from a list of its samples."""
    device = samples.frames.device
    every = [frames.numpy() for frames in samples.frames.cpu()]
    return replace(samples, frames=torch.stack([torch.tensor(frames) for frames in every]).to(device))


def plain_meta(meta: MetaLearner, frames: Tensor, lengths: Tensor) -> Tensor:
    """Map (B, T, F) to the auxiliary logits by torch's layers, one after the other."""
    maps = frames.unsqueeze(1)
    for block in meta.blocks:
        assert isinstance(block, ConvBlock)
        maps = block.norm(block.conv(F.pad(maps, block.padding)))
        maps = F.max_pool2d(F.relu(maps), POOL)
    features = meta.projection(maps.permute(0, 2, 1, 3).flatten(2)).float()
    valid = torch.tensor([meta.arch.features_in(length) for length in lengths.tolist()])
    packed = nn.utils.rnn.pack_padded_sequence(features, valid, batch_first=True, enforce_sorted=False)
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(meta.lstm(packed)[0], batch_first=True)
    return meta.classify(unpacked.sum(dim=1) / valid.to(unpacked.device).unsqueeze(1))


def query_loss(net: EmotionNet, samples: Samples, rates: MetaRates) -> Tensor:
    """Return L_Q of a speaker's copy of the network."""
    logits = net.transfer(plain_meta(net.meta, samples.frames, samples.lengths))
    return emotion_loss(logits, samples, rates.loss)


def backward(loss: Tensor) -> None:
    """Add the gradient to `.grad`."""
    torch.autograd.backward(loss)


def descend(module: nn.Module, rate: float) -> None:
    """Take one step along `.grad` and clear it."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(rate * parameter.grad)
    module.zero_grad()


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
