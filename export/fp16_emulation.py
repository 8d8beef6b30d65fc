"""Error of FP16 graphs, measured on a CPU without FP16 arithmetic.

ONNX Runtime's CPU provider has no FP16 kernels for most operators: it computes them in FP32 and leaves
out the rounding between them, so an unchanged graph shows only the error of rounded weights (and some
FP16 graphs crash it). Here the rounding is written into the graph.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

HALF: Final = TensorProto.FLOAT16


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a graph with FP16 parts in FP32, each FP16 value rounded (or overflown) where it arises.

    This is what a device computes that keeps FP16 values and adds up in FP32, as tensor cores do.
    What happens inside one operator, between the steps of an LSTM say, stays FP32. A graph without FP16
    computes what it did.
    """
    inferred = shape_inference.infer_shapes(model)
    halves = {item.name for item in inferred.graph.value_info if item.type.tensor_type.elem_type == HALF}
    nodes = [new for node in model.graph.node for new in _rounded(node, halves)]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.node[:], wide.graph.initializer[:], wide.graph.value_info[:]
    wide.graph.node.extend(nodes)
    wide.graph.initializer.extend(_widened(item) for item in model.graph.initializer)
    onnx.checker.check_model(wide, full_check=True)
    return wide


def _rounded(node: onnx.NodeProto, halves: set[str]) -> list[onnx.NodeProto]:
    """Return the node, followed by a cast there and back for each of its FP16 outputs."""
    found = [name for name in node.output if name in halves]
    exact = onnx.NodeProto()
    exact.CopyFrom(node)
    exact.output[:] = [f"{name}:exact" if name in halves else name for name in node.output]
    casts = [
        cast
        for name in found
        for cast in (
            helper.make_node("Cast", [f"{name}:exact"], [f"{name}:half"], f"{name}:there", to=HALF),
            helper.make_node("Cast", [f"{name}:half"], [name], f"{name}:back", to=TensorProto.FLOAT),
        )
    ]
    return [exact, *casts]


def _widened(item: onnx.TensorProto) -> onnx.TensorProto:
    if item.data_type != HALF:
        return item
    return numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), item.name)
