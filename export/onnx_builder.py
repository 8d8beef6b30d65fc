"""An ONNX graph under construction: nodes, initialisers and the precision that it computes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.arrays import Array
from edge.system.files import atomic_write

OPSET: Final = 17
IR_VERSION: Final = 8

SAFE_OPERATORS: Final = frozenset(
    {
        *("Unsqueeze", "Conv", "Reshape", "Mul", "ReduceSum", "Add", "Log", "Relu", "MaxPool", "Transpose"),
        *("LSTM", "ReduceMean", "Gemm", "MatMul", "Split", "Concat", "Squeeze", "Sigmoid", "Tanh", "Sum"),
        *("Cast", "Sub", "Div", "Max", "ReduceMax", "Sqrt", "Erf", "Softmax"),
        "LayerNormalization",
    }
)
"""What ONNX Runtime and TensorRT 10.3 to 11.4 support, by the operator tables of TensorRT's ONNX parser; the
window graphs for TensorRT use nothing else. All but LayerNormalization are in TensorRT 8.5 too."""

Precision = Literal["fp32", "fp16"]
Shape = tuple[int | str, ...]


@dataclass
class GraphBuilder:
    """A graph under construction.

    `precision` is that of `weight`s and of what is computed from them, between `to_precision` and
    `to_float32` values; `constant`s keep their own type. The graph's inputs and outputs are float32.
    Casts are written out, so that a strongly typed TensorRT network computes what the graph says.
    """

    precision: Precision = "fp32"
    half_storage: bool = False
    """Whether FP32 parameters are stored in FP16 where that is exact; ONNX Runtime casts them at load."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def split(self, value: str, outputs: Sequence[str], axis: int, sizes: Sequence[int] = ()) -> list[str]:
        """Divide a value along an axis, into equal parts unless sizes are given."""
        inputs = [value, self.constant(f"{value}_sizes", np.array(sizes, np.int64))] if sizes else [value]
        self.nodes.append(helper.make_node("Split", inputs, list(outputs), name=f"{value}_split", axis=axis))
        return list(outputs)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initialiser and return its name."""
        self.initialisers[name] = value
        return name

    def weight(self, name: str, value: Array) -> str:
        """Add an initialiser in the builder's precision and return its name."""
        with np.errstate(over="ignore"):  # what overflows is found when the graph is compared
            return self.constant(name, value.astype(np.float16) if self.precision == "fp16" else value)

    def parameter(self, name: str, value: Array, *, wide: bool = False) -> str:
        """Add a parameter and return the value to read: in the builder's precision, or `wide` in float32.

        With `half_storage`, one that stays float32 is stored in FP16 where that is exact.
        """
        if self.precision == "fp16" and not wide:
            return self.weight(name, value)
        with np.errstate(over="ignore"):
            narrow = value.astype(np.float16)
        if not self.half_storage or not (narrow == value).all():
            return self.constant(name, value)
        return self.add("Cast", [self.constant(name, narrow)], f"{name}.wide", to=TensorProto.FLOAT)

    def to_precision(self, value: str, output: str) -> str:
        """Cast a float32 value to the builder's precision; the value itself where that is float32."""
        return self._cast(value, output, TensorProto.FLOAT16)

    def to_float32(self, value: str, output: str) -> str:
        """Cast a value in the builder's precision to float32; the value itself where it is float32."""
        return self._cast(value, output, TensorProto.FLOAT)

    def model(self, name: str, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> onnx.ModelProto:
        """Close the graph and check it."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in outputs.items()],
            [numpy_helper.from_array(value, key) for key, value in self.initialisers.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="mmtl")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model

    def _cast(self, value: str, output: str, to: int) -> str:
        return value if self.precision == "fp32" else self.add("Cast", [value], output, to=to)


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph in one piece."""
    with atomic_write(path) as partial:
        onnx.save(model, str(partial))


def array(tensor: torch.Tensor | None) -> Array:
    """Copy a parameter out of torch."""
    assert tensor is not None
    values: Array = tensor.detach().cpu().numpy().astype(np.float32)
    return np.ascontiguousarray(values)
