"""Number of live streams per core: with separate recognisers, and with graphs run in batches.

    python benchmarks/streams.py [--bundle FOLDER] [--streams 40] [--seconds 8] [--step-ms 240]

All streams receive 80 ms in turn, on one thread. The share of a core per stream is CPU time divided by the
duration of all sound. The first figure is the program as it is: recognisers that share the loaded graphs. The
second compares the graphs alone, per stream and stacked along the batch axis: the possible gain of batching
streams before the encoder and the classifier.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics.machine import resident_mb
from edge.inference.provider import open_engine
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings

STEP = 1_280
"""Samples of 80 ms."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--step-ms", type=int, default=Settings().step_ms)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    print(f"{platform.machine()}, Python {platform.python_version()}, one thread, CPU time")
    recognizers(bundle, options.streams, options.seconds, options.step_ms)
    batches(bundle, options.streams)


def recognizers(bundle: Bundle, streams: int, seconds: float, step_ms: int) -> None:
    """Feed many recognisers in turn and print the share of a core per stream."""
    engine, before = open_engine(bundle, "cpu"), resident_mb()
    settings = Settings(step_ms=step_ms)
    listening = [Recognizer(bundle, settings=settings, engine=engine) for _ in range(streams)]
    sounds = different_sounds(streams, round(seconds * 16_000))
    for recognizer, sound in zip(listening, sounds, strict=True):
        recognizer.feed(sound[: 4 * 16_000])
    windows, began = 0, time.process_time()
    for start in range(0, sounds.shape[1] - STEP + 1, STEP):
        for recognizer, sound in zip(listening, sounds, strict=True):
            events = recognizer.feed(sound[start : start + STEP])
            windows += sum(event.type == "window" for event in events)
    spent, heard = time.process_time() - began, sounds.shape[1] // STEP * STEP / 16_000
    share = spent / (streams * heard)
    memory = (resident_mb() - before - sounds.nbytes / 1e6) / streams
    print(f"{streams} recognisers, a window every {step_ms} ms: {windows} windows")
    print(f"  a stream takes {100 * share:.2f} % of a core: {1 / share:.0f} live streams per core")
    print(f"  {memory:.2f} MB of memory a stream")


def batches(bundle: Bundle, streams: int) -> None:
    """Print the cost of the graphs per stream and step, alone and in a batch."""
    engine, graphs = open_engine(bundle, "cpu"), bundle.manifest.graphs
    generator = np.random.default_rng(0)
    print("graphs alone, ms a stream and step of 80 ms, by the number of streams stacked")
    for batch in sorted({1, 2, 4, 8, 16, streams}):
        frames = random(generator, batch, graphs.frames_per_feature, engine.bins)
        windows = random(generator, batch, graphs.window_features, graphs.feature_size)
        state = engine.initial_state(batch)
        encoder = median_ms(lambda f=frames, s=state: engine.encode(f, s)) / batch  # type: ignore[misc]
        classifier = median_ms(lambda w=windows: engine.classify(w)) / batch  # type: ignore[misc]
        print(f"  {batch:4}  encoder {encoder:.3f}  classifier {classifier:.3f}")


def different_sounds(streams: int, samples: int) -> Array:
    """Return the demo clip with a different start for each stream: (streams, samples)."""
    clip = read_clip(demo_clip())
    offsets = np.linspace(0, len(clip), streams, endpoint=False).astype(int)
    return np.stack([np.resize(np.roll(clip, -offset), samples) for offset in offsets])


def random(generator: np.random.Generator, *shape: int) -> Array:
    """Draw numbers of unit variance."""
    return generator.standard_normal(shape).astype(np.float32)


def median_ms(work: Callable[[], object], repeats: int = 40) -> float:
    """Return the median CPU time of a call in milliseconds."""
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return 1000.0 * float(np.median(spent))


if __name__ == "__main__":
    main()
