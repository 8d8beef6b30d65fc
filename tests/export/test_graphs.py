from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F  # noqa: N812

from edge.arrays import Array
from edge.errors import UsageError
from edge.onnx_session import session_options
from export.fp16_emulation import rounding
from export.graphs import (
    Variant,
    classifier_graph,
    encoder_graph,
    feature_size,
    folded,
    state_shapes,
    window_graph,
)
from export.lstm import Recurrence
from export.onnx_builder import IR_VERSION, OPSET, SAFE_OPERATORS, write_graph
from export.parity import TOLERANCE as TOLERANCES
from tests.tolerances import float32_tolerance, largest
from tests.train.synthetic import TINY, tiny_checkpoint, with_random_norms
from train.model import Architecture, ConvBlock, EmotionNet

VARIANTS = [
    TINY,
    replace(TINY, projection=None, batch_norm=False, pooling="last"),
    replace(TINY, heads="separate", emotions="direct"),
    replace(TINY, heads="separate", dimensions=2),
]
ENCODINGS = [
    Variant("lstm", "fp32"),
    Variant("lstm", "fp16"),
    Variant("unrolled", "fp32"),
    Variant("unrolled", "fp16"),
]
TOLERANCE = TOLERANCES["fp32"]


def encoded(variant: Variant) -> Callable[[EmotionNet], onnx.ModelProto]:
    """Return what draws the window graph that TensorRT gets, in one encoding."""
    return lambda net: window_graph(net, variant, 297)


GRAPHS: list[Callable[[EmotionNet], onnx.ModelProto]] = [
    encoder_graph,
    classifier_graph,
    window_graph,
    *map(encoded, ENCODINGS),
]


def net_of(arch: Architecture = TINY, seed: int = 0) -> EmotionNet:
    return tiny_checkpoint(arch, seed=seed).net


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = session_options()
    if any(item.data_type == TensorProto.FLOAT16 for item in model.graph.initializer):
        # Its rewriting of layouts crashes the process on some FP16 graphs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def frames_of(batch: int, frames: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((batch, frames, 200)).astype(np.float32)


def logits_of(net: EmotionNet, frames: Array) -> Array:
    with torch.no_grad():
        logits: Array = net(torch.from_numpy(frames)).numpy()
    return logits


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("arch", [*VARIANTS, Architecture()])
@pytest.mark.parametrize("graph", GRAPHS[2:])
def test_the_window_graph_uses_only_operators_that_every_runtime_has(
    arch: Architecture, graph: Callable[[EmotionNet], onnx.ModelProto]
) -> None:
    assert operators(graph(net_of(arch))) <= SAFE_OPERATORS


def test_another_operator_would_be_noticed() -> None:
    """The twin of the test above: the encoder, which TensorRT does not get, slices its states."""
    assert operators(encoder_graph(net_of())) - SAFE_OPERATORS == {"Slice"}


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_same_network_gives_the_same_bytes(graph: Callable[[EmotionNet], onnx.ModelProto]) -> None:
    first, second = (graph(net_of()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("graph", GRAPHS)
def test_names_stay_the_same_from_export_to_export(graph: Callable[[EmotionNet], onnx.ModelProto]) -> None:
    first, second = graph(net_of(seed=0)), graph(net_of(seed=1))
    assert first != second
    for part in ("initializer", "node", "input", "output"):
        names = [[item.name for item in getattr(model.graph, part)] for model in (first, second)]
        assert names[0] == names[1]
        assert all(names[0])
        assert len(set(names[0])) == len(names[0])


def test_initialisers_are_named_after_the_layers() -> None:
    names = {item.name for item in window_graph(net_of()).graph.initializer}
    assert names == {
        *(f"blocks.{index}.{kind}" for index in range(3) for kind in ("weight", "bias")),
        *(f"{layer}.{kind}" for layer in ("projection", "fc1", "fc2", "fc3") for kind in ("weight", "bias")),
        *(f"lstm.{kind}" for kind in ("weight", "recurrence", "bias")),
        *("axis_1", "flat_shape", "embedding_shape"),
    }


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_are_valid_and_of_the_version_that_old_runtimes_read(
    graph: Callable[[EmotionNet], onnx.ModelProto], tmp_path: Path
) -> None:
    write_graph(graph(net_of()), tmp_path / "a.onnx")
    model = onnx.load(str(tmp_path / "a.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION) == (17, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("arch", VARIANTS)
@pytest.mark.parametrize(("batch", "frames"), [(1, 49), (2, 297), (5, 130)])
def test_the_window_graph_is_the_network(arch: Architecture, batch: int, frames: int) -> None:
    net, windows = net_of(arch), frames_of(batch, frames)
    embedding, logits = session(window_graph(net)).run(None, {"frames": windows})
    np.testing.assert_allclose(logits, logits_of(net, windows), atol=TOLERANCE)
    with torch.no_grad():
        expected = net.meta.embedding(net.meta.features(torch.from_numpy(windows))).numpy()
    np.testing.assert_allclose(embedding, expected, atol=TOLERANCE)


@pytest.mark.parametrize("arch", VARIANTS)
@pytest.mark.parametrize("variant", ENCODINGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_encoding_is_the_network(arch: Architecture, variant: Variant, batch: int) -> None:
    net, windows = net_of(arch), frames_of(batch, 297)
    model, tolerance = encoded(variant)(net), TOLERANCES[variant.precision]
    found = session(rounding(model)).run(None, {"frames": windows})
    with torch.no_grad():
        embedding = net.meta.embedding(net.meta.features(torch.from_numpy(windows))).numpy()
    np.testing.assert_allclose(found[0], embedding, atol=tolerance)
    np.testing.assert_allclose(found[1], logits_of(net, windows), atol=tolerance)


@pytest.mark.parametrize("variant", ENCODINGS)
def test_an_encoding_takes_float32_of_any_batch_and_one_length_and_gives_float32(variant: Variant) -> None:
    loaded = session(encoded(variant)(net_of()))
    (frames,), outputs = loaded.get_inputs(), loaded.get_outputs()
    assert (frames.name, frames.shape, frames.type) == ("frames", ["B", 297, 200], "tensor(float)")
    assert [(item.name, item.shape) for item in outputs] == [("embedding", ["B", 16]), ("logits", ["B", 4])]
    assert {item.type for item in outputs} == {"tensor(float)"}


@pytest.mark.parametrize("recurrence", ["lstm", "unrolled"])
def test_in_fp16_the_convolutions_and_the_lstm_are_fp16_and_the_head_is_not(recurrence: Recurrence) -> None:
    model = encoded(Variant(recurrence, "fp16"))(net_of())
    types = {item.name: item.data_type for item in model.graph.initializer}
    halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    layers = {name.split(".")[0] for name in halves}
    assert {"blocks", "projection", "lstm"} <= layers
    assert not any(name.startswith("fc") for name in halves)
    casts = {node.name: node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"}
    assert casts == {"narrow": TensorProto.FLOAT16, "wide": TensorProto.FLOAT}


def test_the_lstm_in_fp16_brings_its_own_initial_state_of_zeros() -> None:
    """TensorRT would supply one in float32, and refuse it in a strongly typed network."""
    model = encoded(Variant("lstm", "fp16"))(net_of())
    (lstm,) = (node for node in model.graph.node if node.op_type == "LSTM")
    assert list(lstm.input[4:]) == ["", "lstm_initial", "lstm_initial"]
    model.graph.output.append(helper.make_tensor_value_info("lstm_initial", TensorProto.FLOAT16, None))
    huge = 1e4 * frames_of(3, 297)
    (zeros,) = session(model).run(["lstm_initial"], {"frames": huge})
    np.testing.assert_array_equal(zeros, np.zeros((2, 3, 8), np.float16))


def test_an_encoding_that_is_not_float32_is_smaller() -> None:
    net = net_of(Architecture())
    sizes = {variant: len(encoded(variant)(net).SerializeToString()) for variant in ENCODINGS}
    for recurrence in ("lstm", "unrolled"):
        assert sizes[Variant(recurrence, "fp16")] < 0.6 * sizes[Variant(recurrence, "fp32")]


class Plain(nn.Module):
    """The network without packed sequences, which torch's exporter cannot draw in every case."""

    def __init__(self, net: EmotionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        meta = self.net.meta
        outputs, (last, _) = meta.lstm(meta.features(frames))
        mean = meta.arch.pooling == "mean"
        embedding = outputs.mean(dim=1) if mean else torch.cat([last[0], last[1]], dim=1)
        logits: torch.Tensor = self.net.transfer(meta.classify(embedding))
        return logits


@pytest.mark.slow
@pytest.mark.parametrize("arch", [*VARIANTS, Architecture()])
def test_the_window_graphs_agree_with_torchs_own_export(arch: Architecture, tmp_path: Path) -> None:
    net = net_of(arch)
    exported = str(tmp_path / "theirs.onnx")
    with warnings.catch_warnings():
        # Its tracer is deprecated, but an exporter that shares no line with ours is the point.
        warnings.simplefilter("ignore")
        example = (torch.from_numpy(frames_of(1, 297)),)
        torch.onnx.export(
            Plain(net), example, exported, dynamo=False, opset_version=17, input_names=["frames"]
        )
    theirs, ours = onnxruntime.InferenceSession(exported), session(window_graph(net))
    encodings = {variant: session(rounding(encoded(variant)(net))) for variant in ENCODINGS}
    for seed in range(5):
        inputs = {"frames": frames_of(1, 297, seed)}
        (expected,) = theirs.run(None, inputs)
        np.testing.assert_allclose(ours.run(["logits"], inputs)[0], expected, atol=TOLERANCE)
        for variant, encoding in encodings.items():
            (found,) = encoding.run(["logits"], inputs)
            np.testing.assert_allclose(found, expected, atol=TOLERANCES[variant.precision])


def test_swapped_gates_of_the_lstm_would_be_noticed() -> None:
    """The twin of the tests above: what ONNX orders otherwise than torch does matter here."""
    net, windows = net_of(), frames_of(2, 297)
    model = window_graph(net)
    for item in model.graph.initializer:
        if item.name == "lstm.weight":
            gates = onnx.numpy_helper.to_array(item).reshape(2, 4, 8, -1)[:, [0, 2, 1, 3]]
            item.CopyFrom(onnx.numpy_helper.from_array(gates.reshape(2, 32, -1).copy(), item.name))
    (logits,) = session(model).run(["logits"], {"frames": windows})
    assert np.abs(logits - logits_of(net, windows)).max() > 10 * TOLERANCE


@pytest.mark.parametrize("seed", range(3))
def test_folding_the_batch_normalisation_changes_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    net = with_random_norms(EmotionNet(TINY)).eval()
    blocks = [block for block in net.meta.blocks if isinstance(block, ConvBlock)]
    for block, channels in zip(blocks, (1, 2, 3), strict=True):
        maps = torch.randn(2, channels, 30, 40)
        weight, bias = (torch.from_numpy(array) for array in folded(block))
        with torch.no_grad():
            expected = block.norm(block.conv(maps))
            found = F.conv2d(maps, weight, bias)
            plain = block.conv(maps)
        assert (expected - plain).abs().max() > 0.1  # there is something to fold
        tolerance = float32_tolerance(weight[0].numel() + 4, largest(plain, expected))
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("arch", VARIANTS)
@pytest.mark.parametrize("blocks", [[1], [3, 1, 5], [37], [2, 7, 2, 11]])
def test_the_streaming_graphs_are_the_whole_window(arch: Architecture, blocks: list[int]) -> None:
    net, frames = net_of(arch), frames_of(2, 297)
    encoder, classifier = session(encoder_graph(net)), session(classifier_graph(net))
    ahead = np.zeros((2, 7, 200), np.float32)  # puts the steps of 8 in line with the first feature's 49
    stream = np.concatenate([ahead, frames], axis=1)[:, : (297 + 7) // 8 * 8]
    state = {
        f"state_{index}": np.zeros((2, *shape), np.float32) for index, shape in enumerate(state_shapes(arch))
    }
    features, done, turn = [], 0, 0
    while done < stream.shape[1]:
        size = 8 * blocks[turn % len(blocks)]
        some, *maps = encoder.run(None, {"frames": stream[:, done : done + size], **state})
        state = {f"state_{index}": value for index, value in enumerate(maps)}
        features.append(some)
        done, turn = done + size, turn + 1
    complete = np.concatenate(features, axis=1)[:, 6:]
    assert complete.shape == (2, arch.features_in(297), feature_size(arch))
    with torch.no_grad():
        expected = net.meta.features(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(complete, expected, atol=TOLERANCE)
    (embedding,) = classifier.run(None, {"features": complete})
    (whole, _) = session(window_graph(net)).run(None, {"frames": frames})
    np.testing.assert_allclose(embedding, whole, atol=TOLERANCE)


def test_the_states_are_what_each_convolution_still_needs() -> None:
    assert state_shapes(Architecture()) == ((1, 11, 200), (16, 7, 100), (24, 4, 50))
    assert [feature_size(arch) for arch in (Architecture(), VARIANTS[1])] == [128, 100]


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_papers_own_layers_are_refused(graph: Callable[[EmotionNet], onnx.ModelProto]) -> None:
    with pytest.raises(UsageError, match="train without --paper"):
        graph(EmotionNet(Architecture.paper()).eval())
