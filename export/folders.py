"""Folders that are either whole or not there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.errors import UsageError


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a path beside `folder` to make the new one at, and put it in place once it is complete.

    An error inside leaves `folder` as it was and nothing else behind.

    Args:
        folder: where the new folder shall be; the folder above it is made.

    Raises:
        UsageError: it cannot be written there, or there is no room.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as partial:
            staged = Path(partial, "new")
            yield staged
            if folder.exists():
                folder.replace(Path(partial, "old"))  # to delete it first would take longer than two moves
            staged.replace(folder)
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}; make room, or choose a folder you may write to"
        ) from error
