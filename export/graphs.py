"""The network as ONNX graphs, written node by node so that every name is ours and stays the same.

Opset 17; initialisers carry the names of the torch parameters they come from. Batch normalisation is
folded into the convolutions. Letters: B streams, T frames, F bins, S features, P values of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edge.errors import UsageError
from edge.files import replacing
from edge.frontend import Array
from train.model import POOL, Architecture, ConvBlock, EmotionNet, MetaLearner

OPSET = 17
IR_VERSION = 8

SAFE_OPERATORS = frozenset(
    {
        *("Unsqueeze", "Conv", "Reshape", "Mul", "ReduceSum", "Add", "Log", "Relu", "MaxPool", "Transpose"),
        *(
            "LSTM",
            "ReduceMean",
            "Gemm",
            "MatMul",
            "Split",
            "Concat",
            "Squeeze",
            "Sigmoid",
            "Tanh",
            "Sum",
            "Cast",
        ),
    }
)
"""What TensorRT 8.5 to 11 and ONNX Runtime all support; the window graph uses nothing else."""

Shape = tuple[int | str, ...]


@dataclass
class Draft:
    """A graph under construction."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: dict[str, Array] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Add an initialiser and return its name."""
        self.initialisers[name] = value
        return name

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


def encoder_graph(net: EmotionNet) -> onnx.ModelProto:
    """Draw frames (B, T, F) and states to features (B, T / 8, P) and new states; T a multiple of 8."""
    meta = streamable(net)
    draft = Draft()
    inputs: dict[str, Shape] = {"frames": ("B", "T", meta.arch.bins)}
    outputs: dict[str, Shape] = {"features": ("B", "S", "P")}
    maps = draft.add("Unsqueeze", ["frames", _axes(draft, 1)], "maps")
    for index, (block, shape) in enumerate(zip(_blocks(meta), state_shapes(meta.arch), strict=True)):
        state = f"state_{index}"
        joined = draft.add("Concat", [state, maps], f"joined_{index}", axis=2)
        outputs[f"new_{state}"] = inputs[state] = ("B", *shape)
        _last_frames(draft, joined, shape[1], f"new_{state}")
        maps = _convolution(draft, joined, block, index)
    _project(draft, maps, meta, "features")
    return draft.model("mmtl_encoder", inputs, outputs)


def classifier_graph(net: EmotionNet) -> onnx.ModelProto:
    """Draw features (B, S, P) of a window to its embedding (B, D)."""
    meta = streamable(net)
    draft = Draft()
    _embed(draft, "features", meta)
    shape = ("B", "S", feature_size(meta.arch))
    return draft.model("mmtl_classifier", {"features": shape}, {"embedding": ("B", 2 * meta.arch.hidden)})


def window_graph(net: EmotionNet) -> onnx.ModelProto:
    """Draw the frames (B, T, F) of a whole window to its embedding (B, D) and logits (B, C)."""
    meta = streamable(net)
    draft = Draft()
    maps = draft.add("Unsqueeze", ["frames", _axes(draft, 1)], "maps")
    for index, block in enumerate(_blocks(meta)):
        maps = _convolution(draft, maps, block, index)
    _embed(draft, _project(draft, maps, meta, "features"), meta)
    hidden = draft.add("Relu", [_gemm(draft, "embedding", meta.fc1, "fc1")], "hidden")
    auxiliary = _gemm(draft, hidden, meta.fc2, "fc2")
    _gemm(draft, auxiliary, net.transfer.fc3, "fc3", output="logits")
    classes = net.transfer.fc3.out_features
    return draft.model(
        "mmtl_window",
        {"frames": ("B", "T", meta.arch.bins)},
        {"embedding": ("B", 2 * meta.arch.hidden), "logits": ("B", classes)},
    )


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph in one piece."""
    with replacing(path) as partial:
        onnx.save(model, str(partial))


def streamable(net: EmotionNet) -> MetaLearner:
    """Return the meta learner, or refuse one that cannot be streamed.

    Raises:
        UsageError: the convolutions are padded in time.
    """
    if net.arch.time_padding != "valid":
        raise UsageError(
            "the paper's own layers pad every window in time, so they cannot be streamed: "
            "train without --paper to export"
        )
    return net.meta


def state_shapes(arch: Architecture) -> tuple[tuple[int, int, int], ...]:
    """Return (channels, frames, bins) of the input that each convolution still needs."""
    inputs = (1, *arch.channels[:-1])
    return tuple(
        (channels, time - 1, arch.bins // POOL**level)
        for level, (channels, (time, _)) in enumerate(zip(inputs, arch.kernels, strict=True))
    )


def feature_size(arch: Architecture) -> int:
    """Return P."""
    return arch.projection or arch.channels[-1] * arch.feature_bins


def folded(block: ConvBlock) -> tuple[Array, Array]:
    """Return the weight and bias of a convolution with its batch normalisation folded in."""
    weight, bias = _array(block.conv.weight), _array(block.conv.bias)
    if isinstance(block.norm, nn.BatchNorm2d):
        norm = block.norm
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + np.float32(norm.eps))
        weight = weight * scale[:, None, None, None]
        bias = (bias - _array(norm.running_mean)) * scale + _array(norm.bias)
    return weight, bias


def _blocks(meta: MetaLearner) -> list[ConvBlock]:
    return [block for block in meta.blocks if isinstance(block, ConvBlock)]


def _convolution(draft: Draft, maps: str, block: ConvBlock, index: int) -> str:
    left, right, top, bottom = block.padding
    weight, bias = folded(block)
    inputs = [
        maps,
        draft.constant(f"blocks.{index}.weight", weight),
        draft.constant(f"blocks.{index}.bias", bias),
    ]
    conv = draft.add("Conv", inputs, f"conv_{index}", pads=[top, left, bottom, right])
    active = draft.add("Relu", [conv], f"relu_{index}")
    return draft.add("MaxPool", [active], f"pool_{index}", kernel_shape=[POOL, POOL], strides=[POOL, POOL])


def _project(draft: Draft, maps: str, meta: MetaLearner, output: str) -> str:
    """Flatten (B, C, S, F') maps to (B, S, C * F') and reduce them to P values."""
    turned = draft.add("Transpose", [maps], "turned", perm=[0, 2, 1, 3])
    shape = draft.constant("flat_shape", np.array([0, 0, -1], np.int64))
    if not isinstance(meta.projection, nn.Linear):
        return draft.add("Reshape", [turned, shape], output)
    flat = draft.add("Reshape", [turned, shape], "flat")
    weight = draft.constant("projection.weight", _array(meta.projection.weight).T.copy())
    product = draft.add("MatMul", [flat, weight], "projected")
    return draft.add(
        "Add", [product, draft.constant("projection.bias", _array(meta.projection.bias))], output
    )


def _embed(draft: Draft, features: str, meta: MetaLearner) -> str:
    """Run the BiLSTM over (B, S, P) and summarise it as "embedding" (B, 2 * hidden)."""
    sequence = draft.add("Transpose", [features], "sequence", perm=[1, 0, 2])  # (S, B, P)
    weights = _lstm_weights(meta.lstm)
    inputs = [sequence, *(draft.constant(f"lstm.{name}", value) for name, value in weights.items())]
    hidden = meta.arch.hidden
    mean = meta.arch.pooling == "mean"
    outputs = ["lstm_outputs"] if mean else ["", "directions"]
    draft.nodes.append(
        helper.make_node("LSTM", inputs, outputs, name="lstm", hidden_size=hidden, direction="bidirectional")
    )
    if mean:  # (S, 2, B, hidden) -> (2, B, hidden)
        draft.add("ReduceMean", ["lstm_outputs"], "directions", axes=[0], keepdims=0)
    by_stream = draft.add("Transpose", ["directions"], "by_stream", perm=[1, 0, 2])
    shape = draft.constant("embedding_shape", np.array([-1, 2 * hidden], np.int64))
    return draft.add("Reshape", [by_stream, shape], "embedding")


def _lstm_weights(lstm: nn.LSTM) -> dict[str, Array]:
    """Reorder torch's gates i, f, g, o to ONNX's i, o, f, c and stack the directions."""
    suffixes = ("", "_reverse")
    stacked = {
        "weight": [_gates(getattr(lstm, f"weight_ih_l0{suffix}")) for suffix in suffixes],
        "recurrence": [_gates(getattr(lstm, f"weight_hh_l0{suffix}")) for suffix in suffixes],
        "bias": [
            np.concatenate(
                [_gates(getattr(lstm, f"bias_hh_l0{suffix}")), _gates(getattr(lstm, f"bias_ih_l0{suffix}"))]
            )
            for suffix in suffixes
        ],
    }
    return {name: np.stack(pair) for name, pair in stacked.items()}


def _gates(weight: torch.Tensor) -> Array:
    i, f, g, o = np.split(_array(weight), 4)
    return np.concatenate([i, o, f, g])


def _gemm(draft: Draft, value: str, layer: nn.Linear, name: str, output: str | None = None) -> str:
    inputs = [
        value,
        draft.constant(f"{name}.weight", _array(layer.weight)),
        draft.constant(f"{name}.bias", _array(layer.bias)),
    ]
    return draft.add("Gemm", inputs, output or name, transB=1)


def _last_frames(draft: Draft, maps: str, frames: int, output: str) -> None:
    """Keep the last frames of (B, C, T, F) maps."""
    starts = draft.constant(f"{output}_start", np.array([-frames], np.int64))
    ends = draft.constant("to_the_end", np.array([np.iinfo(np.int64).max], np.int64))
    draft.add("Slice", [maps, starts, ends, _axes(draft, 2)], output)


def _axes(draft: Draft, axis: int) -> str:
    return draft.constant(f"axis_{axis}", np.array([axis], np.int64))


def _array(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    values: Array = tensor.detach().cpu().numpy().astype(np.float32)
    return np.ascontiguousarray(values)
