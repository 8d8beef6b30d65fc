"""Standard input, output and error: safe to write to wherever they lead, and free of C libraries' remarks."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

STDOUT: Final = "<stdout>"
"""The `filename` of an OSError that writing to standard output has raised."""


def secure() -> None:
    """Prepare the streams of a process, before it opens any file.

    A descriptor that was closed leads nowhere, so that no file gets its number and the messages that
    are meant for it. Whatever happens to stderr (closed, full, its reader or its terminal gone) raises
    nothing, and `quiet` does not silence what Python writes there. A character that an encoding lacks
    is replaced.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(_Stderr(os.dup(2), "w"), "<stderr>", sys.stderr, "backslashreplace")
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _opened(_Stdout(1, "w", closefd=False), STDOUT, sys.stdout, "replace")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what C libraries write to descriptor 2 off the terminal; may be nested, and used by any thread.

    Whatever matters of it comes back as an exception.
    """
    _STDERR.silence()
    try:
        yield
    finally:
        _STDERR.restore()


class _StderrDescriptor:
    """Descriptor 2, which leads nowhere while at least one caller wants it silent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers = 0
        self._kept = -1

    def silence(self) -> None:
        """Let it lead nowhere."""
        with self._lock:
            if self._callers == 0:
                _open_if_closed(2)
                self._kept = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            self._callers += 1

    def restore(self) -> None:
        """Let it lead where it did, unless another caller still wants it silent."""
        with self._lock:
            self._callers -= 1
            if self._callers == 0:
                os.dup2(self._kept, 2)
                os.close(self._kept)


_STDERR = _StderrDescriptor()


class _Stdout(io.FileIO):
    """Standard output, which marks the errors that are its own."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Stderr(io.FileIO):
    """Standard error, which loses what cannot be written."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _opened(file: io.FileIO, name: str, like: TextIO | None, errors: str) -> TextIO:
    """Return a text stream over a file, with the encoding of another stream."""
    file.name = name
    encoding = getattr(like, "encoding", None)
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=True)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere == descriptor:
            os.set_inheritable(nowhere, True)
        else:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
