"""What a step of 80 ms costs as a stream, and what it would cost to run the whole window again.

    python benchmarks/step_cost.py [--bundle FOLDER] [--rounds 400]

Both are measured in turn in one process, on one thread, in CPU time; the ratio is what counts. The
step is all of it: front-end, normaliser, encoder, classifier, head. The window is all of it too:
3 s of spectra, normaliser, window graph.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.bundle import Bundle, default_bundle, load_bundle
from edge.engine import Engine, WindowEngine
from edge.features import FeatureStream
from edge.frontend import Array, power_spectrogram
from edge.normaliser import Normaliser


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--rounds", type=int, default=400)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    step, window = step_of(bundle), window_of(bundle)
    sound = 0.1 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    steps, windows = [], []
    for _ in range(options.rounds):
        steps += [cpu_ms(step, sound[start : start + 1280]) for start in range(0, 12_800, 1280)]
        windows.append(cpu_ms(window, sound))
    print(f"{platform.machine()}, Python {platform.python_version()}, one thread, CPU time")
    for name, values in (("step of 80 ms", steps), ("whole window", windows)):
        p50, p95 = np.percentile(values, [50, 95])
        print(f"{name:14}  p50 {p50:7.3f} ms  p95 {p95:7.3f} ms")
    print(f"ratio of the medians  {np.median(windows) / np.median(steps):.1f}")


def step_of(bundle: Bundle) -> Callable[[Array], object]:
    """Return what takes 80 ms of sound and classifies the window that it completes."""
    engine, manifest = Engine(bundle, "cpu"), bundle.manifest
    stream = FeatureStream(engine, manifest.front_end, manifest.levels, bundle.statistics)
    recent = np.zeros((manifest.graphs.window_features, manifest.graphs.feature_size), np.float32)

    def step(samples: Array) -> object:
        features = stream.feed(samples).features
        recent[: -len(features)] = recent[len(features) :].copy()
        recent[-len(features) :] = features
        return bundle.head.probs(engine.classify(recent[None]))

    step(np.zeros(48_000, np.float32))
    return step


def window_of(bundle: Bundle) -> Callable[[Array], object]:
    """Return what takes 3 s of sound and computes everything anew."""
    engine, manifest = WindowEngine(bundle), bundle.manifest

    def window(samples: Array) -> object:
        frames = Normaliser(manifest.levels, bundle.statistics)(
            power_spectrogram(samples, manifest.front_end)
        )
        return engine(frames[None])

    return window


def cpu_ms(work: Callable[[Array], object], samples: Array) -> float:
    """Time one call in CPU milliseconds of this process."""
    began = time.process_time()
    work(samples)
    return 1000.0 * (time.process_time() - began)


if __name__ == "__main__":
    main()
