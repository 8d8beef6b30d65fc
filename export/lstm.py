"""The BiLSTM as ONNX, two ways: as the one operator, or step by step.

TensorRT runs the operator as a loop, which is correct and slow; unrolled, its steps are plain matrix
products that it can fuse. Which is faster depends on the device, so both are exported. Letters:
S steps, B streams, P values of a feature, H units of a direction; index 2 is forward, backward.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch
from onnx import helper
from torch import nn

from edge.arrays import Array
from export.onnx_builder import GraphBuilder, array

Recurrence = Literal["lstm", "unrolled"]

SUFFIXES: Final = ("", "_reverse")
"""Of torch's names for the parameters of the two directions."""


def lstm_operator(builder: GraphBuilder, sequence: str, lstm: nn.LSTM, *, every: bool) -> str:
    """Draw the BiLSTM as one operator.

    Args:
        builder: the graph.
        sequence: (S, B, P) features.
        lstm: one layer, both directions.
        every: whether every step's output is wanted, or each direction's last.

    Returns:
        The value that holds the outputs: (S, 2, B, H) of every step, or (2, B, H) of the last.
    """
    weights = [builder.weight(f"lstm.{name}", value) for name, value in _stacked(lstm).items()]
    inputs = [sequence, *weights, *_initial_state(builder, sequence, lstm.hidden_size)]
    outputs = ["lstm_outputs"] if every else ["", "lstm_last"]
    builder.nodes.append(
        helper.make_node(
            "LSTM", inputs, outputs, name="lstm", hidden_size=lstm.hidden_size, direction="bidirectional"
        )
    )
    return outputs[-1]


def unrolled_lstm(builder: GraphBuilder, sequence: str, lstm: nn.LSTM, steps: int, *, every: bool) -> str:
    """Draw the BiLSTM step by step, both directions at once.

    i, f, o = sigmoid(z_i, z_f, z_o);  g = tanh(z_g) = 2 sigmoid(2 z_g) - 1
    c' = f c + i g;  h' = o tanh(c')

    z = W x + b + R h, of which W x + b is one product for all steps. The factor 2 of z_g is in the
    weights, so that one sigmoid does for all gates. The backward direction's W x + b are turned
    round in time, so that a step handles one slice.

    Args:
        builder: the graph.
        sequence: (S, B, P) features.
        lstm: one layer, both directions.
        steps: S.
        every: whether every step's output is wanted, or each direction's last.

    Returns:
        The value that holds the outputs: (S, 2, B, H), the backward direction's in the order in
        which it ran, or (2, B, H) of the last step.
    """
    builder.weight("lstm.recurrence", _recurrence(lstm))
    builder.weight("two", np.array(2.0, np.float32))
    builder.weight("minus_one", np.array(-1.0, np.float32))
    hidden = cell = ""
    outputs = []
    for step, projected in enumerate(_projected(builder, sequence, lstm, steps)):
        hidden, cell = _step(builder, projected, hidden, cell, step)
        outputs.append(hidden)
    if every:
        return builder.add("Concat", outputs, "lstm_outputs", axis=0)
    return builder.add("Squeeze", [hidden, builder.constant("axis_0", np.array([0], np.int64))], "lstm_last")


def _projected(builder: GraphBuilder, sequence: str, lstm: nn.LSTM, steps: int) -> list[str]:
    """Project all steps in one product; return each step's W x + b, (1, 2, B, 4 H)."""
    weight, bias = _input_weights(lstm)
    product = builder.add("MatMul", [sequence, builder.weight("lstm.weight", weight)], "lstm_product")
    projected = builder.add("Add", [product, builder.weight("lstm.bias", bias)], "lstm_projected")
    forward, backward = builder.split(projected, ["lstm_forward", "lstm_backward"], axis=2)  # (S, B, 4 H)
    moments = builder.split(backward, [f"backward_{step}" for step in range(steps)], axis=0)
    turned = builder.add("Concat", moments[::-1], "lstm_backward_turned", axis=0)
    axis = builder.constant("axis_1", np.array([1], np.int64))
    pair = [builder.add("Unsqueeze", [value, axis], f"{value}_alone") for value in (forward, turned)]
    both = builder.add("Concat", pair, "lstm_both", axis=1)  # (S, 2, B, 4 H)
    return builder.split(both, [f"projected_{step}" for step in range(steps)], axis=0)


def _step(builder: GraphBuilder, projected: str, hidden: str, cell: str, step: int) -> tuple[str, str]:
    """Map W x + b (1, 2, B, 4 H), h and c (1, 2, B, H each; both "" at first) to the next h and c."""
    gates = projected
    if hidden:
        product = builder.add("MatMul", [hidden, "lstm.recurrence"], f"recurrent_{step}")
        gates = builder.add("Add", [projected, product], f"gates_{step}")
    active = builder.add("Sigmoid", [gates], f"active_{step}")
    i, f, o, half = builder.split(active, [f"{gate}_{step}" for gate in ("i", "f", "o", "half")], axis=3)
    doubled = builder.add("Mul", [half, "two"], f"doubled_{step}")
    g = builder.add("Add", [doubled, "minus_one"], f"g_{step}")
    new = builder.add("Mul", [i, g], f"new_{step}")
    if cell:
        kept = builder.add("Mul", [f, cell], f"kept_{step}")
        new = builder.add("Add", [kept, new], f"cell_{step}")
    bounded = builder.add("Tanh", [new], f"bounded_{step}")
    return builder.add("Mul", [o, bounded], f"hidden_{step}"), new


def _initial_state(builder: GraphBuilder, sequence: str, units: int) -> list[str]:
    """Draw zeros (2, B, H) for h and c in FP16, where TensorRT would supply float32 ones and refuse them.

    B is known only at run time: the zeros are made from the sequence, squashed first so that they
    are zeros whatever finite or infinite numbers it holds.
    """
    if builder.precision == "fp32":
        return []
    squashed = builder.add("Sigmoid", [sequence], "lstm_squashed")
    present = builder.add("ReduceMean", [squashed], "lstm_streams", axes=[0, 2])  # (1, B, 1)
    zeros = builder.weight("lstm.zeros", np.zeros((2, 1, units), np.float32))
    initial = builder.add("Mul", [present, zeros], "lstm_initial")
    return ["", initial, initial]


def _stacked(lstm: nn.LSTM) -> dict[str, Array]:
    """Reorder torch's gates i, f, g, o to ONNX's i, o, f, c and stack the directions."""
    directions = [_reordered(lstm, suffix) for suffix in SUFFIXES]
    return {name: np.concatenate([one[name] for one in directions]) for name in directions[0]}


def forward_parameters(lstm: nn.LSTM) -> dict[str, Array]:
    """Return the parameters of a layer with one direction as the operator takes them.

    Returns:
        "weight" (1, 4 H, P), "recurrence" (1, 4 H, H) and "bias" (1, 8 H).
    """
    return _reordered(lstm, "")


def _reordered(lstm: nn.LSTM, suffix: str) -> dict[str, Array]:
    order = ("i", "o", "f", "g")
    bias = np.concatenate([_gates(lstm, f"bias_{kind}", suffix, order) for kind in ("hh", "ih")])
    return {
        "weight": _gates(lstm, "weight_ih", suffix, order)[None],
        "recurrence": _gates(lstm, "weight_hh", suffix, order)[None],
        "bias": bias[None],
    }


def _input_weights(lstm: nn.LSTM) -> tuple[Array, Array]:
    """Return W (P, 8 H) and b (8 H) of both directions, side by side."""
    weights = [_unrolled_gates(lstm, "weight_ih", suffix) for suffix in SUFFIXES]
    biases = [
        _unrolled_gates(lstm, "bias_ih", suffix) + _unrolled_gates(lstm, "bias_hh", suffix)
        for suffix in SUFFIXES
    ]
    return np.concatenate(weights).T.copy(), np.concatenate(biases)


def _recurrence(lstm: nn.LSTM) -> Array:
    """Return R (1, 2, H, 4 H)."""
    return np.stack([_unrolled_gates(lstm, "weight_hh", suffix).T for suffix in SUFFIXES])[None].copy()


def _unrolled_gates(lstm: nn.LSTM, kind: str, suffix: str) -> Array:
    """Return a parameter with its gates in the order i, f, o, g and g's doubled."""
    gates = _gates(lstm, kind, suffix, ("i", "f", "o", "g"))
    gates[-lstm.hidden_size :] *= 2.0
    return gates


def _gates(lstm: nn.LSTM, kind: str, suffix: str, order: tuple[str, ...]) -> Array:
    """Return a parameter of one direction, (4 H, ...), with torch's gates in another order."""
    parameter: torch.Tensor = getattr(lstm, f"{kind}_l0{suffix}")
    parts = dict(zip(("i", "f", "g", "o"), np.split(array(parameter), 4), strict=True))
    return np.concatenate([parts[gate] for gate in order])
