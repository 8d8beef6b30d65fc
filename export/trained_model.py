"""What an export starts from: the checkpoint of a run, or a bundle, which holds one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import ModelError
from edge.model.bundle import is_bundle, load_bundle
from edge.model.manifest import WEIGHTS
from edge.system.files import read_text
from train.card_scores import HELD_OUT
from train.checkpoint import Checkpoint, load_checkpoint
from train.run_folder import RunFolder


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
        return TrainedModel(load_checkpoint(path), metrics=_held_out_scores(path))
    if not is_bundle(path):
        raise ModelError(
            f"{path} is a folder without a model",
            remedy="name the best.safetensors of a run folder, or the folder of a bundle",
        )
    manifest = load_bundle(path).manifest
    return TrainedModel(load_checkpoint(path / WEIGHTS), manifest.name, manifest.metrics)


def _held_out_scores(checkpoint: Path) -> dict[str, Any]:
    """Read the scores on held-out speakers that a run wrote beside its checkpoint; empty without a run."""
    run = RunFolder(checkpoint.parent)
    if checkpoint != run.best or not run.scores.is_file():
        return {}
    try:
        scores = json.loads(read_text(run.scores))
        return {name: scores[name] for name in HELD_OUT if name in scores}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{run.scores} is damaged", remedy="copy it again, or move the checkpoint to another folder"
        ) from error
