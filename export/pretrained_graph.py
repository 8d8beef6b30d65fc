"""A network on a pretrained encoder as one ONNX graph of whole windows, written node by node.

Initialisers carry the names of the torch parameters; linear layers are stored transposed. Published in
FP16, the encoder's weights are stored so wherever that is exact, and cast to FP32 where a runtime loads
them. Letters: B windows, T frames of 10 ms, M mel bands, S states of 20 ms, W width, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import onnx
from torch import nn

from edge.arrays import Array
from edge.features.frontend import MEL_BANDS
from edge.features.log_mel import LOG_MEL
from edge.model.head import Head
from export.onnx_builder import GraphBuilder, Precision, array
from train.pretrained_net import DYNAMIC_RANGE, MAXIMUM, PretrainedNet
from train.recurrent_net import RecurrentNet
from train.whisper_encoder import HEAD_SIZE, STRIDE, Attention, EncoderBlock, FeedForward

WHISPER_OFFSET, WHISPER_SCALE = 4.0, 4.0
"""Whisper reads (x + 4) / 4 of a log10 mel power x."""


def pretrained_window_graph(
    net: PretrainedNet, precision: Precision = "fp32", frames: int | None = None
) -> onnx.ModelProto:
    """Draw frames (B, T, M), log10 mel power, to the embedding (B, D) and logits (B, C) for baseline 0.

    In FP16, matrix products, convolutions, GELU and softmax are FP16; the level of the window, the sums of
    the residual blocks, their layer norms, the moments, the embedding and the head are FP32.

    Args:
        net: the trained network.
        precision: of the encoder.
        frames: T; None for any length up to a full window, which takes the operators Shape and Slice.
    """
    builder = GraphBuilder(precision, half_storage=frames is None)
    levelled = _level(builder)
    states = [_stem(builder, net, levelled, frames)]
    for index, block in enumerate(net.encoder.block):
        assert isinstance(block, EncoderBlock)
        states.append(_block(builder, states[-1], block, f"block.{index}"))
    _embed(builder, net, states[-2], states[-1])
    _classify(builder, folded_head(net, 1.0))
    return builder.model(
        "mmtl_window",
        {"frames": ("B", frames or "T", MEL_BANDS)},
        {"embedding": ("B", net.arch.embedding_size), "logits": ("B", net.head.transfer.out_features)},
    )


def folded_head(net: PretrainedNet | RecurrentNet, temperature: float) -> Head:
    """Return the layers after the embedding e as a head that reads the speaker's baseline b.

    FC 1 reads [e, e - b]: (W1 + W2) e - W2 b. Where e - b is divided by the speaker's deviation, this is FC 1
    for a deviation of 1, and `Head.for_baseline` makes that for another one.
    """
    size = net.arch.embedding_size
    fc1 = array(net.head.meta.fc1.weight)
    absolute, relative = fc1[:, :size], fc1[:, size:]
    return Head(
        fc1_weight=np.ascontiguousarray(absolute + relative),
        fc1_bias=array(net.head.meta.fc1.bias).copy(),
        fc2_weight=array(net.head.meta.fc2.weight).copy(),
        fc2_bias=array(net.head.meta.fc2.bias).copy(),
        fc3_weight=array(net.head.transfer.weight).copy(),
        fc3_bias=array(net.head.transfer.bias).copy(),
        temperature=temperature,
        baseline_weight=np.ascontiguousarray(-relative),
    )


def _level(builder: GraphBuilder) -> str:
    """Shift the window's maximum to `MAXIMUM`, cut the range, and scale as Whisper does."""
    loudest = builder.add("ReduceMax", ["frames"], "loudest", axes=[1, 2], keepdims=1)
    relative = builder.add("Sub", ["frames", loudest], "relative")
    floor = _scalar(builder, "floor", -DYNAMIC_RANGE)
    cut = builder.add("Max", [relative, floor], "cut")
    shifted = builder.add("Add", [cut, _scalar(builder, "offset", MAXIMUM + WHISPER_OFFSET)], "shifted")
    return builder.add("Mul", [shifted, _scalar(builder, "scale", 1.0 / WHISPER_SCALE)], "levelled")


def _stem(builder: GraphBuilder, net: PretrainedNet, levelled: str, frames: int | None) -> str:
    """Convolve (B, T, M) frames to (B, S, W) states and add the positions."""
    encoder = net.encoder
    narrow = builder.to_precision(levelled, "narrow")
    maps = builder.add("Transpose", [narrow], "maps", perm=[0, 2, 1])  # (B, M, T)
    for name, layer, stride in (("conv1", encoder.conv1, 1), ("conv2", encoder.conv2, STRIDE)):
        inputs = [maps, *_parameters(builder, f"encoder.{name}", layer, transposed=False)]
        convolved = builder.add("Conv", inputs, name, pads=[1, 1], strides=[stride])
        maps = _gelu(builder, convolved, name)
    wide = builder.to_float32(maps, "stem_wide")
    states = builder.add("Transpose", [wide], "stem", perm=[0, 2, 1])  # (B, S, W)
    table = array(encoder.positions)[: states_in(frames or LOG_MEL.window_frames)]
    positions = builder.parameter("encoder.positions", table, wide=True)
    if frames is None:
        length = builder.add("Shape", [states], "length", start=1, end=2)
        zero, axis = _integers(builder, "zero", 0), _integers(builder, "axis_0", 0)
        positions = builder.add("Slice", [positions, zero, length, axis], "first_positions")
    return builder.add("Add", [states, positions], "positioned")


def states_in(frames: int) -> int:
    """Return S of a window of T frames."""
    return -(-frames // STRIDE)


def _block(builder: GraphBuilder, states: str, block: EncoderBlock, name: str) -> str:
    """Draw a residual block, (B, S, W) to (B, S, W)."""
    attended = _attention(builder, states, block.attention, f"{name}.attention")
    joined = builder.add("Add", [states, attended], f"{name}.attended")
    mapped = _feed_forward(builder, joined, block.mlp, f"{name}.mlp")
    return builder.add("Add", [joined, mapped], f"{name}.states")


def _attention(builder: GraphBuilder, states: str, layer: Attention, name: str) -> str:
    """Draw softmax(q k^T / sqrt(64)) v of each head, the scale on the queries."""
    width = layer.out.in_features
    projected = _linear(builder, _norm(builder, states, layer.norm, name), layer.qkv, f"{name}.qkv")
    parts = builder.split(projected, [f"{name}.{part}_flat" for part in ("query", "key", "value")], axis=2)
    shape = builder.constant("heads_shape", np.array([0, 0, width // HEAD_SIZE, HEAD_SIZE], np.int64))
    orders = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
    query, key, value = (
        builder.add(
            "Transpose",
            [builder.add("Reshape", [flat, shape], f"{name}.{part}_heads")],
            f"{name}.{part}",
            perm=order,
        )
        for flat, (part, order) in zip(parts, orders.items(), strict=True)
    )
    scaled = builder.add("Mul", [query, _scale(builder)], f"{name}.scaled")
    weights = builder.add(
        "Softmax", [builder.add("MatMul", [scaled, key], f"{name}.scores")], f"{name}.weights", axis=-1
    )
    mixed = builder.add("MatMul", [weights, value], f"{name}.mixed")  # (B, heads, S, 64)
    turned = builder.add("Transpose", [mixed], f"{name}.turned", perm=[0, 2, 1, 3])
    flat_shape = builder.constant("flat_shape", np.array([0, 0, width], np.int64))
    flat = builder.add("Reshape", [turned, flat_shape], f"{name}.flat")
    return builder.to_float32(_linear(builder, flat, layer.out, f"{name}.out"), f"{name}.wide")


def _feed_forward(builder: GraphBuilder, states: str, layer: FeedForward, name: str) -> str:
    up = _linear(builder, _norm(builder, states, layer.norm, name), layer.up, f"{name}.up")
    down = _linear(builder, _gelu(builder, up, name), layer.down, f"{name}.down")
    return builder.to_float32(down, f"{name}.wide")


def _norm(builder: GraphBuilder, states: str, layer: nn.LayerNorm, name: str) -> str:
    """Normalise in FP32; return the value in the builder's precision."""
    inputs = [
        states,
        builder.parameter(f"encoder.{name}.norm.weight", array(layer.weight), wide=True),
        builder.parameter(f"encoder.{name}.norm.bias", array(layer.bias), wide=True),
    ]
    normed = builder.add("LayerNormalization", inputs, f"{name}.normed", axis=-1, epsilon=layer.eps)
    return builder.to_precision(normed, f"{name}.narrow")


def _linear(builder: GraphBuilder, value: str, layer: nn.Linear, name: str) -> str:
    weight, bias = _parameters(builder, f"encoder.{name}", layer, transposed=True)
    return builder.add("Add", [builder.add("MatMul", [value, weight], f"{name}.product"), bias], name)


def _gelu(builder: GraphBuilder, value: str, name: str) -> str:
    """Draw x (1 + erf(x / sqrt(2))) / 2 in the form that ONNX Runtime fuses."""
    root, one, half = (
        builder.weight(f"gelu_{key}", np.array(number, np.float32))
        for key, number in (("root", sqrt(2.0)), ("one", 1.0), ("half", 0.5))
    )
    error = builder.add("Erf", [builder.add("Div", [value, root], f"{name}.reduced")], f"{name}.erf")
    share = builder.add("Add", [error, one], f"{name}.share")
    doubled = builder.add("Mul", [value, share], f"{name}.doubled")
    return builder.add("Mul", [doubled, half], f"{name}.gelu")


def _embed(builder: GraphBuilder, net: PretrainedNet, before: str, last: str) -> None:
    """Standardise the mean of the states before the last block, and mean and deviation of those after it."""
    mean = builder.add("ReduceMean", [last], "mean", axes=[1], keepdims=1)
    centred = builder.add("Sub", [last, mean], "centred")
    squares = builder.add("Mul", [centred, centred], "squares")
    variance = builder.add("ReduceMean", [squares], "variance", axes=[1], keepdims=0)
    pooled = [
        builder.add("ReduceMean", [before], "mean_before", axes=[1], keepdims=0),
        builder.add("Squeeze", [mean, _integers(builder, "axis_1", 1)], "mean_flat"),
        builder.add("Sqrt", [variance], "deviation"),
    ]
    standardise(builder, pooled, net)


def standardise(builder: GraphBuilder, pooled: Sequence[str], net: PretrainedNet | RecurrentNet) -> str:
    """Join pooled values and standardise them to the "embedding" (B, D)."""
    joined = builder.add("Concat", pooled, "pooled", axis=1)
    mean, std = (
        builder.constant(name, array(getattr(net, name))) for name in ("embedding_mean", "embedding_std")
    )
    return builder.add("Div", [builder.add("Sub", [joined, mean], "moved"), std], "embedding")


def _classify(builder: GraphBuilder, head: Head) -> None:
    hidden = builder.add(
        "Relu", [_gemm(builder, "embedding", head.fc1_weight, head.fc1_bias, "fc1")], "hidden"
    )
    auxiliary = _gemm(builder, hidden, head.fc2_weight, head.fc2_bias, "fc2")
    _gemm(builder, auxiliary, head.fc3_weight, head.fc3_bias, "fc3", output="logits")


def _gemm(
    builder: GraphBuilder, value: str, weight: Array, bias: Array, name: str, output: str | None = None
) -> str:
    inputs = [value, builder.constant(f"{name}.weight", weight), builder.constant(f"{name}.bias", bias)]
    return builder.add("Gemm", inputs, output or name, transB=1)


def _parameters(
    builder: GraphBuilder, name: str, layer: nn.Linear | nn.Conv1d, *, transposed: bool
) -> tuple[str, str]:
    weight = array(layer.weight)
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    return builder.parameter(f"{name}.weight", stored), builder.parameter(f"{name}.bias", array(layer.bias))


def _scale(builder: GraphBuilder) -> str:
    return builder.weight("query_scale", np.array(HEAD_SIZE**-0.5, np.float32))


def _scalar(builder: GraphBuilder, name: str, value: float) -> str:
    return builder.constant(name, np.array(value, np.float32))


def _integers(builder: GraphBuilder, name: str, value: int) -> str:
    return builder.constant(name, np.array([value], np.int64))
