"""Reads the file of a published, pretrained encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edge.errors import ModelError


def read_encoder_file(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Raises:
        ModelError: the file is missing, or is damaged.
    """
    if not path.is_file():
        raise ModelError(
            f"there is no pretrained encoder {path}", remedy="give the path of its .safetensors file"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or not a safetensors file ({error})", remedy=remedy) from error


def filled(
    make: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor],
    stored: Callable[[str], str],
    path: Path,
    remedy: str,
) -> dict[str, Tensor]:
    """Return the float32 state of a module from a file's tensors.

    Args:
        make: makes the module; called without memory, before the file is known to fill it.
        tensors: of the file.
        stored: the name in the file of each tensor of the module.
        path: of the file, for messages.
        remedy: what to do about another file.

    Raises:
        ModelError: a tensor is missing, has another shape, or holds numbers that are not finite.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in make().state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        found = tensors.get(stored(name))
        if found is None or found.shape != shape:
            what = "nothing" if found is None else tuple(found.shape)
            raise ModelError(f"{path}: {stored(name)} should be {tuple(shape)} and is {what}", remedy=remedy)
        if not torch.isfinite(found).all():
            raise ModelError(f"{path}: {stored(name)} holds numbers that are not finite", remedy=remedy)
        state[name] = found.float()
    return state
