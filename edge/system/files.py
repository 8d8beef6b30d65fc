"""Atomic writing of files and folders, file locks, and reading text in its usual encodings."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.errors import UsageError

PRIVATE: Final = 0o600
"""Mode of files with personal data: logs, tables, pictures, recordings and profiles."""

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WORKSPACE: Final = re.compile(r"\.(?P<target>.+)\.mmtl-[a-z0-9_]{8}")
"""Name of the temporary folder in which a file or folder is written before it is moved into place."""
_LONGEST_NAME: Final = 200
"""Bytes of the target's name in the workspace's: a file name has at most 255."""
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextlib.contextmanager
def atomic_write(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Write a file atomically: yield a temporary file, and move it to `path` once it is complete.

    An error inside leaves `path` unchanged and removes the temporary file. Temporary files that killed
    programs left beside `path` are removed first.

    Args:
        path: of the file; its folder is created.
        mode: permissions of the file.

    Raises:
        UsageError: the folder cannot be written or has no room, or the path is a folder, a device or a pipe.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # root would put a file in its place
        raise UsageError(f"cannot write {path}, which is a device or a pipe", remedy="name a file")
    with _workspace(path) as folder:
        partial = folder / path.name
        try:
            partial.touch()
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.chmod(mode)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _write_error(path, error) from error
            raise
        _put_in_place(partial, path)


@contextlib.contextmanager
def atomic_write_folder(folder: Path, mode: int | None = None) -> Iterator[Path]:
    """Write a folder atomically: yield a path to create it at, and move it to `folder` once it is complete.

    An error inside leaves `folder` unchanged and removes the new one.

    Args:
        folder: of the result; its parent is created.
        mode: permissions of the folder; those it was created with, if None.

    Raises:
        UsageError: it cannot be written existing, or existing is no room.
    """
    try:
        with _workspace(folder) as work:
            staged = work / "new"
            yield staged
            if mode is not None:
                staged.chmod(mode)
            if folder.exists():
                folder.replace(work / "old")  # deleting it first would leave a longer gap than two moves
            staged.replace(folder)
    except OSError as error:
        raise _write_error(folder, error) from error


def leftovers_of(path: Path) -> list[Path]:
    """List what killed programs left of `path`: folders of `atomic_write`, and files of older versions."""
    # The suffix of tempfile holds no dot; another file with a longer name would.
    name, suffix = re.escape(path.name), re.escape(path.suffix)
    ours = re.compile(rf"\.{name}\.(mmtl-[a-z0-9_]{{8}}|[^.]+{suffix})")
    return [item for item in path.parent.glob(".*") if ours.fullmatch(item.name)]


def remove_leftovers(folder: Path) -> None:
    """Remove temporary folders that killed programs or a power cut left in a folder.

    Only this user's folders of `atomic_write` and `atomic_write_folder` that are not locked are removed: a
    running program locks its own. Where the old folder was already moved away, the new one is moved into
    place. On a file system without locks nothing is removed.
    """
    with contextlib.suppress(OSError):  # not readable, or removed by another program
        for path in [item for item in folder.iterdir() if _target_of(item)]:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid() and try_lock(descriptor):
                    _finish_or_remove(path, path.with_name(_target_of(path)))
            finally:
                os.close(descriptor)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder; the system releases the lock when it is closed or the program ends.

    Returns:
        True if locked; False if another program holds the lock; None where locks are not supported.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX system
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def is_same_file(path: Path, descriptor: int) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def require_writable(folder: Path, mode: int = 0o777) -> None:
    """Check in advance that files can be created in a folder.

    Args:
        folder: created if it does not exist.
        mode: permissions of a new folder.

    Raises:
        UsageError: the folder is not writable.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror})", remedy="choose a folder you may write to"
        ) from error


def is_writable(folder: Path) -> bool:
    """Tell whether a folder is writable or could be created, without creating it."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; False for an invalid or inaccessible path."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, with a NUL, or in a folder that may not be entered
        return False


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in the encoding of its byte order mark.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it has another encoding.
    """
    data = path.read_bytes()
    return data.decode(encoding_of(data))


def encoding_of(data: bytes) -> str:
    """Name the encoding of a text by its byte order mark; UTF-8 without one."""
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")


@contextlib.contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """Create a locked folder beside `path`, for this user only, and remove it at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        folder, descriptor = _locked_folder(path)
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        yield folder
    finally:
        _finish_or_remove(folder, path)
        os.close(descriptor)


def _locked_folder(path: Path) -> tuple[Path, int]:
    start = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{start}.mmtl-"))
        with contextlib.suppress(FileNotFoundError):  # another program has just taken it for a leftover
            descriptor = os.open(folder, os.O_RDONLY)
            if try_lock(descriptor) is not False and is_same_file(folder, descriptor):
                return folder, descriptor
            os.close(descriptor)


def _target_of(workspace: Path) -> str:
    """Return the name of a workspace's target; empty for any other path."""
    found = _WORKSPACE.fullmatch(workspace.name)
    return found["target"] if found else ""


def _finish_or_remove(workspace: Path, target: Path) -> None:
    """Move the new folder into place if the old one was already moved away; remove the workspace."""
    if (workspace / "old").is_dir() and (workspace / "new").is_dir() and not os.path.lexists(target):
        (workspace / "new").replace(target)
    shutil.rmtree(workspace, ignore_errors=True)


def _put_in_place(partial: Path, path: Path) -> None:
    try:
        partial.replace(path)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> UsageError:
    """Return the error for a path that cannot be written."""
    return UsageError(
        f"cannot write {path} ({error.strerror or error})",
        remedy="make room, or choose a folder you may write to",
    )
