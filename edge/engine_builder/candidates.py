"""What an engine is built from, encodings of the window graph, and what it must give on windows of speech."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.bounds import UNREADABLE, build, one_line, read_tensors, tensor, within
from edge.errors import BundleError, UsageError, VerificationError
from edge.features.frontend import filtered, power_spectrogram
from edge.inference.engine import WindowEngine
from edge.model.bundle import GOLDEN, WINDOW, Bundle, engine_graph

PRECISIONS: Final = ("fp32", "fp16")
RECURRENCES: Final = ("lstm", "unrolled")
TOLERANCE: Final = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest difference that passes, by the precision of the graph, where the bundle states none.

In FP32 ten times what an export may differ by: a GPU adds up in another order than a CPU.
"""


MOST_VALUE: Final = 1e6
"""Magnitude of a value in the golden windows."""


@dataclass(frozen=True)
class Tolerance:
    """Largest difference that passes, by precision, as a bundle states it."""

    fp32: float = field(metadata=within(0.0, 10.0))
    fp16: float = field(metadata=within(0.0, 10.0))


@dataclass(frozen=True)
class Candidate:
    """One encoding of the window graph."""

    graph: str
    """Its file, from the bundle's folder."""
    recurrence: str
    precision: str

    def __str__(self) -> str:
        return f"{self.recurrence} {self.precision}"


@dataclass(frozen=True)
class Reference:
    """Windows of real speech, and what they must give."""

    frames: Array
    """(B, T, F) normalised."""
    embedding: Array
    """(B, D)."""
    logits: Array
    """(B, C)."""
    tolerance: dict[str, float] = field(default_factory=TOLERANCE.copy)
    """Largest difference that passes, of embedding and logits, by precision."""


def candidates(bundle: Bundle, precision: str) -> list[Candidate]:
    """List the encodings of a bundle's graph; `window.onnx` itself where it brings no others.

    Raises:
        UsageError: there is no such precision, or none of them has it.
    """
    if precision not in {"auto", *PRECISIONS}:
        raise UsageError(f"there is no precision {precision!r}: choose auto, {' or '.join(PRECISIONS)}")
    every = [
        Candidate(engine_graph(recurrence, kind), recurrence, kind)
        for kind in PRECISIONS
        for recurrence in RECURRENCES
    ]
    found = [item for item in every if item.graph in bundle.manifest.files]  # listed, hence checked
    if not any(item.precision == "fp32" for item in found):
        found.append(Candidate(WINDOW, "lstm", "fp32"))
    fitting = [item for item in found if precision in {"auto", item.precision}]
    if not fitting:
        raise UsageError(
            f"the bundle {bundle.folder} has no graph in {precision}: export it with --format tensorrt, or "
            "use another --precision"
        )
    return fitting


def reference_of(bundle: Bundle) -> Reference:
    """Run the bundle's golden windows, or else those of the demo clip, through ONNX Runtime in FP32.

    Raises:
        BundleError: the golden windows cannot be read.
        VerificationError: ONNX Runtime here does not give what they gave when they were exported.
    """
    if GOLDEN not in bundle.manifest.files:
        frames = _demo_windows(bundle)
        return Reference(frames, *WindowEngine(bundle)(frames))
    golden = _golden(bundle, bundle.folder / GOLDEN)
    found = WindowEngine(bundle)(golden.frames)
    if not largest_difference(found, (golden.embedding, golden.logits)) <= TOLERANCE["fp32"]:
        raise VerificationError(
            f"ONNX Runtime here does not give what is in {bundle.folder / GOLDEN}: export the model again, "
            "or report this with what mmtl doctor prints"
        )
    return Reference(golden.frames, *found, golden.tolerance)


def _golden(bundle: Bundle, path: Path) -> Reference:
    """Read the windows that were exported with the bundle, and what the network made of them."""
    front_end, graphs = bundle.manifest.front_end, bundle.manifest.graphs
    try:
        tensors, metadata = read_tensors(path)
        frames = tensor(tensors, "frames", 3, -MOST_VALUE, MOST_VALUE)
        embedding, logits = (
            tensor(tensors, name, 2, -MOST_VALUE, MOST_VALUE) for name in ("embedding", "logits")
        )
        described = json.loads(metadata["mmtl"])["tolerance"]
        tolerance = asdict(build(Tolerance, {precision: described[precision] for precision in PRECISIONS}))
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise BundleError(f"{path} is damaged ({one_line(error)}): export the model again") from error
    windows = len(frames)
    shapes = ((windows, front_end.window_frames, front_end.bins), (windows, graphs.embedding_size))
    if (frames.shape, embedding.shape) != shapes or len(logits) != windows:
        raise BundleError(f"{path} does not hold windows of this model: export the model again")
    return Reference(frames, embedding, logits, tolerance)


def largest_difference(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """Return how far arrays are from others, at most; NaN where one has NaN, infinite where shapes differ."""
    differences = [
        np.abs(one - other).max() if one.shape == other.shape else np.inf
        for one, other in zip(found, expected, strict=True)
    ]
    return float(np.max(differences))  # unlike max(), NaN stays NaN


def _demo_windows(bundle: Bundle) -> Array:
    """Cut the demo clip into (B, T, F) normalised windows, each half a second after the one before."""
    from edge.audio.ingest import read_clip
    from edge.audio.sources import demo_clip
    from edge.features.normaliser import Normaliser

    front_end = bundle.manifest.front_end
    normaliser = Normaliser(bundle.manifest.levels, bundle.statistics)
    frames = normaliser(power_spectrogram(filtered(read_clip(demo_clip()), front_end), front_end))
    starts = range(0, len(frames) - front_end.window_frames + 1, 50)
    return np.stack([frames[start : start + front_end.window_frames] for start in starts])
