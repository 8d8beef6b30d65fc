"""What an export starts from: the checkpoint of a run, or a bundle, which holds one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import ModelError
from edge.model.bundle import WEIGHTS, is_bundle, load_bundle
from train.checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, and what else is known of it."""

    checkpoint: Checkpoint
    name: str = ""
    """What people call it; empty: it has no name yet."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores by protocol and corpus, as a bundle's manifest has them."""


def read_model(path: Path) -> TrainedModel:
    """Read a checkpoint's file or a bundle's folder.

    Raises:
        ModelError: it is neither, or it is damaged.
    """
    if not path.is_dir():
        return TrainedModel(load_checkpoint(path))
    if not is_bundle(path):
        raise ModelError(
            f"{path} is a folder without a model",
            remedy="name the best.safetensors of a run folder, or the folder of a bundle",
        )
    manifest = load_bundle(path).manifest
    return TrainedModel(load_checkpoint(path / WEIGHTS), manifest.name, manifest.metrics)
