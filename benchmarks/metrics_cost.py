"""What `--metrics` costs: counting a window, answering a scrape, and the memory of the library.

    python benchmarks/metrics_cost.py [--windows 20000]

The windows have the stages of a real one. Times are CPU time of the thread, the least of seven repetitions,
since other programs only add to it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from edge.events import Session, Window
from edge.labels import EMOTIONS
from edge.recognition.latency import STAGES

REPEATS = 7
SCRAPES = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--windows", type=int, default=20_000, help="windows to count in each repetition")
    windows = parser.parse_args().windows
    before_mb = resident_mb()
    from edge.metrics.registry import Metrics

    metrics = Metrics("1.0")
    memory_mb = resident_mb() - before_mb
    stream = metrics.stream()
    stream.emit(Session("demo", "default", None, "cpu", EMOTIONS, 3.0, 0.24, False))
    probs = dict.fromkeys(EMOTIONS, 0.25)
    spent = {"queue": 1.0, **dict.fromkeys(STAGES, 4.0)}
    window = Window(0.0, 3.0, probs, probs, "happy", True, -20.0, spent, 40.0)
    window_us = 1e6 * best_s(lambda: stream.emit(window), windows)
    scrape_ms = 1e3 * best_s(lambda: metrics.respond("/metrics"), SCRAPES)
    print(f"{window_us:.1f} us a window, {scrape_ms:.2f} ms a scrape, {memory_mb:.1f} MB of memory")


def best_s(work: Callable[[], object], times: int) -> float:
    """Return the CPU time of one call in seconds, in the fastest repetition."""
    found = []
    for _ in range(REPEATS):
        began_s = time.thread_time()
        for _ in range(times):
            work()
        found.append((time.thread_time() - began_s) / times)
    return min(found)


def resident_mb() -> float:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 1e6


if __name__ == "__main__":
    main()
