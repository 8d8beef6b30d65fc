"""Golden windows: inputs with the network's outputs, by which a device checks its engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.numpy import save_file

from edge.features.network_input import network_input
from edge.system.files import atomic_write
from export.graphs import Network
from export.parity import TOLERANCE
from export.parity_audio import filling, shipped_sound, windows_of
from train.checkpoint import Checkpoint
from train.pretrained_net import PretrainedNet
from train.recurrent_net import RecurrentNet

COUNT: Final = 8


def write_golden(checkpoint: Checkpoint, path: Path) -> None:
    """Write windows of the sound that ships, with the network's embedding and logits of each.

    Tensors, float32: frames (B, T, F), embedding (B, D), logits (B, C). As metadata "mmtl", JSON: the
    largest difference in logits that passes, by precision.
    """
    normalisation, net = checkpoint.normalisation, checkpoint.net.eval()
    samples = filling(shipped_sound(), checkpoint.front_end)
    normaliser = network_input(checkpoint.front_end, normalisation.levels, normalisation.statistics)
    windows = windows_of(samples, checkpoint.front_end, normaliser)
    frames = windows[np.linspace(0, len(windows) - 1, COUNT).round().astype(int)]
    assert not isinstance(net, RecurrentNet), "it has no graph of whole windows"
    with torch.no_grad():
        embedding, logits = outputs(net, torch.from_numpy(frames))
    tensors = {"frames": frames, "embedding": embedding.numpy(), "logits": logits.numpy()}
    with atomic_write(path) as partial:
        save_file(tensors, partial, {"mmtl": json.dumps({"tolerance": TOLERANCE})})


def outputs(net: Network, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Map (B, T, F) frames to the embedding (B, D) and the logits (B, C) for baseline 0."""
    if isinstance(net, PretrainedNet):
        return net.embedding(frames), net(frames)
    embedding = net.meta.embedding(net.meta.features(frames))
    return embedding, net.transfer(net.meta.classify(embedding))
