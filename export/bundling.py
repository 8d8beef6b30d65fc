"""A checkpoint becomes a bundle: graphs, head, manifest and card, checked before they are put in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Final

import onnx

from edge.features.frontend import FrontEnd
from edge.labels import EMOTIONS
from edge.model.bundle import is_bundle, load_bundle, write_head
from edge.model.engine_files import GOLDEN, engine_graph
from edge.model.head import Head
from edge.model.manifest import (
    CLASSIFIER,
    ENCODER,
    WEIGHTS,
    WINDOW,
    BaselineConfig,
    Execution,
    Graphs,
    Manifest,
    write_manifest,
)
from edge.system.files import atomic_write_folder
from edge.system.outputs import require_free_folder
from export.golden import write_golden
from export.graphs import (
    Variant,
    classifier_graph,
    encoder_graph,
    feature_size,
    state_shapes,
    window_graph,
)
from export.onnx_builder import write_graph
from export.parity import Checks, Parity, measure, require
from export.pretrained_graph import folded_head
from export.recurrent_graph import (
    recurrent_classifier_graph,
    recurrent_encoder_graph,
    recurrent_state_shapes,
)
from export.trained_model import TrainedModel
from train.checkpoint import Checkpoint, Network, save_checkpoint
from train.model import POOL, EmotionNet
from train.model_card import write_card
from train.pretrained_net import PretrainedNet
from train.recurrent_net import FRAMES_PER_FEATURE, RecurrentNet
from train.run import frames_for_first

FIRST_WINDOW_S: Final = 1.5
"""Shortest window at the start of a stream, but with a CNN-LSTM: docs/default_model.md has what shorter
sounds score."""


def export_bundle(checkpoint: Checkpoint, folder: Path, name: str, *, replace: bool = False) -> Parity:
    """Write a bundle, if it agrees with the network.

    Args:
        checkpoint: the trained model.
        folder: destination of the bundle.
        name: what people call it.
        replace: whether a bundle that is there already may go.

    Returns:
        How far the graphs differ from the network.

    Raises:
        UsageError: the folder is in the way, or the network cannot be streamed.
        VerificationError: the graphs differ from the network.
    """
    return put_bundle(TrainedModel(checkpoint, name), folder, replace=replace)


def put_bundle(
    model: TrainedModel,
    folder: Path,
    *,
    replace: bool = False,
    variants: Sequence[Variant] = (),
    checks: Checks = Checks(),  # noqa: B008 - frozen
) -> Parity:
    """Write a bundle as `export_bundle` does, with window graphs for TensorRT besides.

    Args:
        model: the model and its name.
        folder: destination of the bundle.
        replace: whether a bundle that is there already may go.
        variants: the window graphs to build engines from.
        checks: what it is compared on, and who is told.
    """
    require_writable_bundle(folder, replace=replace)
    private = 0o700 if "speaker" in model.checkpoint.training else None
    with atomic_write_folder(folder, private) as staged:
        return stage_bundle(model, staged, variants, checks)


def stage_bundle(model: TrainedModel, folder: Path, variants: Sequence[Variant], checks: Checks) -> Parity:
    """Write a bundle into a folder that is not there yet, and check it there.

    Raises:
        UsageError: the network cannot be streamed.
        VerificationError: a graph differs from the network.
    """
    folder.mkdir()
    _write(model, folder, variants)
    parity = measure(model.checkpoint.net, load_bundle(folder), variants, checks)
    checks.report(parity)
    require(parity)
    return parity


def _write(model: TrainedModel, folder: Path, variants: Sequence[Variant]) -> None:
    checkpoint, net = model.checkpoint, model.checkpoint.net
    for name, graph in _graphs(net).items():
        write_graph(graph, folder / name)
    write_head(folder, head_of(net, checkpoint.temperature), checkpoint.normalisation.statistics)
    save_checkpoint(folder / WEIGHTS, checkpoint)
    engines = _write_engine_graphs(checkpoint, folder, variants)
    manifest = changed(_manifest(model), files=dict.fromkeys(engines, ""))
    write_card(folder, manifest)
    write_manifest(folder, manifest)


def _graphs(net: Network) -> dict[str, onnx.ModelProto]:
    """Draw the graphs that the network's bundle needs, by the names of their files."""
    match net:
        case PretrainedNet():
            return {WINDOW: window_graph(net)}
        case RecurrentNet():
            return {ENCODER: recurrent_encoder_graph(net), CLASSIFIER: recurrent_classifier_graph(net)}
        case EmotionNet():
            return {
                ENCODER: encoder_graph(net),
                CLASSIFIER: classifier_graph(net),
                WINDOW: window_graph(net),
            }


def _write_engine_graphs(checkpoint: Checkpoint, folder: Path, variants: Sequence[Variant]) -> list[str]:
    """Write the window graphs for TensorRT and the golden windows; return their names."""
    if not variants:
        return []
    net, frames = checkpoint.net, checkpoint.front_end.window_frames
    assert not isinstance(net, RecurrentNet), "it has no graph of whole windows"
    graphs = {engine_graph(item.recurrence, item.precision): item for item in variants}
    for name, variant in graphs.items():
        write_graph(window_graph(net, variant, frames), folder / name)
    write_golden(checkpoint, folder / GOLDEN)
    return [*graphs, GOLDEN]


def head_of(net: Network, temperature: float | None) -> Head:
    """Return the layers after the embedding as a head."""
    if not isinstance(net, EmotionNet):
        return folded_head(net, temperature or 1.0)
    layers = {"fc1": net.meta.fc1, "fc2": net.meta.fc2, "fc3": net.transfer.fc3}
    arrays = {
        f"{name}_{kind}": getattr(layer, kind).detach().cpu().numpy().copy()
        for name, layer in layers.items()
        for kind in ("weight", "bias")
    }
    return Head(**arrays, temperature=temperature or 1.0)


def _manifest(model: TrainedModel) -> Manifest:
    checkpoint = model.checkpoint
    front_end = checkpoint.front_end
    corpora = checkpoint.training.get("corpora", [])
    return Manifest(
        name=model.name,
        emotions=EMOTIONS,
        front_end=front_end,
        levels=checkpoint.normalisation.levels,
        graphs=graph_sizes(checkpoint.net, front_end),
        temperature_fitted=checkpoint.temperature is not None,
        licence=_weights_licence([corpus["licence"] for corpus in corpora]),
        baseline=_baseline_config(checkpoint.net),
        training=checkpoint.training,
        metrics=model.metrics,
    )


def _baseline_config(net: Network) -> BaselineConfig:
    """Return how the baseline is estimated that the network was trained with."""
    return BaselineConfig(scaled=not isinstance(net, EmotionNet) and net.arch.baseline == "deviation")


def graph_sizes(net: Network, front_end: FrontEnd) -> Graphs:
    """Return what a manifest says of the graphs."""
    match net:
        case PretrainedNet():
            return _with_first_windows(
                net, front_end, (), FRAMES_PER_FEATURE * front_end.frame_size, "window"
            )
        case RecurrentNet():
            states = recurrent_state_shapes(net.arch)
            return _with_first_windows(net, front_end, states, net.arch.feature_size, "recurrent")
        case EmotionNet():
            return Graphs(
                state_shapes=state_shapes(net.arch),
                feature_size=feature_size(net.arch),
                embedding_size=2 * net.arch.hidden,
                frames_per_feature=POOL ** len(net.arch.kernels),
                frames_for_first=frames_for_first(net.arch),
                window_features=net.arch.features_in(front_end.window_frames),
            )


def _with_first_windows(
    net: PretrainedNet | RecurrentNet,
    front_end: FrontEnd,
    states: tuple[tuple[int, ...], ...],
    size: int,
    execution: Execution,
) -> Graphs:
    """Return the sizes of a network whose features are of `FRAMES_PER_FEATURE` frames each."""
    feature_s = FRAMES_PER_FEATURE * front_end.hop_length_ms / 1000.0
    return Graphs(
        state_shapes=states,
        feature_size=size,
        embedding_size=net.arch.embedding_size,
        frames_per_feature=FRAMES_PER_FEATURE,
        frames_for_first=FRAMES_PER_FEATURE,
        window_features=front_end.window_frames // FRAMES_PER_FEATURE,
        execution=execution,
        first_window_features=math.ceil(FIRST_WINDOW_S / feature_s),
    )


def _weights_licence(licences: list[str]) -> str:
    """Return the most restrictive of the recordings' licences: it applies to weights learned from them."""
    if any("NC-SA" in licence for licence in licences):
        return "CC BY-NC-SA 4.0 (not for commercial use)"
    return "as the recordings it was trained on"


def require_writable_bundle(folder: Path, *, replace: bool) -> None:
    """Check that a bundle may be written to a folder.

    Args:
        folder: destination of the bundle.
        replace: whether a bundle that is there already may go.

    Raises:
        UsageError: something is there that may not go.
    """
    require_free_folder(folder, "a bundle", ours=is_bundle, replace=replace)
