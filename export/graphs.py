"""The CNN-LSTM as ONNX graphs, written node by node so that all names are fixed.

Opset 17; initialisers carry the names of the torch parameters they come from. Batch normalisation is
folded into the convolutions. Letters: B streams, T frames, F bins, S features, P values of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from torch import nn

from edge.arrays import Array
from edge.errors import UsageError
from edge.model.engine_files import WindowRecurrence
from export.lstm import lstm_operator, unrolled_lstm
from export.onnx_builder import GraphBuilder, Precision, Shape, array
from export.pretrained_graph import pretrained_window_graph
from train.model import POOL, Architecture, ConvBlock, EmotionNet, MetaLearner
from train.pretrained_net import PretrainedNet

Network = EmotionNet | PretrainedNet


@dataclass(frozen=True)
class Variant:
    """Encoding of a window graph for TensorRT. All variants compute the same, within their precision."""

    recurrence: WindowRecurrence = "lstm"
    """Of a CNN-LSTM; a network on a pretrained encoder has none."""
    precision: Precision = "fp32"


def encoder_graph(net: EmotionNet) -> onnx.ModelProto:
    """Draw frames (B, T, F) and states to features (B, T / 8, P) and new states; T a multiple of 8."""
    meta = streamable(net)
    builder = GraphBuilder()
    inputs: dict[str, Shape] = {"frames": ("B", "T", meta.arch.bins)}
    outputs: dict[str, Shape] = {"features": ("B", "S", "P")}
    maps = builder.add("Unsqueeze", ["frames", _axes(builder, 1)], "maps")
    for index, (block, shape) in enumerate(zip(_blocks(meta), state_shapes(meta.arch), strict=True)):
        state = f"state_{index}"
        joined = builder.add("Concat", [state, maps], f"joined_{index}", axis=2)
        outputs[f"new_{state}"] = inputs[state] = ("B", *shape)
        _last_frames(builder, joined, shape[1], f"new_{state}")
        maps = _convolution(builder, joined, block, index)
    _project(builder, maps, meta, "features")
    return builder.model("mmtl_encoder", inputs, outputs)


def classifier_graph(net: EmotionNet) -> onnx.ModelProto:
    """Draw features (B, S, P) of a window to its embedding (B, D)."""
    meta = streamable(net)
    builder = GraphBuilder()
    _embed(builder, "features", meta)
    shape = ("B", "S", feature_size(meta.arch))
    return builder.model("mmtl_classifier", {"features": shape}, {"embedding": ("B", 2 * meta.arch.hidden)})


def window_graph(net: Network, variant: Variant = Variant(), frames: int | None = None) -> onnx.ModelProto:
    """Draw the frames (B, T, F) of a whole window to its embedding (B, D) and logits (B, C).

    In FP16, convolutions, projection and LSTM are FP16; frames, the mean over the features, the
    embedding, the head and the logits are FP32. `export.pretrained_graph` says what is FP16 in a network on
    a pretrained encoder.

    Args:
        net: the trained network.
        variant: how the LSTM is drawn, and in which precision.
        frames: T; None for any, which only the LSTM as an operator can take.
    """
    if isinstance(net, PretrainedNet):
        return pretrained_window_graph(net, variant.precision, frames)
    meta = streamable(net)
    builder = GraphBuilder(variant.precision)
    maps = builder.add("Unsqueeze", [builder.to_precision("frames", "narrow"), _axes(builder, 1)], "maps")
    for index, block in enumerate(_blocks(meta)):
        maps = _convolution(builder, maps, block, index)
    steps = _steps(meta.arch, variant, frames)
    _embed(builder, _project(builder, maps, meta, "features"), meta, steps)
    hidden = builder.add("Relu", [_gemm(builder, "embedding", meta.fc1, "fc1")], "hidden")
    auxiliary = _gemm(builder, hidden, meta.fc2, "fc2")
    _gemm(builder, auxiliary, net.transfer.fc3, "fc3", output="logits")
    return builder.model(
        "mmtl_window",
        {"frames": ("B", frames or "T", meta.arch.bins)},
        {"embedding": ("B", 2 * meta.arch.hidden), "logits": ("B", net.transfer.fc3.out_features)},
    )


def streamable(net: EmotionNet) -> MetaLearner:
    """Return the meta learner, or refuse one that cannot be streamed.

    Raises:
        UsageError: the convolutions are padded in time.
    """
    if net.arch.time_padding != "valid":
        raise UsageError(
            "the paper's own layers pad every window in time, so they cannot be streamed",
            remedy="train without --paper to export",
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
    weight, bias = array(block.conv.weight), array(block.conv.bias)
    if isinstance(block.norm, nn.BatchNorm2d):
        norm = block.norm
        scale = array(norm.weight) / np.sqrt(array(norm.running_var) + np.float32(norm.eps))
        weight = weight * scale[:, None, None, None]
        bias = (bias - array(norm.running_mean)) * scale + array(norm.bias)
    return weight, bias


def _blocks(meta: MetaLearner) -> list[ConvBlock]:
    return [block for block in meta.blocks if isinstance(block, ConvBlock)]


def _convolution(builder: GraphBuilder, maps: str, block: ConvBlock, index: int) -> str:
    left, right, top, bottom = block.padding
    weight, bias = folded(block)
    inputs = [
        maps,
        builder.weight(f"blocks.{index}.weight", weight),
        builder.weight(f"blocks.{index}.bias", bias),
    ]
    conv = builder.add("Conv", inputs, f"conv_{index}", pads=[top, left, bottom, right])
    active = builder.add("Relu", [conv], f"relu_{index}")
    return builder.add("MaxPool", [active], f"pool_{index}", kernel_shape=[POOL, POOL], strides=[POOL, POOL])


def _project(builder: GraphBuilder, maps: str, meta: MetaLearner, output: str) -> str:
    """Flatten (B, C, S, F') maps to (B, S, C * F') and reduce them to P values."""
    turned = builder.add("Transpose", [maps], "turned", perm=[0, 2, 1, 3])
    shape = builder.constant("flat_shape", np.array([0, 0, -1], np.int64))
    if not isinstance(meta.projection, nn.Linear):
        return builder.add("Reshape", [turned, shape], output)
    flat = builder.add("Reshape", [turned, shape], "flat")
    weight = builder.weight("projection.weight", array(meta.projection.weight).T.copy())
    product = builder.add("MatMul", [flat, weight], "projected")
    return builder.add(
        "Add", [product, builder.weight("projection.bias", array(meta.projection.bias))], output
    )


def _embed(builder: GraphBuilder, features: str, meta: MetaLearner, steps: int | None = None) -> str:
    """Run the BiLSTM over (B, S, P) and summarise it as "embedding" (B, 2 * hidden).

    Args:
        builder: the graph.
        features: the value that holds them.
        meta: the network.
        steps: S, to unroll the LSTM; None: draw it as an operator.
    """
    sequence = builder.add("Transpose", [features], "sequence", perm=[1, 0, 2])  # (S, B, P)
    mean = meta.arch.pooling == "mean"
    if steps is None:
        found = lstm_operator(builder, sequence, meta.lstm, every=mean)
    else:
        found = unrolled_lstm(builder, sequence, meta.lstm, steps, every=mean)
    directions = builder.to_float32(found, "wide")
    if mean:  # (S, 2, B, hidden) -> (2, B, hidden)
        directions = builder.add("ReduceMean", [directions], "directions", axes=[0], keepdims=0)
    by_stream = builder.add("Transpose", [directions], "by_stream", perm=[1, 0, 2])
    shape = builder.constant("embedding_shape", np.array([-1, 2 * meta.arch.hidden], np.int64))
    return builder.add("Reshape", [by_stream, shape], "embedding")


def _steps(arch: Architecture, variant: Variant, frames: int | None) -> int | None:
    """Return S, the number of steps, if the LSTM is to be unrolled."""
    if variant.recurrence != "unrolled":
        return None
    assert frames is not None, "an unrolled LSTM has a fixed number of steps"
    return arch.features_in(frames)


def _gemm(builder: GraphBuilder, value: str, layer: nn.Linear, name: str, output: str | None = None) -> str:
    inputs = [
        value,
        builder.constant(f"{name}.weight", array(layer.weight)),
        builder.constant(f"{name}.bias", array(layer.bias)),
    ]
    return builder.add("Gemm", inputs, output or name, transB=1)


def _last_frames(builder: GraphBuilder, maps: str, frames: int, output: str) -> None:
    """Keep the last frames of (B, C, T, F) maps."""
    starts = builder.constant(f"{output}_start", np.array([-frames], np.int64))
    ends = builder.constant("to_the_end", np.array([np.iinfo(np.int64).max], np.int64))
    builder.add("Slice", [maps, starts, ends, _axes(builder, 2)], output)


def _axes(builder: GraphBuilder, axis: int) -> str:
    return builder.constant(f"axis_{axis}", np.array([axis], np.int64))
