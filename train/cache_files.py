"""Files of a cache: values as .npy, and a .json index that says what they were computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.system.files import atomic_write
from train.corpora import Clip


def identity(clip: Clip) -> str:
    """Name a recording and its state; the speaker counts, whose channel it is heard through."""
    path = clip.path.resolve()
    state = path.stat()
    return f"{path}\t{state.st_size}\t{state.st_mtime_ns}\t{clip.corpus}/{clip.speaker}\n"


def digest(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of bytes in pieces."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def read_index(path: Path) -> dict[str, Any] | None:
    """Read an index; None if it is missing or damaged."""
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return index if isinstance(index, dict) else None


def write_values(path: Path, values: NDArray[np.float16]) -> None:
    """Write values atomically, without pickle."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def write_index(path: Path, index: dict[str, Any]) -> None:
    """Write an index atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(index), "utf-8")
