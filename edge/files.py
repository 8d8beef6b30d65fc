"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.errors import UsageError

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to, and put it in place once it is complete.

    An error inside leaves `path` as it was and no temporary file behind.

    Args:
        path: where the file shall be; its folder is made.
        mode: permissions of the file.

    Raises:
        UsageError: the folder cannot be written or has no room, or the path is a folder, a device or a pipe.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # root would put a file in its place
        raise UsageError(f"cannot write {path}: it is a device or a pipe; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(mode)
        _put_in_place(partial, path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _unwritable(path, error) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def half_written(path: Path) -> list[Path]:
    """List what `replacing` has left beside a path where the program was killed or the power lost."""
    # What tempfile puts between them holds no dot; a longer name of somebody else's would.
    ours = re.compile(rf"\.{re.escape(path.name)}\.[^.]+{re.escape(path.suffix)}")
    return [item for item in path.parent.glob(".*") if ours.fullmatch(item.name)]


def require_writable(folder: Path, mode: int = 0o777) -> None:
    """Check that files can be made in a folder, before it matters.

    Args:
        folder: made, if it is not there.
        mode: permissions of the folder if it is made.

    Raises:
        UsageError: they cannot.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; choose a folder you may write to"
        ) from error


def may_write(folder: Path) -> bool:
    """Tell whether a folder could be written to, without making it where it is not there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _put_in_place(partial: Path, path: Path) -> None:
    try:
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    """Say why a file cannot be written, and what to do."""
    return UsageError(
        f"cannot write {path}: {error.strerror or error}; make room, or choose a folder you may write to"
    )
