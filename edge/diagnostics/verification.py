"""Verify that streaming output equals offline inference by the whole-window graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.errors import UsageError
from edge.events import Event, Window
from edge.features.normaliser import Normaliser
from edge.inference.engine import WindowEngine
from edge.inference.offline import normalised_frames
from edge.inference.window_grid import window_ends
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer, Settings

TOLERANCE: Final = 1e-4
"""Largest difference of a probability that passes."""
LONGEST_BLOCK: Final = 24_000
"""Samples of the largest random block: 1.5 s."""


@dataclass(frozen=True)
class VerificationReport:
    """The result of a verification."""

    windows: int
    """Windows compared, the tail included."""
    largest_difference: float
    """Largest difference of a probability between the two; infinite if a window is missing or not finite."""
    at_s: float
    """End of the window that differs most, in seconds."""
    spread: float
    """Largest range of a probability over the windows: windows that are all alike verify little."""
    causal: bool
    """The sound truncated, and in other blocks, gives the same windows up to its end."""
    reset: bool
    """A second run after `reset` is bit-identical."""
    flushed: bool
    """The window that ends with the last feature was emitted."""
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether no window differs by more than the tolerance."""
        return self.largest_difference <= self.tolerance

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return self.equal and self.causal and self.reset and self.flushed


ProbsByEnd = dict[int, Array]
"""(C,) probabilities of windows, by the number of samples before their end."""


def verify(
    bundle: Bundle,
    samples: Array,
    *,
    step_ms: int = 240,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    progress: Callable[[float], None] = lambda share: None,
) -> VerificationReport:
    """Stream a sound in random blocks and compare every window with offline inference.

    Args:
        bundle: the model.
        samples: (N,) float32 mono at 16 kHz in [-1, 1], long enough for one feature.
        step_ms: time between windows, a multiple of 80.
        seed: of the block sizes and of the truncation.
        tolerance: largest difference of a probability that passes, > 0.
        progress: called with the share of the work done, in [0, 1].

    Raises:
        UsageError: the sound is shorter than one feature, or the step is not a multiple of 80 ms.
    """
    recognizer = Recognizer(bundle, settings=Settings(step_ms=step_ms), provider="cpu")
    due = _due(recognizer, len(samples))
    generator = np.random.default_rng(seed)
    blocks = _random_blocks(len(samples), generator)
    first = _probs_by_end(recognizer, _feed_all(recognizer, samples, blocks) + recognizer.flush())
    recognizer.reset()
    again = _probs_by_end(recognizer, _feed_all(recognizer, samples, blocks) + recognizer.flush())
    cut = int(generator.integers(len(samples) // 2, len(samples)))
    recognizer.reset()
    early = _probs_by_end(recognizer, _feed_all(recognizer, samples, _random_blocks(cut, generator)))
    expected = _offline(bundle, samples, sorted({*due, *first}), progress)
    at, largest = _worst(first, expected)
    return VerificationReport(
        windows=len(expected),
        largest_difference=largest,
        at_s=at / bundle.manifest.front_end.sample_rate,
        spread=float(np.ptp(list(expected.values()), axis=0).max()),
        causal=_agree(early, first, [end for end in due[:-1] if end <= cut], tolerance),
        reset=list(first) == list(again) and all((first[end] == again[end]).all() for end in first),
        flushed=due[-1] in first,
        tolerance=tolerance,
    )


def _due(recognizer: Recognizer, count: int) -> list[int]:
    """Return the ends of the windows that `count` samples must give: one each step, then the tail."""
    front_end, graphs = recognizer.front_end, recognizer.engine.graphs
    frames = front_end.frames_in(count)
    if frames < graphs.frames_for_first:
        least = front_end.samples_in(graphs.frames_for_first) / front_end.sample_rate
        heard = count / front_end.sample_rate
        raise UsageError(
            f"{heard:.2f} s of sound arrived, expected at least {least:.2f} s", remedy="name a longer file"
        )
    ends = window_ends(graphs.features_in(frames), graphs, recognizer.step_features)
    return [front_end.samples_in(graphs.frames_in(end)) for end in ends]


def _random_blocks(total: int, generator: np.random.Generator) -> list[slice]:
    """Divide `total` samples into blocks of log-uniform size, from one sample to `LONGEST_BLOCK`."""
    blocks, done = [], 0
    while done < total:
        size = int(np.exp(generator.uniform(0.0, np.log(LONGEST_BLOCK))))
        blocks.append(slice(done, min(total, done + size)))
        done += size
    return blocks


def _feed_all(recognizer: Recognizer, samples: Array, blocks: Iterable[slice]) -> list[Event]:
    return [event for block in blocks for event in recognizer.feed(samples[block])]


def _probs_by_end(recognizer: Recognizer, events: Iterable[Event]) -> ProbsByEnd:
    """Return the windows among events, including those that close a short utterance between two steps."""
    rate = recognizer.front_end.sample_rate
    return {
        round(event.end_s * rate): np.array(list(event.probs.values()))
        for event in events
        if isinstance(event, Window)
    }


def _offline(
    bundle: Bundle, samples: Array, ends: list[int], progress: Callable[[float], None]
) -> ProbsByEnd:
    """Run the whole-window graph on the frames of each window: offline inference."""
    front_end, graphs = bundle.manifest.front_end, bundle.manifest.graphs
    length = graphs.frames_in(graphs.window_features)
    frames = normalised_frames(samples, front_end, Normaliser(bundle.manifest.levels, bundle.statistics))
    graph, probs = WindowEngine(bundle), {}
    for done, end in enumerate(ends, start=1):
        last = front_end.frames_in(end)
        window = frames[None, max(0, last - length) : last]
        probs[end] = bundle.head.probs(graph(window)[0])[0]
        progress(done / len(ends))
    return probs


def _worst(streamed: ProbsByEnd, expected: ProbsByEnd) -> tuple[int, float]:
    """Return the end of the window that differs most, and the difference."""
    differences = {
        end: float(np.abs(streamed[end] - probs).max()) if end in streamed else np.inf
        for end, probs in expected.items()
    }
    finite = {end: value if np.isfinite(value) else np.inf for end, value in differences.items()}
    worst = max(finite, key=lambda end: finite[end])
    return worst, finite[worst]


def _agree(early: ProbsByEnd, later: ProbsByEnd, due: Iterable[int], tolerance: float) -> bool:
    """Tell whether the truncated sound gave all windows due, each equal to that of the whole sound."""
    return set(due) <= early.keys() <= later.keys() and all(
        float(np.abs(probs - later[end]).max()) <= tolerance for end, probs in early.items()
    )
