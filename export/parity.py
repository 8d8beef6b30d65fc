"""Compare an export with the trained network; an export above the tolerance is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch

from edge.arrays import Array
from edge.errors import VerificationError
from edge.features.frontend import filtered
from edge.features.network_input import network_input
from edge.inference.encoder_stream import FeatureStream
from edge.inference.engine import EngineLike
from edge.inference.offline import normalised_frames
from edge.inference.provider import open_engine
from edge.model.bundle import Bundle
from edge.model.engine_files import engine_graph
from edge.model.manifest import WINDOW
from edge.onnx_session import session_options
from export.fp16_emulation import rounding
from export.graphs import Variant
from export.onnx_builder import Precision
from export.parity_audio import STEP_FRAMES, filling, read_sounds, windows_of
from train.checkpoint import Network
from train.model import EmotionNet
from train.recurrent_net import FRAMES_PER_FEATURE, RecurrentNet

TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference in logits that passes.

FP16: 0.02 moves no probability by more than 0.01. Values rounded to FP16 moved the default model's
logits by 0.003 at most, in 278 windows of speech; a GPU that also adds up in FP16 is given some room.
"""


@dataclass(frozen=True)
class ParityRow:
    """Difference between one form of the model and the network."""

    name: str
    precision: Precision
    difference: float
    """Largest, in logits."""
    same_labels: float
    """Share of windows."""

    @property
    def tolerance(self) -> float:
        """Largest difference that passes."""
        return TOLERANCE[self.precision]

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN never is."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Parity:
    """Differences between each form and the network, on the same windows."""

    rows: tuple[ParityRow, ...]
    windows: int
    clips: int
    """Recordings besides the sound that ships."""


@dataclass(frozen=True)
class Checks:
    """Sounds that an export is compared on, and where its progress and result are reported."""

    clips: Sequence[Path] = ()
    """Recordings besides the sound that ships."""
    report: Callable[[Parity], None] = lambda parity: None
    """Called with the measured differences, before they are judged."""
    progress: Callable[[float], None] = lambda share: None
    """Called with the fraction done, in [0, 1]."""


@dataclass(frozen=True)
class ParityWindows:
    """The windows of a sound."""

    frames: Array
    """(B, T, F) whole windows."""
    features: Array
    """(B, S, P) features of the same windows from the streaming encoder."""
    sound: Array
    """(T, F) frames of the whole sound."""
    starts: tuple[int, ...]
    """First feature of each window."""


@dataclass(frozen=True)
class ModelForm:
    """One form of the model, ready to run."""

    name: str
    precision: Precision
    logits: Callable[[ParityWindows], Array]
    baseline: bool = False
    """Whether it is compared for a speaker's baseline, of the kind that it reads; else for none."""


def measure(
    net: Network, bundle: Bundle, variants: Sequence[Variant] = (), checks: Checks = Checks()
) -> Parity:
    """Compare the network with every graph of a bundle on the same sounds.

    Args:
        net: what was trained.
        bundle: what was exported.
        variants: the window graphs it has for TensorRT.
        checks: the sounds, and who is told how far it is.
    """
    engine = open_engine(bundle, "cpu")
    exported = list(_graphs(bundle, engine, variants))
    trained = {baseline: _network(net, baseline) for baseline in {form.baseline for form in exported}}
    forms = [*trained.values(), *exported]
    logits: list[list[Array]] = [[] for _ in forms]
    for turn, samples in enumerate(read_sounds(checks.clips)):
        windows = _cut_windows(bundle, engine, samples)
        for index, form in enumerate(forms):
            logits[index].append(form.logits(windows))
            share = (turn + (index + 1) / len(forms)) / (len(checks.clips) + 1)
            checks.progress(share)
    found = [np.concatenate(parts) for parts in logits]
    expected = dict(zip(trained, found, strict=False))
    rows = tuple(
        _compare(form, values, expected[form.baseline])
        for form, values in zip(exported, found[len(trained) :], strict=True)
    )
    return Parity(rows, windows=len(found[0]), clips=len(checks.clips))


def require(parity: Parity) -> None:
    """Refuse an export that differs.

    Raises:
        VerificationError: a difference is above its tolerance.
    """
    refused = [row for row in parity.rows if not row.passed]
    if not refused:
        return
    row = refused[0]
    remedy = "report this with the checkpoint's configuration"
    if all(row.precision == "fp16" for row in refused):
        remedy = "add --no-fp16 to leave the FP16 graphs out"
    raise VerificationError(
        f"nothing was written: the exported graphs differ from the trained network by "
        f"{row.difference:.2g} in logits ({row.name}), more than {row.tolerance:g}",
        remedy=remedy,
    )


def table(parity: Parity) -> str:
    """Format the differences as a table."""
    width = max(len(row.name) for row in parity.rows)
    sounds = "the demo clip and noise" + (f", and {parity.clips} recordings" if parity.clips else "")
    lines = [
        f"{'':{width}}  differs by  same label  allowed",
        f"{'torch':{width}}  {'0':>10}  {_percent(1.0)}",
        *(_line(row, width) for row in parity.rows),
        f"Differences in logits from torch, in {parity.windows} windows of {sounds}.",
    ]
    if any(row.precision == "fp16" for row in parity.rows):
        lines.append("FP16: computed in FP32 by ONNX Runtime, each value rounded to FP16; no GPU was asked.")
    return "\n".join(lines)


def _line(row: ParityRow, width: int) -> str:
    measured = f"{row.difference:>10.1e}  {_percent(row.same_labels)}"
    return f"{row.name:{width}}  {measured}  {row.tolerance:>7g}  {'passed' if row.passed else 'REFUSED'}"


def _percent(share: float) -> str:
    return f"{100 * share:>8.1f} %"


def _network(net: Network, baseline: bool) -> ModelForm:
    def logits(windows: ParityWindows) -> Array:
        inputs = [
            torch.from_numpy(_features(net, windows) if isinstance(net, RecurrentNet) else windows.frames)
        ]
        if baseline:
            assert not isinstance(net, EmotionNet)
            level = _level(net.arch.embedding_size, scaled=net.arch.baseline == "deviation")
            inputs += [torch.from_numpy(value) for value in level]
        with torch.no_grad():
            found: Array = net.eval()(*inputs).numpy()
        return found

    return ModelForm("torch", "fp32", logits, baseline)


def _level(size: int, *, scaled: bool) -> list[Array]:
    """Return a (D,) baseline as far from the training mean as a window is, and a deviation if scaled."""
    rng = np.random.default_rng(0)
    level = [rng.standard_normal(size), *([rng.uniform(0.5, 1.5, size)] if scaled else [])]
    return [values.astype(np.float32) for values in level]


def _graphs(bundle: Bundle, engine: EngineLike, variants: Sequence[Variant]) -> Iterator[ModelForm]:
    head = bundle.head
    yield ModelForm("stream", "fp32", lambda windows: head.logits(engine.classify(windows.features)))
    if head.baseline_weight is not None:
        own = head.for_baseline(*_level(head.input_size, scaled=bundle.manifest.baseline.scaled))
        yield ModelForm(
            "stream with a baseline",
            "fp32",
            lambda windows: own.logits(engine.classify(windows.features)),
            True,
        )
    if WINDOW in bundle.manifest.graphs.files:
        yield ModelForm(WINDOW, "fp32", _window(onnx.load(bundle.graph(WINDOW))))
    for variant in variants:
        name = engine_graph(variant.recurrence, variant.precision)
        yield ModelForm(name, variant.precision, _window(rounding(onnx.load(bundle.graph(name)))))


def _window(model: onnx.ModelProto) -> Callable[[ParityWindows], Array]:
    """Open a window graph with ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )

    def logits(windows: ParityWindows) -> Array:
        (found,) = session.run(["logits"], {"frames": windows.frames})
        result: Array = found
        return result

    return logits


def _cut_windows(bundle: Bundle, engine: EngineLike, samples: Array) -> ParityWindows:
    """Cut a sound into windows, both ways."""
    manifest = bundle.manifest
    front_end, graphs = manifest.front_end, manifest.graphs
    samples = filling(samples, front_end)
    normaliser = network_input(front_end, manifest.levels, bundle.statistics)
    frames = windows_of(samples, front_end, normaliser)
    stream = FeatureStream(engine, front_end, manifest.levels, bundle.statistics)
    features = stream.feed(filtered(samples, front_end)).features
    starts = [index * STEP_FRAMES // graphs.frames_per_feature for index in range(len(frames))]
    return ParityWindows(
        frames,
        np.stack([features[start : start + graphs.window_features] for start in starts]),
        sound=normalised_frames(samples, front_end, normaliser),
        starts=tuple(starts),
    )


def _features(net: RecurrentNet, windows: ParityWindows) -> Array:
    """Run a recurrent encoder over the whole sound; return the (B, S, P) features of its windows."""
    frames, size = windows.sound, windows.features.shape[1]
    whole = len(frames) // FRAMES_PER_FEATURE * FRAMES_PER_FEATURE
    with torch.no_grad():
        features = net.encoder(torch.from_numpy(frames[None, :whole]))[0][0].numpy()
    return np.stack([features[start : start + size] for start in windows.starts])


def _compare(form: ModelForm, found: Array, trained: Array) -> ParityRow:
    return ParityRow(
        name=form.name,
        precision=form.precision,
        difference=float(np.abs(found - trained).max()),
        same_labels=float((found.argmax(1) == trained.argmax(1)).mean()),
    )
