"""The whole network tuned to one speaker: the test stage of Cai et al. 2020, section 2.4.

The meta learner is tuned on the speaker's valence, arousal and dominance (equation 4).

Differs: the transfer learner is then tuned on the emotions (equation 5), because a calibration session has
both labels. Takes that are scored are never tuned on.

The experiments behind the defaults are in `docs/speaker_finetune.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from calibrate.fitting.examples import dimension_classes
from calibrate.takes import Take
from edge.arrays import Array
from edge.inference.window_grid import step_in_features, window_ends
from edge.labels import DIMENSION_CLASSES, DIMENSIONS, EMOTIONS, Dimension
from edge.model.manifest import Graphs, Manifest
from edge.recognition.settings import Settings
from train.batches import padded
from train.mmtl import MetaRates, Samples, Weights, class_weights, knowledge_transfer_step, multi_train_step
from train.model import EmotionNet
from train.segments import segment_starts
from train.speaker_head import SpeakerHead

SEGMENTS: Final = 16
"""Largest number in a step of equation 4, as in training; it limits the memory of a long session."""


@dataclass(frozen=True)
class Tuning:
    """Step sizes and counts of the tuning; how they were chosen is in `docs/speaker_finetune.md`."""

    inner_lr: float = 0.001
    """alpha, > 0: the small rate of the paper's test stage."""
    inner_steps: int = 3
    """Number of steps of equation 4."""
    transfer_lr: float = 0.1
    """beta, > 0."""
    transfer_steps: int = 100
    """Number of steps of equation 5."""
    seed: int = 0
    """Seed of the draws of segments, if there are more than `SEGMENTS`."""


def speaker_samples(
    frames: Sequence[Array], takes: Sequence[Take], graphs: Graphs, auxiliary: Sequence[Dimension]
) -> Samples:
    """Cut a speaker's takes into segments, each with the labels of its take.

    Args:
        frames: (T, F) normalised frames of each take.
        takes: their emotions and ratings; missing ratings are derived from the emotion.
        graphs: define the length of a window.
        auxiliary: which dimensions are auxiliary tasks, in order.
    """
    window = graphs.frames_in(graphs.window_features)
    segments, labels = [], []
    for item, take in zip(frames, takes, strict=True):
        of_take = [take.emotion, *_ratings(take, auxiliary)]
        for start in segment_starts(len(item), window):
            segments.append(item[start : start + window])
            labels.append(of_take)
    emotion, *ratings = torch.tensor(labels).unbind(1)  # each (B,)
    stacked, lengths = padded(segments)
    return Samples(
        frames=stacked,
        lengths=lengths,
        emotion=emotion,
        ratings=torch.stack(ratings),
        emotion_weights=class_weights(emotion, len(EMOTIONS)),
        rating_weights=torch.stack([class_weights(classes, DIMENSION_CLASSES) for classes in ratings]),
    )


def tune(net: EmotionNet | SpeakerHead, samples: Samples, tuning: Tuning) -> Iterator[float]:
    """Tune a network in place, yielding the auxiliary loss before each step of equation 4.

    theta' = theta - alpha (1/k) sum_j grad_theta L_j(theta)      Cai et al. 2020, eq. 4
    phi'   = phi - beta grad_phi L(theta', phi)                   eq. 5, theta' fixed

    Deterministic: no dropout, fixed batch normalisation, segments drawn by the seed. The network's
        weights change
    only after the last step of equation 4.

    Args:
        net: the generic network; left in evaluation mode.
        samples: of the speaker.
        tuning: step sizes and counts.
    """
    net.eval()
    rates = MetaRates(tuning.inner_lr, tuning.transfer_lr)
    theta = _without_norms(net.meta)
    for support in _draws(samples, tuning):
        theta, loss = multi_train_step(net.meta, theta, support, rates)
        yield loss
    net.meta.load_state_dict(theta, strict=False)
    if tuning.transfer_steps == 0:
        return
    query_auxiliary_logits = _auxiliary_logits(net.meta, samples)
    phi: Weights = dict(net.transfer.named_parameters())
    for _ in range(tuning.transfer_steps):
        phi, _ = knowledge_transfer_step(net.transfer, phi, query_auxiliary_logits, samples, rates)
    net.transfer.load_state_dict(phi)


def answer(net: EmotionNet, frames: Array, manifest: Manifest, temperature: float) -> Array:
    """Return the (C,) posterior of a take as the recogniser computes it: averaged over windows.

    Args:
        net: in evaluation mode.
        frames: (T, F) normalised frames.
        manifest: of the bundle: length of a window, and the grid of steps.
        temperature: of the bundle.
    """
    graphs = manifest.graphs
    full, step = graphs.window_features, step_in_features(Settings.step_ms, graphs, manifest.front_end)
    with torch.no_grad():
        features = net.meta.features(torch.from_numpy(frames)[None])[0]  # (S, P)
        ends = window_ends(len(features), graphs, step)
        windows = torch.stack([features[max(0, end - full) : end] for end in ends])  # (W, S', P)
        logits = net.transfer(net.meta.classify(net.meta.embedding(windows)))  # (W, C)
        posterior: Array = (logits / temperature).softmax(dim=1).mean(dim=0).numpy()
    return posterior


def _ratings(take: Take, auxiliary: Sequence[Dimension]) -> list[int]:
    classes = dict(zip(DIMENSIONS, dimension_classes(take), strict=True))
    return [classes[name] for name in auxiliary]


def _without_norms(meta: nn.Module) -> Weights:
    """Return the parameters that are tuned: all but those of batch normalisation."""
    norms = [name for name, module in meta.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return {name: value for name, value in meta.named_parameters() if name.rpartition(".")[0] not in norms}


def _draws(samples: Samples, tuning: Tuning) -> Iterator[Samples]:
    """Draw at most `SEGMENTS` segments for each step of equation 4."""
    random = torch.Generator().manual_seed(tuning.seed)
    for _ in range(tuning.inner_steps):
        drawn = torch.randperm(len(samples.frames), generator=random)[:SEGMENTS]
        yield samples.part(drawn.sort().values)


def _auxiliary_logits(meta: nn.Module, samples: Samples) -> Tensor:
    """Compute (B, auxiliary outputs) without a gradient, `SEGMENTS` at a time."""
    parts = zip(*(torch.split(item, SEGMENTS) for item in (samples.frames, samples.lengths)), strict=True)
    with torch.no_grad():
        return torch.cat([meta(frames, lengths) for frames, lengths in parts])
