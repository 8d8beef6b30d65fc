from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from edge.arrays import Array
from edge.onnx_session import session_options
from export.fp16_emulation import rounding
from export.graphs import Variant, window_graph
from export.lstm import Recurrence
from export.onnx_builder import GraphBuilder
from tests.train.synthetic import tiny_checkpoint


def run(model: onnx.ModelProto, values: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    found: Array = session.run(None, {session.get_inputs()[0].name: values})[-1]
    return found


def sums() -> onnx.ModelProto:
    """Draw (x + 1) + 1 in FP16."""
    builder = GraphBuilder("fp16")
    one = builder.weight("one", np.array([1.0], np.float32))
    once = builder.add("Add", [builder.to_precision("x", "narrow"), one], "once")
    builder.to_float32(builder.add("Add", [once, one], "twice"), "y")
    return builder.model("sums", {"x": ("N",)}, {"y": ("N",)})


def test_each_value_is_rounded_where_it_arises() -> None:
    values = np.array([0.0, 1.0, 2047.0, 2048.0, 1e-4, 60_000.0, -3.7], np.float32)
    half = values.astype(np.float16)
    expected = (half + np.float16(1)) + np.float16(1)
    np.testing.assert_array_equal(run(rounding(sums()), values), expected.astype(np.float32))
    assert expected[3] == 2048  # where one is lost twice; 2050 if only the end were rounded


def test_what_does_not_fit_into_fp16_overflows() -> None:
    (found,) = run(rounding(sums()), np.array([1e5], np.float32))
    assert np.isposinf(found)


def test_a_graph_without_fp16_computes_what_it_did() -> None:
    net = tiny_checkpoint().net
    frames = np.random.default_rng(0).standard_normal((2, 297, 200)).astype(np.float32)
    plain = window_graph(net, Variant("unrolled", "fp32"), 297)
    assert rounding(plain) == plain
    np.testing.assert_array_equal(run(rounding(plain), frames), run(plain, frames))


def test_rounding_leaves_the_graph_as_it_was() -> None:
    model = sums()
    before = model.SerializeToString(deterministic=True)
    rounding(model)
    assert model.SerializeToString(deterministic=True) == before


def test_initialisers_become_float32_of_the_rounded_values() -> None:
    model = rounding(window_graph(tiny_checkpoint().net, Variant("lstm", "fp16"), 297))
    assert not any(item.data_type == TensorProto.FLOAT16 for item in model.graph.initializer)
    bias = tiny_checkpoint().net.state_dict()["meta.projection.bias"]
    (found,) = (item for item in model.graph.initializer if item.name == "projection.bias")
    expected = bias.numpy().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(found), expected)


@pytest.mark.slow
@pytest.mark.parametrize("recurrence", ["lstm", "unrolled"])
def test_it_errs_as_arithmetic_does_that_really_is_fp16(recurrence: Recurrence) -> None:
    """ONNX's own evaluator computes FP16 with NumPy: it is off by as much, if not in the same values."""
    net = tiny_checkpoint().net
    frames = np.random.default_rng(1).standard_normal((4, 65, 200)).astype(np.float32)
    half, full = (window_graph(net, Variant(recurrence, precision), 65) for precision in ("fp16", "fp32"))
    exact = run(full, frames)
    with np.errstate(all="ignore"):  # its sigmoid computes both branches
        (real,) = map(np.asarray, ReferenceEvaluator(half).run(["logits"], {"frames": frames}))
    errors = [float(np.abs(found - exact).mean()) for found in (real, run(rounding(half), frames))]
    assert 1 / 3 < errors[1] / errors[0] < 3
    assert errors[0] > 1e-4  # there is something to compare


def test_a_missing_cast_is_refused_when_the_graph_is_closed() -> None:
    builder = GraphBuilder("fp16")
    builder.add("Add", ["x", builder.weight("one", np.array([1.0], np.float32))], "y")
    with pytest.raises(onnx.shape_inference.InferenceError):
        builder.model("mixed", {"x": ("N",)}, {"y": ("N",)})
