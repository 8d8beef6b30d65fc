"""CPU time of one window through the whole-window graphs of several bundles, measured in turn.

    python benchmarks/windows.py [BUNDLE ...] [--seconds 20]

One thread, CPU time of this process. `graph`: the window graph alone, as a stream of whole windows runs it at
each step. `from samples`: input filter, spectra and graph, as offline inference runs them. The ratios are of
medians, to the last bundle; by default the default model is compared with the CNN-LSTM.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics.benchmark import whole_window
from edge.diagnostics.machine import this_machine
from edge.features.network_input import network_input
from edge.inference.engine import WindowEngine
from edge.inference.offline import full_windows, normalised_frames
from edge.model.bundle import Bundle, find_bundle, load_bundle

WARM_UP = 5
"""Rounds before the measurement."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=["default", "tests/bundles/cnn-lstm"])
    parser.add_argument("--seconds", type=float, default=20.0, help="measured in all")
    options = parser.parse_args()
    works = [work for name in options.bundles for work in works_of(load_bundle(find_bundle(name)))]
    spent = in_turn(works, options.seconds)
    machine = this_machine()
    print(
        f"{machine.processor}, {machine.cores} cores; onnxruntime {machine.onnxruntime}, one thread; CPU ms"
    )
    print(f"{'':24}{'p50':>9}{'p95':>9}{'ratio':>9}")
    for index, times in enumerate(spent):
        name, what = options.bundles[index // 2], ("graph", "from samples")[index % 2]
        p50, p95 = np.percentile(times, [50, 95])
        print(f"{name[-12:]:12}{what:12}{p50:9.2f}{p95:9.2f}{p50 / np.median(spent[index % 2 - 2]):9.2f}")


def works_of(bundle: Bundle) -> list[Callable[[], object]]:
    """Return what runs the window graph on the first window of the demo clip: alone, and from its samples."""
    manifest, sound, graph = bundle.manifest, read_clip(demo_clip()), WindowEngine(bundle)
    front_end = manifest.front_end
    normaliser = network_input(front_end, manifest.levels, bundle.statistics)
    window = full_windows(normalised_frames(sound, front_end, normaliser), front_end, step_frames=1)[:1]
    whole = whole_window(bundle)
    return [lambda: graph(window), lambda: whole(sound)]


def in_turn(works: list[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Run each in turn for so long; return the CPU times of each in ms."""
    spent: list[list[float]] = [[] for _ in works]
    ends = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < ends or rounds <= WARM_UP:
        for times, work in zip(spent, works, strict=True):
            began = time.process_time()
            work()
            times.append(1000.0 * (time.process_time() - began))
        rounds += 1
    return [times[WARM_UP:] for times in spent]


if __name__ == "__main__":
    main()
