"""Training, with torch: the model, MMTL and its baselines, corpora, evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint, load_checkpoint
    from train.corpora import Clip, read_corpus
    from train.mmtl import MetaRates, Samples, outer_gradient
    from train.model import Architecture, EmotionNet

__all__ = [
    "Architecture",
    "Checkpoint",
    "Clip",
    "EmotionNet",
    "MetaRates",
    "Samples",
    "load_checkpoint",
    "outer_gradient",
    "read_corpus",
]

_HOMES = {
    "Architecture": "model",
    "Checkpoint": "checkpoint",
    "Clip": "corpora",
    "EmotionNet": "model",
    "MetaRates": "mmtl",
    "Samples": "mmtl",
    "load_checkpoint": "checkpoint",
    "outer_gradient": "mmtl",
    "read_corpus": "corpora",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that corpora can be read without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
