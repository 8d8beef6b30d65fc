"""Does the stream keep its word? What it says of a sound against what the whole-window graph says."""

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
class Report:
    """What a verification found."""

    windows: int
    """Windows compared, the tail included."""
    largest_difference: float
    """Of a probability, streamed against offline; infinite where a window is missing or not finite."""
    at_s: float
    """End of the window that differs most."""
    spread: float
    """How far a probability moves over the windows: windows that are all alike prove little."""
    causal: bool
    """The sound cut off, in other blocks, gives the windows that it gave before the cut."""
    reset: bool
    """A second run after `reset` is the same bit for bit."""
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


Ends = dict[int, Array]
"""(C,) probabilities of windows by the number of samples before their end."""


def verify(
    bundle: Bundle,
    samples: Array,
    *,
    step_ms: int = 240,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    progress: Callable[[float], None] = lambda share: None,
) -> Report:
    """Stream a sound in random blocks and compare every window with the whole-window graph.

    Args:
        bundle: the model.
        samples: (N,) float32 mono at 16 kHz in [-1, 1], long enough for one feature.
        step_ms: from window to window, a multiple of 80.
        seed: of the block sizes and of the cut.
        tolerance: largest difference of a probability that passes, > 0.
        progress: called with the share of the work done, in [0, 1].

    Raises:
        UsageError: the sound is too short to be judged, or the step is off the grid.
    """
    recognizer = Recognizer(bundle, settings=Settings(step_ms=step_ms), provider="cpu")
    due = _due(recognizer, len(samples))
    generator = np.random.default_rng(seed)
    blocks = _random_blocks(len(samples), generator)
    first = _said(recognizer, _fed(recognizer, samples, blocks) + recognizer.flush())
    recognizer.reset()
    again = _said(recognizer, _fed(recognizer, samples, blocks) + recognizer.flush())
    cut = int(generator.integers(len(samples) // 2, len(samples)))
    recognizer.reset()
    early = _said(recognizer, _fed(recognizer, samples, _random_blocks(cut, generator)))
    expected = _offline(bundle, samples, sorted({*due, *first}), progress)
    at, largest = _worst(first, expected)
    return Report(
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
    """List the ends of the windows that so many samples must give: one each step, then the tail."""
    front_end, graphs = recognizer.front_end, recognizer.engine.graphs
    frames = front_end.frames_in(count)
    if frames < graphs.frames_for_first:
        least = front_end.samples_in(graphs.frames_for_first) / front_end.sample_rate
        heard = count / front_end.sample_rate
        raise UsageError(
            f"{heard:.2f} s of sound arrived, expected at least {least:.2f} s: name a longer file"
        )
    ends = window_ends(graphs.features_in(frames), graphs, recognizer.step_features)
    return [front_end.samples_in(graphs.frames_in(end)) for end in ends]


def _random_blocks(total: int, generator: np.random.Generator) -> list[slice]:
    """Divide so many samples: some blocks of one sample, most of tens to thousands."""
    blocks, done = [], 0
    while done < total:
        size = int(np.exp(generator.uniform(0.0, np.log(LONGEST_BLOCK))))
        blocks.append(slice(done, min(total, done + size)))
        done += size
    return blocks


def _fed(recognizer: Recognizer, samples: Array, blocks: Iterable[slice]) -> list[Event]:
    return [event for block in blocks for event in recognizer.feed(samples[block])]


def _said(recognizer: Recognizer, events: Iterable[Event]) -> Ends:
    """Take the windows from events, those that close a short utterance between two steps included."""
    rate = recognizer.front_end.sample_rate
    return {
        round(event.end_s * rate): np.array(list(event.probs.values()))
        for event in events
        if isinstance(event, Window)
    }


def _offline(bundle: Bundle, samples: Array, ends: list[int], progress: Callable[[float], None]) -> Ends:
    """Run the whole-window graph on the frames of each window."""
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


def _worst(streamed: Ends, expected: Ends) -> tuple[int, float]:
    """Return the end of the window that differs most, and by how much."""
    differences = {
        end: float(np.abs(streamed[end] - probs).max()) if end in streamed else np.inf
        for end, probs in expected.items()
    }
    finite = {end: value if np.isfinite(value) else np.inf for end, value in differences.items()}
    worst = max(finite, key=lambda end: finite[end])
    return worst, finite[worst]


def _agree(early: Ends, later: Ends, due: Iterable[int], tolerance: float) -> bool:
    """Tell whether all windows that were due came early, and each is the same with what followed."""
    return set(due) <= early.keys() <= later.keys() and all(
        float(np.abs(probs - later[end]).max()) <= tolerance for end, probs in early.items()
    )
