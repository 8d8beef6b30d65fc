"""A network on a recurrent encoder as two ONNX graphs: frames and states to features, features to embeddings.

The state of a stream goes in and comes out, so each frame is computed once and no graph sees the frames of a
whole window. Letters: B streams, T frames, M mel bands, W units, S features, P values of a feature, D
embedding.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from torch import nn

from edge.features.frontend import MEL_POWER_BANDS
from export.lstm import forward_parameters
from export.onnx_builder import GraphBuilder, Shape
from export.pretrained_graph import standardise
from train.recurrent_net import (
    FAINTEST_SPEECH,
    FRAMES_PER_FEATURE,
    LEAST_WEIGHT,
    LEVEL_SLOPE,
    POOLED_LAYERS,
    SILENCE,
    RecurrentArchitecture,
    RecurrentNet,
)

STATES: tuple[str, str] = ("hidden", "cell")
"""Of a layer, in the order of the graph's inputs."""


def recurrent_encoder_graph(net: RecurrentNet) -> onnx.ModelProto:
    """Draw frames (B, T, M) and states to features (B, T / 8, P) and new states; T a multiple of 8."""
    builder = GraphBuilder()
    inputs: dict[str, Shape] = {"frames": ("B", "T", MEL_POWER_BANDS)}
    outputs: dict[str, Shape] = {"features": ("B", "S", net.arch.feature_size)}
    sequence, layers = builder.add("Transpose", ["frames"], "sequence", perm=[1, 0, 2]), []
    for index, layer in enumerate(net.encoder.layer):
        assert isinstance(layer, nn.LSTM)
        for place in range(len(STATES)):
            state = f"state_{len(STATES) * index + place}"
            inputs[state] = outputs[f"new_{state}"] = ("B", net.arch.units)
        sequence = _layer(builder, sequence, layer, index)
        layers.append(sequence)
    joined = builder.add("Concat", layers[-POOLED_LAYERS:], "joined", axis=2)
    states = builder.add("Transpose", [joined], "states", perm=[1, 0, 2])  # (B, T, P - 1)
    power = builder.add("ReduceMean", ["frames"], "power", axes=[2], keepdims=1)  # (B, T, 1)
    heard = builder.add("Add", [_grouped(builder, power, 1), _number(builder, "silence", SILENCE)], "heard")
    level = builder.add("Log", [heard], "level")
    parts = [_grouped(builder, states, net.arch.feature_size - 1), level]
    builder.add("Concat", parts, "features", axis=2)
    return builder.model("mmtl_encoder", inputs, outputs)


def recurrent_classifier_graph(net: RecurrentNet) -> onnx.ModelProto:
    """Draw features (B, S, P) of a window to its standardised embedding (B, D)."""
    builder, arch = GraphBuilder(), net.arch
    before, last, level = builder.split(
        "features",
        ["before", "last", "level"],
        axis=2,
        sizes=[arch.feature_size - 1 - arch.units, arch.units, 1],
    )
    shares = _shares(builder, level)
    mean_before = _weighted_sum(builder, before, shares, "mean_before")
    mean = _weighted_sum(builder, last, shares, "mean")
    centred = builder.add("Sub", [last, mean], "centred")
    squares = builder.add("Mul", [centred, centred], "squares")
    variance = _weighted_sum(builder, squares, shares, "variance")
    values = [mean_before, mean, builder.add("Sqrt", [variance], "deviation")]
    pooled = [builder.add("Squeeze", [value, _axis(builder, 1)], f"{value}_flat") for value in values]
    standardise(builder, pooled, net)
    return builder.model(
        "mmtl_classifier",
        {"features": ("B", "S", arch.feature_size)},
        {"embedding": ("B", arch.embedding_size)},
    )


def recurrent_state_shapes(arch: RecurrentArchitecture) -> tuple[tuple[int, ...], ...]:
    """Return (W,), once for each layer's hidden and cell state."""
    return ((arch.units,),) * (len(STATES) * arch.layers)


def _layer(builder: GraphBuilder, sequence: str, lstm: nn.LSTM, index: int) -> str:
    """Map (T, B, ...) to the (T, B, W) outputs of a layer, from its states and to the new ones."""
    names = [f"state_{len(STATES) * index + place}" for place in range(len(STATES))]
    before = [builder.add("Unsqueeze", [name, _axis(builder, 0)], f"{name}_before") for name in names]
    weights = [
        builder.weight(f"encoder.layer.{index}.{name}", value)
        for name, value in forward_parameters(lstm).items()
    ]
    after = [f"{name}_after" for name in names]
    builder.nodes.append(
        helper.make_node(
            "LSTM",
            [sequence, *weights, "", *before],
            [f"outputs_{index}", *after],
            name=f"layer_{index}",
            hidden_size=lstm.hidden_size,
        )
    )
    for name, value in zip(names, after, strict=True):
        builder.add("Squeeze", [value, _axis(builder, 0)], f"new_{name}")
    return builder.add("Squeeze", [f"outputs_{index}", _axis(builder, 1)], f"layer_{index}_outputs")


def _grouped(builder: GraphBuilder, frames: str, values: int) -> str:
    """Average (B, T, values) over each 8 frames: (B, T / 8, values)."""
    shape = np.array([0, -1, FRAMES_PER_FEATURE, values], np.int64)
    parts = [frames, builder.constant(f"{frames}_shape", shape)]
    return builder.add(
        "ReduceMean",
        [builder.add("Reshape", parts, f"{frames}_grouped")],
        f"{frames}_mean",
        axes=[2],
        keepdims=0,
    )


def _shares(builder: GraphBuilder, level: str) -> str:
    """Map (B, S, 1) levels to the share of each feature in the pooling, as `RecurrentNet.pooled` does."""
    above = builder.add("Sub", [level, _number(builder, "faintest", FAINTEST_SPEECH)], "above")
    steep = builder.add("Mul", [above, _number(builder, "slope", LEVEL_SLOPE)], "steep")
    logistic = builder.add("Sigmoid", [steep], "logistic")
    weights = builder.add("Add", [logistic, _number(builder, "least", LEAST_WEIGHT)], "weights")
    total = builder.add("ReduceSum", [weights, _axis(builder, 1)], "total", keepdims=1)
    return builder.add("Div", [weights, total], "shares")


def _weighted_sum(builder: GraphBuilder, values: str, shares: str, name: str) -> str:
    """Map (B, S, W) and (B, S, 1) to (B, 1, W)."""
    weighted = builder.add("Mul", [values, shares], f"{name}_weighted")
    return builder.add("ReduceSum", [weighted, _axis(builder, 1)], name, keepdims=1)


def _number(builder: GraphBuilder, name: str, value: float) -> str:
    return builder.constant(name, np.array(value, np.float32))


def _axis(builder: GraphBuilder, axis: int) -> str:
    return builder.constant(f"axis_{axis}", np.array([axis], np.int64))
