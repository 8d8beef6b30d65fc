"""Files of a bundle for TensorRT besides those of every bundle: graphs to build from, golden windows."""

from __future__ import annotations

from typing import Final, Literal

from edge.errors import EngineError
from edge.model.bundle import Bundle
from edge.model.manifest import WINDOW

WindowRecurrence = Literal["none", "lstm", "unrolled"]
"""Encoding of a window graph's LSTM: it has none, as the operator, or step by step."""

GOLDEN: Final = "engine/golden.safetensors"
"""Only in bundles for TensorRT: frames (B, T, F), and the embedding and logits the network makes of them.

As metadata "mmtl", JSON: the largest difference in logits that passes, by precision.
"""


def engine_graph(recurrence: WindowRecurrence, precision: str) -> str:
    """Name the file of a window graph that TensorRT builds from; only bundles for TensorRT have them.

    Args:
        recurrence: how its LSTM is encoded.
        precision: "fp32" or "fp16".
    """
    encoding = precision if recurrence == "none" else f"{recurrence}.{precision}"
    return f"engine/window.{encoding}.onnx"


def require_window_graph(bundle: Bundle) -> None:
    """Check that a bundle can run by whole windows, as TensorRT does.

    Raises:
        EngineError: the network carries its state over from window to window.
    """
    if WINDOW not in bundle.manifest.graphs.files:
        raise EngineError(
            f"the bundle {bundle.folder} cannot run on TensorRT: its network carries its state over from "
            "window to window",
            remedy="use --provider cpu or cuda, or another bundle",
        )
