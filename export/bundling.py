"""A checkpoint becomes a bundle: graphs, head, manifest and card, checked before they are put in place."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edge.bundle import (
    CLASSIFIER,
    ENCODER,
    WEIGHTS,
    WINDOW,
    Graphs,
    Manifest,
    is_bundle,
    load_bundle,
    write_head,
    write_manifest,
)
from edge.errors import UsageError
from edge.head import Head
from edge.labels import EMOTIONS
from export.graphs import (
    classifier_graph,
    encoder_graph,
    feature_size,
    state_shapes,
    window_graph,
    write_graph,
)
from export.parity import Parity, measure, require
from train.card import write_card
from train.checkpoint import Checkpoint, save_checkpoint
from train.model import POOL, EmotionNet
from train.run import frames_for_first


def export_bundle(checkpoint: Checkpoint, folder: Path, name: str, *, replace: bool = False) -> Parity:
    """Write a bundle, unless it would not do what the network does.

    Args:
        checkpoint: the trained model.
        folder: where the bundle shall be.
        name: what people call it.
        replace: whether a bundle that is there already may go.

    Returns:
        How far the graphs differ from the network.

    Raises:
        UsageError: the folder is in the way, or the network cannot be streamed.
        VerificationError: the graphs differ from the network.
    """
    require_free(folder, replace=replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as partial:
        staged = Path(partial) / "bundle"
        staged.mkdir()
        _write(checkpoint, staged, name)
        parity = measure(checkpoint.net, load_bundle(staged))
        require(parity)
        if folder.exists():
            shutil.rmtree(folder)
        staged.replace(folder)
    return parity


def _write(checkpoint: Checkpoint, folder: Path, name: str) -> None:
    net = checkpoint.net
    write_graph(encoder_graph(net), folder / ENCODER)
    write_graph(classifier_graph(net), folder / CLASSIFIER)
    write_graph(window_graph(net), folder / WINDOW)
    write_head(folder, head_of(net, checkpoint.temperature), checkpoint.normalisation.statistics)
    save_checkpoint(folder / WEIGHTS, checkpoint)
    manifest = _manifest(checkpoint, name)
    write_card(folder, manifest)
    write_manifest(folder, manifest)


def head_of(net: EmotionNet, temperature: float | None) -> Head:
    """Take the layers after the embedding out of the network."""
    layers = {"fc1": net.meta.fc1, "fc2": net.meta.fc2, "fc3": net.transfer.fc3}
    arrays = {
        f"{name}_{kind}": getattr(layer, kind).detach().cpu().numpy().copy()
        for name, layer in layers.items()
        for kind in ("weight", "bias")
    }
    return Head(**arrays, temperature=temperature or 1.0)


def _manifest(checkpoint: Checkpoint, name: str) -> Manifest:
    arch, front_end = checkpoint.net.arch, checkpoint.front_end
    graphs = Graphs(
        state_shapes=state_shapes(arch),
        feature_size=feature_size(arch),
        embedding_size=2 * arch.hidden,
        frames_per_feature=POOL ** len(arch.kernels),
        frames_for_first=frames_for_first(arch),
        window_features=arch.features_in(front_end.window_frames),
    )
    corpora = checkpoint.training.get("corpora", [])
    return Manifest(
        name=name,
        emotions=EMOTIONS,
        front_end=front_end,
        levels=checkpoint.normalisation.levels,
        graphs=graphs,
        temperature_fitted=checkpoint.temperature is not None,
        licence=_weights_licence([corpus["licence"] for corpus in corpora]),
        training=checkpoint.training,
    )


def _weights_licence(licences: list[str]) -> str:
    """The most restrictive of the recordings' licences holds for weights learned from them."""
    if any("NC-SA" in licence for licence in licences):
        return "CC BY-NC-SA 4.0 (not for commercial use)"
    return "as the recordings it was trained on"


def require_free(folder: Path, *, replace: bool) -> None:
    """Check that a bundle may be written to a folder.

    Args:
        folder: where the bundle shall be.
        replace: whether a bundle that is there already may go.

    Raises:
        UsageError: something is there that may not go.
    """
    if not folder.exists():
        return
    if not is_bundle(folder):
        raise UsageError(f"{folder} exists and is not a bundle: name another folder")
    if not replace:
        raise UsageError(f"{folder} already holds a bundle: add --replace, or name another folder")
