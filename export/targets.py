"""The forms that an export takes: a bundle, one for TensorRT, a Triton repository, a Jetson package.

Each starts as a bundle that agrees with the network; the last two are made from one.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from edge.errors import UsageError
from edge.model.bundle import load_bundle
from export.bundling import put_bundle, stage_bundle
from export.graphs import Variant
from export.lstm import Recurrence
from export.onnx_builder import Precision
from export.parity import Checks
from export.trained_model import TrainedModel
from train.checkpoint import Network
from train.pretrained_net import PretrainedNet
from train.recurrent_net import RecurrentNet

ExportFormat = Literal["bundle", "tensorrt", "triton", "jetson"]

VARIANTS: Final = tuple(
    Variant(recurrence, precision) for precision in get_args(Precision) for recurrence in get_args(Recurrence)
)
"""The window graphs of a CNN-LSTM that TensorRT builds engines from; the device keeps the fastest that
passes."""

PRETRAINED_VARIANTS: Final = tuple(Variant("none", precision) for precision in get_args(Precision))
"""Those of a network on a pretrained encoder, which has no LSTM."""


@dataclass(frozen=True)
class ExportRequest:
    """What to write, and where."""

    format: ExportFormat
    out: Path
    name: str = ""
    """Of the model; empty: the model's, or else that of `out`."""
    replace: bool = False
    """Whether existing files may be replaced."""
    fp16: bool = True
    """Whether FP16 graphs are among those for TensorRT."""

    def variants(self, net: Network) -> tuple[Variant, ...]:
        """Return the window graphs for TensorRT.

        Raises:
            UsageError: the network has none.
        """
        if self.format == "bundle":
            return ()
        if isinstance(net, RecurrentNet):
            raise UsageError(
                f"the format {self.format} is for networks that run by whole windows; a recurrent encoder "
                "carries its state over from window to window",
                remedy="export it with --format bundle",
            )
        every = PRETRAINED_VARIANTS if isinstance(net, PretrainedNet) else VARIANTS
        return tuple(item for item in every if self.fp16 or item.precision == "fp32")


def export_target(model: TrainedModel, request: ExportRequest, checks: Checks) -> Path:
    """Write the requested form, if it agrees with the network.

    Returns:
        What was written: a folder or an archive.

    Raises:
        UsageError: something is in the way, or the network cannot be streamed.
        VerificationError: a graph differs from the network.
    """
    name = request.name or model.name or request.out.name.removesuffix(".tar.gz")
    named = replace(model, name=name)
    if request.format in {"triton", "jetson"}:
        return _made_from_a_bundle(named, request, checks)
    variants = request.variants(model.checkpoint.net)
    put_bundle(named, request.out, replace=request.replace, variants=variants, checks=checks)
    return request.out


def _made_from_a_bundle(model: TrainedModel, request: ExportRequest, checks: Checks) -> Path:
    from export import jetson, triton

    check = jetson.writable_archive if request.format == "jetson" else triton.require_writable_repository
    check(request.out, replace=request.replace)  # before minutes of comparing
    with tempfile.TemporaryDirectory(prefix="mmtl.") as folder:
        staged = Path(folder) / "bundle"
        stage_bundle(model, staged, request.variants(model.checkpoint.net), checks)
        bundle = load_bundle(staged)
        if request.format == "jetson":
            return jetson.write_package(bundle, request.out, replace=request.replace)
        triton.write_repository(bundle, request.out, replace=request.replace)
        return request.out
