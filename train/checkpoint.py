"""A trained model as one safetensors file: weights, normalisation and, as metadata, its training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edge.bounds import build, one_line, shown, within
from edge.errors import ModelError
from edge.features.frontend import FrontEnd
from edge.features.normaliser import BinStatistics, GainConfig
from edge.model.head import TEMPERATURES
from edge.system.files import atomic_write
from train.model import Architecture, EmotionNet
from train.segments import Normalisation

CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Everything that inference needs, and the record of the training."""

    net: EmotionNet
    front_end: FrontEnd
    normalisation: Normalisation
    training: dict[str, Any]
    """Options, corpora, speakers, scores: plain JSON."""
    temperature: float | None = None
    """Fitted on validation speakers; None if not fitted."""


@dataclass(frozen=True)
class _Fitted:
    """Values fitted after the training."""

    temperature: float | None = field(metadata=within(*TEMPERATURES))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    statistics = checkpoint.normalisation.statistics
    tensors = {name: tensor.detach().cpu() for name, tensor in checkpoint.net.state_dict().items()}
    tensors["statistics.mean"] = torch.from_numpy(statistics.mean)
    tensors["statistics.std"] = torch.from_numpy(statistics.std)
    described = {
        "checkpoint_version": CHECKPOINT_VERSION,
        "architecture": asdict(checkpoint.net.arch),
        "front_end": asdict(checkpoint.front_end),
        "levels": asdict(checkpoint.normalisation.levels),
        "temperature": checkpoint.temperature,
        "training": checkpoint.training,
    }
    with atomic_write(path) as partial:
        save_file(_contiguous(tensors), partial, {"mmtl": json.dumps(described)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged, of another version or architecture, or holds an invalid
            number.
    """
    described, tensors = _read(path)
    version = described.get("checkpoint_version")
    if version != CHECKPOINT_VERSION or type(version) is not int:
        raise ModelError(
            f"{path} is a checkpoint of version {shown(version)}, this program reads version "
            f"{CHECKPOINT_VERSION}",
            remedy="train again or use the program that wrote it",
        )
    try:
        statistics = BinStatistics.from_tensors(
            {f"statistics.{name}": tensors.pop(f"statistics.{name}").numpy() for name in ("mean", "std")}
        )
        arch, front_end = _architecture(described["architecture"]), build(FrontEnd, described["front_end"])
        _require_usable(arch, tensors)
        net = EmotionNet(arch)
        net.load_state_dict(tensors)
        levels, training = build(GainConfig, described["levels"]), _table(described["training"])
        temperature = build(_Fitted, {"temperature": described["temperature"]}).temperature
    except (ModelError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{path} does not describe a model of this program ({one_line(error)})",
            remedy="train again, or use the program that wrote it",
        ) from error
    return Checkpoint(
        net=net.eval(),
        front_end=front_end,
        normalisation=Normalisation(levels, statistics),
        training=training,
        temperature=temperature,
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}", remedy="give the best.safetensors of a run folder")
    try:
        with safe_open(path, "pt") as file:
            described = dict(json.loads((file.metadata() or {})["mmtl"]))
            return described, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not a checkpoint of mmtl, or is damaged ({one_line(error)})",
            remedy="give the best.safetensors of a run folder, or copy it again",
        ) from error


def _architecture(described: dict[str, Any]) -> Architecture:
    sizes = {
        "channels": tuple(described["channels"]),
        "kernels": tuple(tuple(kernel) for kernel in described["kernels"]),
    }
    return build(Architecture, described | sizes)


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{shown(value)} arrived, expected a table")
    return value


def _require_usable(arch: Architecture, tensors: dict[str, Tensor]) -> None:
    """Check shape, type and values of the tensors before memory is allocated for the architecture."""
    with torch.device("meta"):
        expected = EmotionNet(arch).state_dict()
    for name, tensor in expected.items():
        found = tensors.get(name)
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            what = "missing" if found is None else f"{tuple(found.shape)} of {found.dtype}"
            raise ValueError(f"{name} is {what}, expected {tuple(tensor.shape)} of {tensor.dtype}")
        if not found.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite: train again")


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return row-major tensors, which safetensors requires; channels_last ones are not."""
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
