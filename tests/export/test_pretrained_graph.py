"""The window graph of a network on a pretrained encoder is that network, in every precision and length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from edge.arrays import Array
from edge.onnx_session import session_options
from export.fp16_emulation import rounding
from export.onnx_builder import IR_VERSION, OPSET, SAFE_OPERATORS, Precision, write_graph
from export.parity import TOLERANCE
from export.pretrained_graph import folded_head, pretrained_window_graph
from tests.train.synthetic import TINY_PRETRAINED, tiny_pretrained
from train.pretrained_net import PretrainedNet
from train.speaker_head import head_inputs

FULL = 296
ARCHITECTURES = [TINY_PRETRAINED, replace(TINY_PRETRAINED, blocks=1), replace(TINY_PRETRAINED, width=128)]
PRECISIONS: list[Precision] = ["fp32", "fp16"]


def frames_of(batch: int, frames: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    loudness = rng.uniform(-6.0, 1.0, (batch, 1, 1))
    return (loudness + 2.0 * rng.standard_normal((batch, frames, 80))).astype(np.float32)


def outputs(model: onnx.ModelProto, frames: Array) -> tuple[Array, Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
    embedding, logits = session.run(["embedding", "logits"], {"frames": frames})
    return embedding, logits


def expected(net: PretrainedNet, frames: Array) -> tuple[Array, Array]:
    with torch.no_grad():
        window = torch.from_numpy(frames)
        return net.embedding(window).numpy(), net(window).numpy()


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("batch", "frames"), [(1, 8), (2, 9), (3, 151), (1, FULL)])
def test_the_graph_of_any_length_is_the_network(arch: object, batch: int, frames: int) -> None:
    assert isinstance(arch, type(TINY_PRETRAINED))
    net, windows = tiny_pretrained(arch).net, frames_of(batch, frames)
    found, wanted = outputs(pretrained_window_graph(net), windows), expected(net, windows)
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=TOLERANCE["fp32"])
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=TOLERANCE["fp32"])
    assert np.ptp(wanted[1]) > 100 * TOLERANCE["fp32"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_graphs_for_tensorrt_are_the_network(precision: Precision, batch: int) -> None:
    net, windows = tiny_pretrained().net, frames_of(batch, FULL)
    model = rounding(pretrained_window_graph(net, precision, FULL))
    found, wanted = outputs(model, windows), expected(net, windows)
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=TOLERANCE[precision])
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=TOLERANCE[precision])


def test_a_length_beyond_a_window_is_refused() -> None:
    model = pretrained_window_graph(tiny_pretrained().net)
    with pytest.raises(Exception, match="positioned"):
        outputs(model, frames_of(1, FULL + 2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graphs_for_tensorrt_use_only_operators_that_every_version_has(precision: Precision) -> None:
    net = tiny_pretrained().net
    assert operators(pretrained_window_graph(net, precision, FULL)) <= SAFE_OPERATORS
    assert operators(pretrained_window_graph(net)) - SAFE_OPERATORS == {"Shape", "Slice"}


@pytest.mark.parametrize("frames", [None, FULL])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_are_valid_the_same_each_time_and_of_the_version_that_old_runtimes_read(
    precision: Precision, frames: int | None, tmp_path: Path
) -> None:
    first, second = (pretrained_window_graph(tiny_pretrained().net, precision, frames) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    write_graph(first, tmp_path / "a.onnx")
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    assert (first.opset_import[0].version, first.ir_version) == (OPSET, IR_VERSION)


def test_initialisers_are_named_after_the_layers() -> None:
    net = tiny_pretrained().net
    names = {item.name for item in pretrained_window_graph(net).graph.initializer}
    layers = {f"encoder.{name}" for name, _ in net.encoder.named_parameters()}
    assert layers | {"embedding_mean", "embedding_std"} <= names
    assert {f"fc{index}.{kind}" for index in (1, 2, 3) for kind in ("weight", "bias")} <= names


def test_what_was_published_in_fp16_is_stored_so_and_what_was_tuned_is_not_rounded() -> None:
    net = tiny_pretrained().net
    stored = {item.name: item for item in pretrained_window_graph(net).graph.initializer}
    encoder = {name for name in stored if name.startswith("encoder.")}
    assert {stored[name].data_type for name in encoder} == {TensorProto.FLOAT16}
    with torch.no_grad():
        net.encoder.conv1.weight.add_(1e-5)
    tuned = {item.name: item.data_type for item in pretrained_window_graph(net).graph.initializer}
    assert {name for name in encoder if tuned[name] == TensorProto.FLOAT} == {"encoder.conv1.weight"}


def test_positions_past_a_window_are_left_out() -> None:
    for frames in (None, FULL):
        model = pretrained_window_graph(tiny_pretrained().net, "fp32", frames)
        (positions,) = (item for item in model.graph.initializer if item.name == "encoder.positions")
        assert tuple(positions.dims) == (FULL // 2, 64)


def test_in_fp16_level_norms_moments_and_head_stay_fp32() -> None:
    model = pretrained_window_graph(tiny_pretrained().net, "fp16", FULL)
    types = {item.name: item.data_type for item in model.graph.initializer}
    halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    assert {name for name in halves if name.startswith("encoder.")} == {
        name
        for name in types
        if name.startswith("encoder.") and ".norm." not in name and name != "encoder.positions"
    }
    assert {
        "floor",
        "offset",
        "scale",
        "embedding_mean",
        "embedding_std",
        "fc1.weight",
    } <= types.keys() - halves
    widened = {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    assert {"stem_wide", "block.0.attention.wide", "block.1.mlp.wide"} <= widened


def test_the_gain_of_the_microphone_has_no_effect() -> None:
    model, windows = pretrained_window_graph(tiny_pretrained().net), frames_of(1, FULL)
    found, louder = outputs(model, windows), outputs(model, windows + np.float32(1.5))
    np.testing.assert_allclose(louder[1], found[1], rtol=0, atol=TOLERANCE["fp32"])


def test_onnx_runtime_fuses_gelu_and_attention_scale(tmp_path: Path) -> None:
    """The patterns that it looks for: in other forms the graph would be right and slower."""
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    model = pretrained_window_graph(tiny_pretrained().net)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = operators(onnx.load(str(tmp_path / "optimised.onnx")))
    assert {"Gelu", "BiasGelu", "FusedMatMul"} <= found
    assert not {"Erf", "Cast"} & found


def test_the_folded_head_is_the_networks_with_and_without_a_baseline() -> None:
    net = tiny_pretrained().net
    head, rng = folded_head(net, 1.3), np.random.default_rng(0)
    size = net.arch.embedding_size
    embedding = rng.standard_normal((5, size)).astype(np.float32)
    baseline = rng.standard_normal(size).astype(np.float32)
    deviation = rng.uniform(0.5, 2.0, size).astype(np.float32)
    ones = np.ones(size, np.float32)
    for own, scale in ((np.zeros(size, np.float32), ones), (baseline, ones), (baseline, deviation)):
        with torch.no_grad():
            inputs = torch.from_numpy(head_inputs(embedding, own, scale))
            wanted = net.head(inputs).numpy()
        np.testing.assert_allclose(head.for_baseline(own, scale).logits(embedding), wanted, rtol=0, atol=1e-4)
    assert np.abs(head.logits(embedding) - wanted).max() > 0.1
    assert head.temperature == 1.3
