"""The demo clip through `edge` on a GPU and on the CPU: posteriors compared, and the time of a window.

    python benchmarks/gpu/cuda_session.py [--provider cuda] [--bundles default,small] [--tolerance 0.001]

What `mmtl run demo --provider cuda` computes, with the same classes: front-end, voice activity, graphs, head.
Windows are compared by their end. A GPU that fails in mid-stream is replaced by the CPU, which would agree
with itself: that counts as a failure here. Exit code 1: a posterior differs by more than the tolerance, or
the provider failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.errors import MmtlError
from edge.events import Event, Window
from edge.model.manifest import SHIPPED
from edge.recognition.recognizer import Recognizer

BLOCK: Final = 1280
"""Samples of a block: 80 ms, as a microphone's."""


@dataclass(frozen=True)
class StreamResult:
    """What a provider made of the clip."""

    provider: str
    """That the last window ran on."""
    reason: str
    windows: list[Window]
    compute_ms: list[float]
    """Of each window, all stages."""


def main() -> None:
    """Compare each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--bundles", default=",".join(SHIPPED))
    parser.add_argument("--tolerance", type=float, default=0.001, help="of a probability")
    options = parser.parse_args()
    failed = False
    for bundle in options.bundles.split(","):
        try:
            line, passed = compared(bundle, options.provider, options.tolerance)
        except MmtlError as error:
            line, passed = str(error), False
        print(f"{bundle}: {line}")
        failed |= not passed
    if failed:
        raise SystemExit(1)


def compared(bundle: str, provider: str, tolerance: float) -> tuple[str, bool]:
    """Run the clip on a provider and on the CPU; return what to say of it, and whether they agree."""
    found = streamed(Recognizer.load(bundle, provider=provider))
    expected = streamed(Recognizer.load(bundle, provider="cpu"))
    if found.provider != provider:
        return f"{provider} failed, and the CPU went on: {found.reason}", False
    difference = largest_difference(expected.windows, found.windows)
    agrees = difference <= tolerance
    line = (
        f"{len(found.windows)} windows, posteriors differ by {difference:.1e} at most, "
        f"tolerance {tolerance:g}: {'agree' if agrees else 'DIFFER'}"
    )
    for name, result in ((provider, found), ("cpu", expected)):
        p50, p95 = np.percentile(result.compute_ms, (50, 95))
        line += f"\n  {name:8} {p50:.2f} ms a window (p50), {p95:.2f} ms (p95), all stages"
    return line, agrees


def streamed(recognizer: Recognizer) -> StreamResult:
    """Feed the demo clip twice in blocks, and keep the second time: the first prepares kernels."""
    samples = read_clip(demo_clip())
    events: list[Event] = []
    for _ in range(2):
        recognizer.reset()
        events = []
        for start in range(0, len(samples), BLOCK):
            events += recognizer.feed(samples[start : start + BLOCK])
        events += recognizer.flush()
    windows = [event for event in events if isinstance(event, Window)]
    engine = recognizer.engine
    result = StreamResult(engine.provider, engine.reason, windows, [window.compute_ms for window in windows])
    engine.close()
    return result


def largest_difference(expected: Sequence[Window], found: Sequence[Window]) -> float:
    """Return the largest difference of a probability; infinite if a window is missing or not finite."""
    if [window.end_s for window in expected] != [window.end_s for window in found]:
        return float("inf")
    a, b = (np.array([list(window.probs.values()) for window in side]) for side in (expected, found))
    return float(np.abs(a - b).max()) if np.isfinite(b).all() else float("inf")


if __name__ == "__main__":
    main()
