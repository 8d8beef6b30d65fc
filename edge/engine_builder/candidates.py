"""The graphs that an engine can be built from, and the windows that it is compared on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, get_args

import numpy as np

from edge.arrays import Array
from edge.bounds import UNREADABLE, build, one_line, read_tensors, tensor, within
from edge.errors import BundleError, UsageError, VerificationError
from edge.inference.engine import WindowEngine
from edge.inference.offline import full_windows, normalised_frames
from edge.model.bundle import Bundle
from edge.model.engine_files import GOLDEN, WindowRecurrence, engine_graph, require_window_graph
from edge.model.manifest import WINDOW

PRECISIONS: Final = ("fp32", "fp16")
TOLERANCE: Final = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest difference that passes, by the precision of the graph, if the bundle states none.

FP32: ten times the tolerance of an export, because a GPU adds up in another order than a CPU.
"""


MOST_VALUE: Final = 1e6
"""Largest magnitude of a value in the golden windows."""


@dataclass(frozen=True)
class Tolerance:
    """Largest difference that passes, by precision, as a bundle states it."""

    fp32: float = field(metadata=within(0.0, 10.0))
    fp16: float = field(metadata=within(0.0, 10.0))


@dataclass(frozen=True)
class GraphCandidate:
    """One encoding of the window graph."""

    graph: str
    """Its file, relative to the bundle's folder."""
    recurrence: WindowRecurrence
    precision: str

    def __str__(self) -> str:
        return self.precision if self.recurrence == "none" else f"{self.recurrence} {self.precision}"


@dataclass(frozen=True)
class ReferenceWindows:
    """Windows of real speech, and ONNX Runtime's FP32 outputs for them."""

    frames: Array
    """(B, T, F) normalised."""
    embedding: Array
    """(B, D)."""
    logits: Array
    """(B, C)."""
    tolerance: dict[str, float] = field(default_factory=TOLERANCE.copy)
    """Largest difference that passes, of embedding and logits, by precision."""


def candidates(bundle: Bundle, precision: str) -> list[GraphCandidate]:
    """List the graphs of a bundle that have a precision; `window.onnx` itself if it has no others.

    Raises:
        UsageError: the precision is unknown, or no graph has it.
        EngineError: the network carries its state from window to window.
    """
    require_window_graph(bundle)
    if precision not in {"auto", *PRECISIONS}:
        raise UsageError(f"unknown precision {precision!r}", remedy=f"choose auto, {' or '.join(PRECISIONS)}")
    every = [
        GraphCandidate(engine_graph(recurrence, kind), recurrence, kind)
        for kind in PRECISIONS
        for recurrence in get_args(WindowRecurrence)
    ]
    found = [item for item in every if item.graph in bundle.manifest.files]  # listed, hence checked
    if not any(item.precision == "fp32" for item in found):
        found.append(GraphCandidate(WINDOW, _recurrence(bundle), "fp32"))
    fitting = [item for item in found if precision in {"auto", item.precision}]
    if not fitting:
        raise UsageError(
            f"the bundle {bundle.folder} has no {precision} graph",
            remedy="export it with --format tensorrt, or choose another --precision",
        )
    return fitting


def _recurrence(bundle: Bundle) -> WindowRecurrence:
    """Return the encoding of `window.onnx`."""
    return "lstm" if bundle.manifest.graphs.execution == "incremental" else "none"


def reference_of(bundle: Bundle) -> ReferenceWindows:
    """Run the bundle's golden windows, or windows of the demo clip, through ONNX Runtime in FP32.

    Raises:
        BundleError: the golden windows cannot be read.
        VerificationError: ONNX Runtime's outputs differ from those of the export.
    """
    if GOLDEN not in bundle.manifest.files:
        frames = _demo_windows(bundle)
        return ReferenceWindows(frames, *WindowEngine(bundle)(frames))
    golden = _golden(bundle, bundle.folder / GOLDEN)
    found = WindowEngine(bundle)(golden.frames)
    if not largest_difference(found, (golden.embedding, golden.logits)) <= TOLERANCE["fp32"]:
        raise VerificationError(
            f"ONNX Runtime's outputs differ from those in {bundle.folder / GOLDEN}",
            remedy="export the model again, or report this with the output of mmtl doctor",
        )
    return ReferenceWindows(golden.frames, *found, golden.tolerance)


def _golden(bundle: Bundle, path: Path) -> ReferenceWindows:
    """Read the windows that were exported with the bundle, and the network's outputs for them."""
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
        raise BundleError(
            f"{path} is damaged ({one_line(error)})", remedy="export the model again"
        ) from error
    windows = len(frames)
    shapes = ((windows, front_end.window_frames, front_end.frame_size), (windows, graphs.embedding_size))
    if (frames.shape, embedding.shape) != shapes or len(logits) != windows:
        raise BundleError(f"{path} does not hold windows of this model", remedy="export the model again")
    return ReferenceWindows(frames, embedding, logits, tolerance)


def largest_difference(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """Return the largest absolute difference; NaN if a value is NaN, infinite if shapes differ."""
    differences = [
        np.abs(one - other).max() if one.shape == other.shape else np.inf
        for one, other in zip(found, expected, strict=True)
    ]
    return float(np.max(differences))  # unlike max(), keeps NaN


def _demo_windows(bundle: Bundle) -> Array:
    """Cut the demo clip into (B, T, F) normalised windows, one every 0.5 s."""
    from edge.audio.sound_file import read_clip
    from edge.audio.sources import demo_clip
    from edge.features.network_input import network_input

    front_end = bundle.manifest.front_end
    normaliser = network_input(front_end, bundle.manifest.levels, bundle.statistics)
    frames = normalised_frames(read_clip(demo_clip()), front_end, normaliser)
    return full_windows(frames, front_end, step_frames=500 // front_end.hop_length_ms)
