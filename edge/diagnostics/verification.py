"""Verify that streaming output equals offline inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.errors import UsageError
from edge.events import Event, Window
from edge.features.frontend import filtered
from edge.features.network_input import network_input
from edge.features.vad import SpeechDetector, SpeechFlags
from edge.inference.engine import Engine, WindowEngine
from edge.inference.offline import normalised_frames
from edge.inference.window_grid import first_window_ends, step_in_features, window_ends
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from edge.recognition.window_buffer import is_speech

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
    expected = _offline(bundle, samples, sorted({*due, *first}), step_ms, progress)
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
    features, step = graphs.features_in(frames), recognizer.step_features
    shorter = [end for end in first_window_ends(graphs, step) if end <= features]
    ends = sorted({*shorter, *window_ends(features, graphs, step)})
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
    bundle: Bundle, samples: Array, ends: list[int], step_ms: int, progress: Callable[[float], None]
) -> ProbsByEnd:
    """Compute the probabilities of each window from the whole recording: offline inference."""
    front_end = bundle.manifest.front_end
    frames = normalised_frames(
        samples, front_end, network_input(front_end, bundle.manifest.levels, bundle.statistics)
    )
    embed, embeddings = _offline_embeddings(bundle, frames), {}
    for done, end in enumerate(ends, start=1):
        embeddings[end] = embed(front_end.frames_in(end))
        progress(done / len(ends))
    heads = _heads(bundle, samples, embeddings, step_ms)
    return {end: heads[end].probs(embedding[None])[0] for end, embedding in embeddings.items()}


def _offline_embeddings(bundle: Bundle, frames: Array) -> Callable[[int], Array]:
    """Return a function from the end of a window, a number of frames, to its (D,) embedding.

    It runs the whole-window graph on the frames of the window. A recurrent network has none, since its state
    is carried over from window to window: its encoder runs over the (T, F) frames in one piece.
    """
    graphs = bundle.manifest.graphs
    if graphs.execution == "recurrent":
        engine, step = Engine(bundle, "cpu"), graphs.frames_per_feature
        features, _ = engine.encode(frames[None, : len(frames) // step * step], engine.initial_state())

        def from_features(end: int) -> Array:
            last = graphs.features_in(end)
            window: Array = engine.classify(features[:, max(0, last - graphs.window_features) : last])[0]
            return window

        return from_features
    graph, length = WindowEngine(bundle), graphs.frames_in(graphs.window_features)
    return lambda end: graph(frames[None, max(0, end - length) : end])[0][0]


def _heads(bundle: Bundle, samples: Array, embeddings: dict[int, Array], step_ms: int) -> dict[int, Head]:
    """Return the head of each window: the bundle's, for the level of the speech that ended before the window.

    Computed from the definition in `edge.recognition.speaker_baseline`, window by window, without its state.
    """
    head, front_end, graphs = bundle.head, bundle.manifest.front_end, bundle.manifest.graphs
    if head.baseline_weight is None:
        return dict.fromkeys(embeddings, head)
    flags = SpeechDetector(Settings().gate, front_end).feed(filtered(samples, front_end))
    step, window = step_in_features(step_ms, graphs, front_end), graphs.window_features
    needed_s, heads = Settings().speech_needed_s, {}
    earlier: list[tuple[int, Array]] = []
    for end, embedding in sorted(embeddings.items()):
        last = graphs.features_in(front_end.frames_in(end))
        before = [item for other, item in earlier if other <= last - window]
        heads[end] = head.for_baseline(*_level(before, step / window, bundle))
        frames = slice(*graphs.frames_of(last))
        part = SpeechFlags(flags.speech[frames], flags.voice[frames])
        spoken = is_speech(part, front_end, needed_s)
        if spoken and last >= window and (last - window) % step == 0:
            earlier.append((last, embedding))
    return heads


def _level(embeddings: list[Array], share: float, bundle: Bundle) -> tuple[Array, Array | None]:
    """Return the shrunken mean of earlier windows, weighted as after the last of them, and the deviation."""
    config, weights = bundle.manifest.baseline, np.zeros(0)
    for _ in embeddings:
        kept = min(1.0, max(0.0, config.memory_windows - share) / max(weights.sum(), share))
        weights = np.append(weights * kept, share)
    windows = np.reshape(embeddings, (len(weights), bundle.head.input_size))
    whole = weights.sum() + config.prior_windows
    mean = windows.T @ weights / whole
    if not config.scaled:
        return mean.astype(np.float32), None
    variance = (config.prior_windows + ((windows - mean) ** 2).T @ weights) / whole
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


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
