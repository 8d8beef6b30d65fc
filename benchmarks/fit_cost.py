"""CPU time of one thread to fit and evaluate the profile of a calibration session.

    python benchmarks/fit_cost.py [--takes 40] [--seconds 2] [--repeats 3]

The takes are segments of the demo clip with low noise and cyclic labels. The profile is meaningless; the cost
is that of any session of this size.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

from calibrate.fitting.model_selection import fit_and_judge
from calibrate.takes import Take
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import default_bundle, load_bundle

RATE = 16_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--takes", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    bundle = load_bundle(default_bundle())
    engine = open_engine(bundle, "cpu")
    sounds = [piece(index, options.seconds) for index in range(options.takes)]
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{options.takes} takes of {options.seconds:g} s")
    for name, sentences in (("held out by sentence", 5), ("held out by take", 1)):
        takes = [
            Take(Path(), index % len(EMOTIONS), str(index // len(EMOTIONS) % sentences))
            for index in range(options.takes)
        ]
        spent = []
        for _ in range(options.repeats):
            began = time.process_time()
            fit_and_judge(bundle, engine, takes, sounds)
            spent.append(time.process_time() - began)
        print(f"{name:22} {statistics.median(spent):5.2f} s CPU (median of {options.repeats})")


def piece(index: int, seconds: float) -> Array:
    """Cut the segment of an index out of the demo clip."""
    clip, random = read_clip(demo_clip()), np.random.default_rng(index)
    sound = np.resize(np.roll(clip, -int(random.integers(len(clip)))), round(seconds * RATE))
    noisy: Array = np.clip(sound + 0.003 * random.standard_normal(len(sound)), -1.0, 1.0).astype(np.float32)
    return noisy


if __name__ == "__main__":
    main()
