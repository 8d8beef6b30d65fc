"""Output files: never an input or another output, and never an existing file unless asked to replace it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TextIO

from edge.errors import MmtlError, UsageError
from edge.system.files import PRIVATE, atomic_write, try_lock

Existing = Literal["refuse", "replace", "append"]
"""Policy for an existing file that is not empty."""

_DESCRIPTOR: Final = re.compile(
    r"/dev/(?P<name>stdin|stdout|stderr)|(/dev|/proc/self)/fd/(?P<number>[0-9]{1,9})"
)
_STANDARD: Final = {"stdin": 0, "stdout": 1, "stderr": 2}


def require_distinct_files(
    outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path | None]
) -> None:
    """Check that no output is an input or another output, under any name or link.

    Devices and pipes may be named more than once.

    Args:
        outputs: path by option; "-" is stdout, None is no output. A folder includes all files in it.
        inputs: paths; "-" is stdin, None is no input.

    Raises:
        UsageError: two of them are the same file, or an output's name is empty.
    """
    options: dict[Hashable, str] = {}
    folders: dict[Path, str] = {}
    for option, output in outputs.items():
        if output == "":
            raise UsageError(f"{option} names nothing", remedy="name a file, or - for stdout")
        key = None if output is None else _identity(output, dash=1)
        if key is None:
            continue
        if key in options:
            first = options[key]
            raise UsageError(
                f"{first} and {option} both name {outputs[first]}", remedy="give each its own file"
            )
        options[key] = option
        if _is_folder(output):
            folders[_resolved(output)] = option
    for path in _files_of(inputs):
        above = [folders[folder] for folder in _resolved(path).parents if folder in folders]
        key = _identity(path, dash=0)
        if key in options or above:
            option = options.get(key) or above[0]
            raise UsageError(
                f"{option} would overwrite {path}, which is an input", remedy="name another file or folder"
            )


def require_free(path: Path, *, replace: bool) -> None:
    """Check that writing to a path loses no file.

    Raises:
        UsageError: the path is a file that is not empty, a folder or a broken link, and `replace` is off; or
            another `mmtl` is writing to the file.
    """
    if os.path.lexists(path) and not replace and not _is_empty(path):
        raise UsageError(f"there is {path} already", remedy="give --replace to overwrite it, or another name")
    if _is_in_use(path):
        raise _in_use(path)


def require_free_folder(folder: Path, kind: str, *, ours: Callable[[Path], bool], replace: bool) -> None:
    """Check that a folder may be written: it is not there, or holds what is to be replaced.

    Args:
        folder: where.
        kind: what is written, with its article, such as "a bundle".
        ours: tells whether a folder holds such a thing; any other folder is never replaced.
        replace: whether one that is there may go.

    Raises:
        UsageError: something is there that may not go.
    """
    if not folder.exists():
        return
    if not ours(folder):
        raise UsageError(f"{folder} exists and is not {kind}", remedy="name another folder")
    if not replace:
        raise UsageError(f"{folder} already holds {kind}", remedy="add --replace, or name another folder")


def write_atomically(path: Path, text: str, *, replace: bool) -> None:
    """Write a text atomically to a file that only its owner may read; to a device or pipe directly.

    Args:
        path: of the output; a link is kept, and its target is replaced.
        text: written in UTF-8.
        replace: whether a file that is not empty may be replaced.

    Raises:
        UsageError: such a file is there and may not be replaced, or the path cannot be written to.
        MmtlError: writing to the device or pipe failed.
    """
    found = _stat(path)
    if _descriptor(path) is not None or (found and not stat.S_ISREG(found.st_mode) and not _is_folder(path)):
        _write_through(path, text)
        return
    target = _resolved(path)
    require_free(target, replace=replace)
    with atomic_write(target, PRIVATE) as partial:
        partial.write_text(text, "utf-8", newline="\n")


def is_stdout(path: str | None) -> bool:
    """Tell whether an output is stdout: "-", or its path in /dev or /proc."""
    return path is not None and (path == "-" or _descriptor(path) == _STANDARD["stdout"])


def existing_policy(*, replace: bool, append: bool) -> Existing:
    """Return the policy that --replace and --append ask for.

    Raises:
        UsageError: both are given.
    """
    if replace and append:
        raise UsageError("--replace and --append do not go together", remedy="leave one of them out")
    return "replace" if replace else "append" if append else "refuse"


class OutputFile:
    """A locked UTF-8 file to which lines are appended.

    A new file can be read by its owner only. An existing file keeps its content until `begin`. Devices and
    pipes are opened without a lock, and so are /dev/stdout and the like, even if they lead to files.
    """

    def __init__(self, path: str, existing: Existing = "refuse") -> None:
        """Open a file.

        Args:
            path: of the file.
            existing: policy for a file that is not empty.

        Raises:
            UsageError: it cannot be opened, is in use, or is not empty and may not be changed.
        """
        self.first_line = ""
        """First line of the existing content, without the line end; empty if there is none."""
        self._existing = existing
        self._unfinished = False
        try:
            descriptor = _open(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"cannot write events to {path} ({reason})", remedy="name a file in a folder you may write to"
            ) from error
        self.stream: TextIO = os.fdopen(descriptor, "w", encoding="utf-8", newline="\n")
        self._old = _descriptor(path) is None and stat.S_ISREG(os.fstat(descriptor).st_mode)
        if self._old:
            self._claim(path)

    def begin(self) -> None:
        """Prepare for the first line: truncate a file to be replaced, or end an incomplete last line."""
        if not self._old:
            return
        self._old = False
        if self._existing == "replace":
            self.stream.truncate(0)
            with contextlib.suppress(PermissionError):  # another user owns it and lets us write
                os.fchmod(self.stream.fileno(), PRIVATE)
        if self._unfinished:
            self.stream.write("\n")

    def _claim(self, path: str) -> None:
        """Lock the file; refuse it if it is in use or content would be lost."""
        descriptor = self.stream.fileno()
        refusal = None
        if try_lock(descriptor) is False:
            refusal = _in_use(path)
        elif os.fstat(descriptor).st_size and self._existing == "refuse":
            refusal = UsageError(
                f"there is {path} already, and it is not empty",
                remedy="give --replace to overwrite it, --append to add to it, or another name",
            )
        elif os.fstat(descriptor).st_size and self._existing == "append":
            self._read_ends(path)
        if refusal:
            self.stream.close()
            raise refusal

    def _read_ends(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self.first_line = file.readline().decode("utf-8", "replace").rstrip("\r\n")
            file.seek(-1, os.SEEK_END)
            self._unfinished = file.read() != b"\n"


def _write_through(path: Path, text: str) -> None:
    output = OutputFile(str(path))
    try:
        with output.stream:
            output.stream.write(text)
    except OSError as error:
        raise MmtlError(
            f"cannot write to {path} ({error.strerror or error})", remedy="write elsewhere"
        ) from error


def _open(path: str) -> int:
    number = _descriptor(path)
    if number is not None:
        return os.dup(number)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)


def _files_of(inputs: Iterable[str | Path | None]) -> Iterator[str | Path]:
    """Yield the inputs; for a folder, its files and those in its subfolders."""
    for path in inputs:
        if _is_folder(path):
            yield from (*Path(str(path)).glob("*"), *Path(str(path)).glob("*/*"))
        elif path is not None:
            yield path


def _is_folder(path: object) -> bool:
    found = _stat(str(path))
    return found is not None and stat.S_ISDIR(found.st_mode)


def _stat(path: str | Path) -> os.stat_result | None:
    """Return the status of a path; None if nothing is there or the path is invalid."""
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None


def _identity(path: str | Path, dash: int) -> Hashable:
    """Return a key that is equal for all names and links of a file; None for a device or pipe.

    Args:
        path: may name a file that does not exist yet.
        dash: the descriptor that "-" stands for.
    """
    number = dash if str(path) == "-" else _descriptor(path)
    if number is None:
        found = _stat(path)
        if found is None:
            return _resolved(path)
    else:
        try:
            found = os.fstat(number)
        except OSError:  # it is closed
            return number
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        return found.st_dev, found.st_ino
    return number


def _resolved(path: object) -> Path:
    return Path(os.path.realpath(str(path)))  # Path.resolve fails on a cycle of links


def _descriptor(path: str | Path) -> int | None:
    """Return the descriptor behind a path such as /dev/stdout; None for other paths."""
    found = _DESCRIPTOR.fullmatch(str(path))
    if not found:
        return None
    return _STANDARD[found["name"]] if found["name"] else int(found["number"])


def _in_use(path: str | Path) -> UsageError:
    return UsageError(f"another program writes to {path}", remedy="end that one first, or name another file")


def _is_in_use(path: Path) -> bool:
    found = _stat(path)
    if found is None or not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return try_lock(descriptor) is False
    finally:
        os.close(descriptor)


def _is_empty(path: Path) -> bool:
    found = _stat(path)
    return found is not None and stat.S_ISREG(found.st_mode) and not found.st_size
