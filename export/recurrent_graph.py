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
from train.recurrent_net import FRAMES_PER_FEATURE, POOLED_LAYERS, RecurrentArchitecture, RecurrentNet

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
    joined = builder.add("Concat", layers[-POOLED_LAYERS:], "joined", axis=2)  # (T, B, P)
    by_stream = builder.add("Transpose", [joined], "by_stream", perm=[1, 0, 2])
    shape = builder.constant(
        "grouped_shape", np.array([0, -1, FRAMES_PER_FEATURE, net.arch.feature_size], np.int64)
    )
    grouped = builder.add("Reshape", [by_stream, shape], "grouped")
    builder.add("ReduceMean", [grouped], "features", axes=[2], keepdims=0)
    return builder.model("mmtl_encoder", inputs, outputs)


def recurrent_classifier_graph(net: RecurrentNet) -> onnx.ModelProto:
    """Draw features (B, S, P) of a window to its standardised embedding (B, D)."""
    builder, arch = GraphBuilder(), net.arch
    mean = builder.add("ReduceMean", ["features"], "mean", axes=[1], keepdims=1)
    last = builder.split(
        builder.add("Sub", ["features", mean], "centred"),
        ["centred_before", "centred_last"],
        axis=2,
        sizes=[arch.feature_size - arch.units, arch.units],
    )[1]
    squares = builder.add("Mul", [last, last], "squares")
    variance = builder.add("ReduceMean", [squares], "variance", axes=[1], keepdims=0)
    pooled = [
        builder.add("Squeeze", [mean, _axis(builder, 1)], "mean_flat"),
        builder.add("Sqrt", [variance], "deviation"),
    ]
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


def _axis(builder: GraphBuilder, axis: int) -> str:
    return builder.constant(f"axis_{axis}", np.array([axis], np.int64))
