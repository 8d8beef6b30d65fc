"""Memory over long runs: simulated sound, processed faster than real time.

    python benchmarks/soak.py [--hours 1] [--seed 0]

One recogniser receives speech (the demo clip), silence, noise and gaps of random lengths in blocks of
random sizes; resident memory is printed every ten simulated minutes. An hour takes about a minute, 24 hours
about 25. A single reading depends on the size of the last block, so the medians of both halves are
compared: the exit code is 1 if the second is more than 4 MB above the first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics.machine import resident_mb
from edge.model.bundle import default_bundle, load_bundle
from edge.recognition.recognizer import Recognizer

RATE = 16_000
MOST_GROWTH_MB = 4.0
REPORT_EVERY_S = 600.0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recognizer = Recognizer(load_bundle(options.bundle), provider="cpu")
    resident = listen(recognizer, 3600.0 * options.hours, np.random.default_rng(options.seed))
    warm = resident[1:]  # the first reading is from before any sound
    half = len(warm) // 2
    growth = median(warm[half:]) - median(warm[:half] or warm)
    print(f"median of the second half against the first: {growth:+.1f} MB (allowed: {MOST_GROWTH_MB:.0f})")
    sys.exit(growth > MOST_GROWTH_MB)


def listen(recognizer: Recognizer, seconds: float, generator: np.random.Generator) -> list[float]:
    """Process a duration of sound; print and return the resident memory in MB, every ten minutes."""
    counts: Counter[str] = Counter()
    resident: list[float] = []
    began = time.process_time()
    print(f"{'simulated':>10}{'resident':>12}{'CPU':>9}   events so far")
    for block, lost in life(generator):
        events = recognizer.feed(block) + (recognizer.report_gap(lost) if lost else [])
        counts.update(event.type for event in events)
        if recognizer.heard_s >= len(resident) * REPORT_EVERY_S:
            resident.append(resident_mb())
            said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
            spent = time.process_time() - began
            print(
                f"{recognizer.heard_s / 3600:8.2f} h{resident[-1]:9.1f} MB{spent:7.0f} s   {said}", flush=True
            )
        if recognizer.heard_s >= seconds:
            return resident
    return resident


def life(generator: np.random.Generator) -> Iterator[tuple[Array, int]]:
    """Yield blocks of sound endlessly, each with the number of samples lost after it."""
    clip = read_clip(demo_clip())
    while True:
        length = int(generator.integers(RATE, 30 * RATE))
        amplitude = float(generator.choice([0.0, 1e-4, 0.05]))
        speech = np.resize(np.roll(clip, int(generator.integers(len(clip)))), length)
        noise = amplitude * generator.standard_normal(length).astype(np.float32)
        sound = np.clip(noise + (speech if generator.random() < 0.6 else 0.0), -1.0, 1.0).astype(np.float32)
        done = 0
        while done < length:
            size = int(generator.integers(1, 3_000))
            lost = int(generator.integers(1, 8 * RATE)) if generator.random() < 0.001 else 0
            yield sound[done : done + size], lost
            done += size


if __name__ == "__main__":
    main()
