from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from edge.arrays import Array
from edge.onnx_session import session_options
from export.lstm import Recurrence, lstm_operator, unrolled_lstm
from export.onnx_builder import GraphBuilder, Shape
from tests.tolerances import float32_tolerance, largest


def lstm_of(values: int, units: int, seed: int = 0) -> nn.LSTM:
    """A BiLSTM with weights large enough to bend every gate."""
    torch.manual_seed(seed)
    lstm = nn.LSTM(values, units, bidirectional=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.normal_(std=0.8)
    return lstm


def drawn(lstm: nn.LSTM, recurrence: Recurrence, steps: int, *, every: bool) -> onnx.ModelProto:
    builder = GraphBuilder()
    if recurrence == "lstm":
        found = lstm_operator(builder, "sequence", lstm, every=every)
    else:
        found = unrolled_lstm(builder, "sequence", lstm, steps, every=every)
    last: Shape = (2, "B", lstm.hidden_size)
    shape = (steps, *last) if every else last
    return builder.model("recurrence", {"sequence": (steps, "B", lstm.input_size)}, {found: shape})


def run(model: onnx.ModelProto, sequence: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"sequence": sequence})
    result: Array = found
    return result


def expected(lstm: nn.LSTM, sequence: Array) -> tuple[Array, Array]:
    """Return torch's outputs of every step, (S, 2, B, H), and of each direction's last, (2, B, H)."""
    with torch.no_grad():
        outputs, (last, _) = lstm(torch.from_numpy(sequence))
    steps, streams, _ = outputs.shape
    return outputs.numpy().reshape(steps, streams, 2, -1).transpose(0, 2, 1, 3), last.numpy()


def tolerance_of(lstm: nn.LSTM, sequence: Array) -> float:
    """Of outputs: every step adds products as large as what enters its gates."""
    inputs, units, *_ = (np.abs(parameter.detach().numpy()) for parameter in lstm.parameters())
    entering = np.abs(sequence) @ inputs.T + units.sum(axis=1)  # outputs are at most 1
    return float32_tolerance(len(sequence) * (lstm.input_size + lstm.hidden_size), largest(entering))


def sequence_of(steps: int, streams: int, values: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((steps, streams, values)).astype(np.float32)


SIZES = st.integers(1, 5)


@given(
    steps=st.integers(1, 9),
    streams=SIZES,
    values=SIZES,
    units=SIZES,
    seed=st.integers(0, 99),
    recurrence=st.sampled_from(["lstm", "unrolled"]),
)
@settings(max_examples=25, deadline=None)
def test_both_ways_compute_what_torch_does(
    steps: int, streams: int, values: int, units: int, seed: int, recurrence: Recurrence
) -> None:
    lstm, sequence = lstm_of(values, units, seed), sequence_of(steps, streams, values, seed)
    every, last = expected(lstm, sequence)
    if recurrence == "unrolled":  # the backward direction comes in the order in which it ran
        every = np.stack([every[:, 0], every[::-1, 1]], axis=1)
    found = [run(drawn(lstm, recurrence, steps, every=choice), sequence) for choice in (True, False)]
    tolerance = tolerance_of(lstm, sequence)
    np.testing.assert_allclose(found[0], every, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found[1], last, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["lstm.weight", "lstm.recurrence", "lstm.bias"])
@pytest.mark.parametrize("recurrence", ["lstm", "unrolled"])
def test_a_changed_gate_would_be_noticed(recurrence: Recurrence, name: str) -> None:
    """The twin of the test above: each of the weights matters."""
    lstm, sequence = lstm_of(3, 4), sequence_of(6, 2, 3)
    model = drawn(lstm, recurrence, 6, every=False)
    (item,) = (item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(np.flip(numpy_helper.to_array(item), -1).copy(), name))
    difference = np.abs(run(model, sequence) - expected(lstm, sequence)[1]).max()
    assert difference > 100 * tolerance_of(lstm, sequence)


def test_unrolled_all_steps_are_projected_at_once_and_a_step_is_one_product_and_one_sigmoid() -> None:
    counts = Counter(node.op_type for node in drawn(lstm_of(3, 4), "unrolled", 32, every=True).graph.node)
    assert counts["MatMul"] == 1 + 31  # the first step has nothing to remember
    assert counts["Sigmoid"] == counts["Tanh"] == 32
    assert counts["LSTM"] == 0


def test_unrolled_every_value_has_a_name_of_its_own() -> None:
    model = drawn(lstm_of(3, 4), "unrolled", 32, every=True)
    produced = [name for node in model.graph.node for name in node.output]
    given_names = [item.name for item in (*model.graph.initializer, *model.graph.input)]
    assert len({*produced, *given_names}) == len(produced) + len(given_names)
