"""Is what was exported what was trained? Measured on every export, refused above the tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from edge.audio import read_clip
from edge.bundle import Bundle
from edge.engine import Engine, WindowEngine
from edge.errors import VerificationError
from edge.features import FeatureStream
from edge.frontend import Array, power_spectrogram
from edge.head import softmax
from edge.normaliser import Normaliser
from edge.sources import demo_clip
from train.model import EmotionNet

TOLERANCE = 1e-4
"""Largest difference in probability, and in logits."""


@dataclass(frozen=True)
class Parity:
    """Largest differences over the windows of the demo clip and of noise."""

    torch_to_onnx: float
    """Logits: the trained network against the window graph."""
    window_to_stream: float
    """Probabilities: the window graph against encoder, classifier and NumPy head."""
    same_labels: float
    """Share of windows where all three agree."""
    windows: int


def measure(net: EmotionNet, bundle: Bundle) -> Parity:
    """Compare the network, the window graph and the streaming graphs on the same sound."""
    samples = _sound()
    trained, whole = _whole_windows(net, bundle, samples)
    streamed = _streamed(bundle, samples)
    labels = np.stack([trained.argmax(1), whole.argmax(1), streamed.argmax(1)])
    return Parity(
        torch_to_onnx=float(np.abs(trained - whole).max()),
        window_to_stream=float(np.abs(softmax(whole) - streamed).max()),
        same_labels=float((labels == labels[0]).all(axis=0).mean()),
        windows=len(whole),
    )


def require(parity: Parity) -> None:
    """Refuse an export that differs.

    Raises:
        VerificationError: a difference is above the tolerance.
    """
    worst = float(np.max([parity.torch_to_onnx, parity.window_to_stream]))  # NaN stays NaN
    if not worst <= TOLERANCE:
        raise VerificationError(
            f"the exported graphs differ from the trained network by {worst:.2g}, more than {TOLERANCE:g}: "
            "nothing was written; report this with the checkpoint's configuration"
        )


def _sound() -> Array:
    """The demo clip, then a second of noise as loud as speech."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    return np.concatenate([read_clip(demo_clip()), noise])


def _whole_windows(net: EmotionNet, bundle: Bundle, samples: Array) -> tuple[Array, Array]:
    manifest = bundle.manifest
    normaliser = Normaliser(manifest.levels, bundle.statistics)
    frames = normaliser(power_spectrogram(samples, manifest.front_end))
    window, hop = manifest.front_end.window_frames, manifest.graphs.frames_per_feature
    starts = range(0, len(frames) - window + 1, hop)
    batch = np.stack([frames[start : start + window] for start in starts])
    with torch.no_grad():
        trained: Array = net.eval()(torch.from_numpy(batch)).numpy()
    _, whole = WindowEngine(bundle)(batch)
    return trained, whole


def _streamed(bundle: Bundle, samples: Array) -> Array:
    manifest, engine = bundle.manifest, Engine(bundle, "cpu")
    stream = FeatureStream(engine, manifest.front_end, manifest.levels, bundle.statistics)
    features = stream.feed(samples).features
    full = manifest.graphs.window_features
    windows = np.stack([features[end - full : end] for end in range(full, len(features) + 1)])
    head = bundle.head.with_temperature(1.0)
    return head.probs(engine.classify(windows))
