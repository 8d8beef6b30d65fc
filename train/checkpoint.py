"""A trained model as one safetensors file: weights, normalisation and, as metadata, its training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypeVar

from edge.bounds import build, one_line, shown, within
from edge.errors import ModelError
from edge.features.frontend import FrontEnd
from edge.features.log_mel import has_mel_bands
from edge.features.normaliser import BinStatistics, GainConfig
from edge.model.head import TEMPERATURES
from edge.system.files import atomic_write
from train.model import Architecture, EmotionNet
from train.pretrained_net import PretrainedArchitecture, PretrainedNet
from train.recurrent_net import RecurrentArchitecture, RecurrentNet
from train.segments import Normalisation
from train.whisper_encoder import HEAD_SIZE

CHECKPOINT_VERSION = 1

HALF_PRECISION: Final = ("encoder.", "head.meta.fc1.weight")
"""Starts of the names of tensors that may be in float16: a pretrained encoder's, which were published so, and
FC 1 of joined heads."""

LEAST_EMBEDDING_STD: Final = 1e-6
"""Smallest standard deviation of an embedding's value over the training windows."""

Network = EmotionNet | PretrainedNet | RecurrentNet

AnyArchitecture = Architecture | PretrainedArchitecture | RecurrentArchitecture

Net_co = TypeVar("Net_co", bound=Network, default=Network, covariant=True)


@dataclass(frozen=True)
class Checkpoint(Generic[Net_co]):
    """Everything that inference needs, and the record of the training."""

    net: Net_co
    front_end: FrontEnd
    normalisation: Normalisation
    training: dict[str, Any]
    """Options, corpora, speakers, scores: plain JSON."""
    temperature: float | None = None
    """Fitted on speakers that the network was not trained on; None if not fitted."""


@dataclass(frozen=True)
class _Fitted:
    """Values fitted after the training."""

    temperature: float | None = field(metadata=within(*TEMPERATURES))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    `HALF_PRECISION` tensors are stored in float16 where that is exact, and read back as float32.
    """
    statistics = checkpoint.normalisation.statistics
    weights = checkpoint.net.state_dict()
    tensors = {name: _stored(name, tensor.detach().cpu()) for name, tensor in weights.items()}
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
    """Read a checkpoint of any kind of network onto the CPU, in evaluation mode.

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
        _require_same_input(arch, front_end, statistics)
        _require_usable(arch, tensors)
        net = _network(arch)
        net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
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


def load_cnn_lstm(path: Path) -> Checkpoint[EmotionNet]:
    """Read a checkpoint of a CNN-LSTM.

    Raises:
        ModelError: as `load_checkpoint`, or the network is on a pretrained encoder.
    """
    found = load_checkpoint(path)
    if isinstance(found.net, EmotionNet):
        return cast("Checkpoint[EmotionNet]", found)
    kind = "recurrent" if isinstance(found.net, RecurrentNet) else "pretrained"
    raise ModelError(
        f"{path} holds a network on a {kind} encoder, and a CNN-LSTM is needed here",
        remedy="give the checkpoint of a run without --encoder",
    )


def load_pretrained(path: Path) -> Checkpoint[PretrainedNet]:
    """Read a checkpoint of a network on a pretrained encoder.

    Raises:
        ModelError: as `load_checkpoint`, or the network is of another kind.
    """
    found = load_checkpoint(path)
    if isinstance(found.net, PretrainedNet):
        return cast("Checkpoint[PretrainedNet]", found)
    kind = "network on a recurrent encoder" if isinstance(found.net, RecurrentNet) else "CNN-LSTM"
    raise ModelError(
        f"{path} holds a {kind}, and a network on a pretrained encoder is needed here",
        remedy="give the checkpoint of a run with --encoder",
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


def _architecture(described: dict[str, Any]) -> AnyArchitecture:
    """Build the architecture; a CNN-LSTM alone has channels, a recurrent encoder alone has units."""
    if "units" in described:
        return build(RecurrentArchitecture, described)
    if "channels" not in described:
        arch = build(PretrainedArchitecture, described)
        if arch.width % HEAD_SIZE:
            raise ValueError(f"a width of {arch.width} is not a multiple of {HEAD_SIZE}")
        return arch
    sizes = {
        "channels": tuple(described["channels"]),
        "kernels": tuple(tuple(kernel) for kernel in described["kernels"]),
    }
    return build(Architecture, described | sizes)


def _network(arch: AnyArchitecture) -> Network:
    match arch:
        case Architecture():
            return EmotionNet(arch)
        case PretrainedArchitecture():
            return PretrainedNet(arch)
        case RecurrentArchitecture():
            return RecurrentNet(arch)


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{shown(value)} arrived, expected a table")
    return value


def _require_same_input(arch: AnyArchitecture, front_end: FrontEnd, statistics: BinStatistics) -> None:
    """Check that the front-end makes the frames that the network reads."""
    if not isinstance(arch, Architecture):
        wanted = "log_mel" if isinstance(arch, PretrainedArchitecture) else "mel_power"
        if front_end.spectrum != wanted or not has_mel_bands(front_end):
            raise ValueError("the front-end does not make the mel bands that a pretrained encoder reads")
        if len(statistics.mean) != front_end.frame_size:
            raise ValueError(
                f"there are statistics of {len(statistics.mean)} values, not of {front_end.frame_size} mel "
                "bands"
            )
    elif front_end.spectrum != "linear":
        raise ValueError("the front-end makes mel bands, which a CNN-LSTM does not read")


def _require_usable(arch: AnyArchitecture, tensors: dict[str, Tensor]) -> None:
    """Check shape, type and values of the tensors before memory is allocated for the architecture."""
    with torch.device("meta"):
        expected = _network(arch).state_dict()
    for name, tensor in expected.items():
        found = tensors.get(name)
        half = name.startswith(HALF_PRECISION) and found is not None and found.dtype == torch.float16
        kind = torch.float16 if half else tensor.dtype
        if found is None or (found.shape, found.dtype) != (tensor.shape, kind):
            what = "missing" if found is None else f"{tuple(found.shape)} of {found.dtype}"
            raise ValueError(f"{name} is {what}, expected {tuple(tensor.shape)} of {kind}")
        if not found.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite: train again")
    if "embedding_std" in expected and float(tensors["embedding_std"].min()) < LEAST_EMBEDDING_STD:
        raise ValueError(f"embedding_std holds a number below {LEAST_EMBEDDING_STD}")


def _stored(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of `HALF_PRECISION` in float16 if that is exact, and any other as it is."""
    if not name.startswith(HALF_PRECISION):
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return row-major tensors, which safetensors requires; channels_last ones are not."""
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
