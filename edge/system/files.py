"""Files and folders that are either whole or not there, and text in the encodings that people save it in."""

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
"""Mode of what is about a person: logs, tables, pictures, recordings and profiles."""

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WORKSPACE: Final = re.compile(r"\.(?P<target>.+)\.mmtl-[a-z0-9_]{8}")
"""Name of the temporary folder that something is written in before it is put in place."""
_LONGEST_NAME: Final = 200
"""Bytes of the target's name that go into it: a name has at most 255."""
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextlib.contextmanager
def atomic_write(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give a temporary file to write to, and put it in the place of `path` once it is complete.

    An error inside leaves `path` as it was and no temporary file behind. What killed programs have left
    beside `path` is removed first.

    Args:
        path: of the file; its folder is made.
        mode: permissions of the file.

    Raises:
        UsageError: the folder cannot be written or has no room, or the path is a folder, a device or a pipe.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # root would put a file in its place
        raise UsageError(f"cannot write {path}: it is a device or a pipe; name a file")
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
                raise _unwritable(path, error) from error
            raise
        _put_in_place(partial, path)


@contextlib.contextmanager
def atomic_write_folder(folder: Path, mode: int | None = None) -> Iterator[Path]:
    """Give a path to make a folder at, and put it in the place of `folder` once it is complete.

    An error inside leaves `folder` as it was and nothing else behind.

    Args:
        folder: of the result; the folder above it is made.
        mode: permissions of the folder; those that it was made with, if not given.

    Raises:
        UsageError: it cannot be written there, or there is no room.
    """
    try:
        with _workspace(folder) as work:
            staged = work / "new"
            yield staged
            if mode is not None:
                staged.chmod(mode)
            if folder.exists():
                folder.replace(work / "old")  # to delete it first would take longer than two moves
            staged.replace(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def leftovers_of(path: Path) -> list[Path]:
    """List what killed programs left of `path`: folders of `atomic_write`, and files of older versions."""
    # What tempfile adds holds no dot; a longer name of another file would.
    name, suffix = re.escape(path.name), re.escape(path.suffix)
    ours = re.compile(rf"\.{name}\.(mmtl-[a-z0-9_]{{8}}|[^.]+{suffix})")
    return [item for item in path.parent.glob(".*") if ours.fullmatch(item.name)]


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder what was being written to it when programs were killed or the power was lost.

    That is, this user's temporary folders of `atomic_write` and `atomic_write_folder` that are not locked: a
    program that runs has locked its own. A replaced folder that was already moved away is replaced to
    the end. Without locks in the file system nothing is removed.
    """
    with contextlib.suppress(OSError):  # not readable; or another program was faster
        for path in [item for item in folder.iterdir() if _target_of(item)]:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid() and try_lock(descriptor):
                    _finish_or_remove(path, path.with_name(_target_of(path)))
            finally:
                os.close(descriptor)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder; the system releases it when it is closed or the program ends.

    Returns:
        True; False if another program has locked it; None where there are no such locks.
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
    """Tell whether an open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


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


def is_writable(folder: Path) -> bool:
    """Tell whether a folder could be written to, without making it where it is not there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def is_file(path: Path) -> bool:
    """Tell whether a file is there; a path that cannot be, or be looked at, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, with a NUL, or in a folder that may not be entered
        return False


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in what its byte order mark says.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is something else.
    """
    data = path.read_bytes()
    return data.decode(encoding_of(data))


def encoding_of(data: bytes) -> str:
    """Name the encoding of a text by its byte order mark; UTF-8 without one."""
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")


@contextlib.contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """Make a locked folder beside `path`, for this user only, and remove it in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        folder, descriptor = _locked_folder(path)
    except OSError as error:
        raise _unwritable(path, error) from error
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
    """Return the name of what is written in a workspace; empty for any other path."""
    found = _WORKSPACE.fullmatch(workspace.name)
    return found["target"] if found else ""


def _finish_or_remove(workspace: Path, target: Path) -> None:
    """Put the new folder in place if the old one was already moved away; remove the workspace."""
    if (workspace / "old").is_dir() and (workspace / "new").is_dir() and not os.path.lexists(target):
        (workspace / "new").replace(target)
    shutil.rmtree(workspace, ignore_errors=True)


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
