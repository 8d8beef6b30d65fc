"""Standard input, output and error: safe to write to in any state, and free of C libraries' messages."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def make_robust() -> None:
    """Prepare the streams of a process, before it opens any file.

    A closed descriptor is opened on the null device, so that no file gets its number and the messages meant
    for it. A failure of stderr (closed, full, its reader or its terminal gone) raises nothing, and
    `native_stderr_silenced` does not silence what Python writes there. A character that an encoding lacks is
    replaced.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    if sys.stderr is sys.__stderr__:
        file, encoding = _file(os.dup(2), "<stderr>"), getattr(sys.stderr, "encoding", None)
        sys.stderr = _Stderr(file, encoding, "backslashreplace", line_buffering=True)
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        file, encoding = _file(1, "<stdout>"), getattr(sys.stdout, "encoding", None)
        sys.stdout = io.TextIOWrapper(file, encoding, "replace", line_buffering=True)


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Discard what C libraries write to descriptor 2; may be nested, and used by any thread.

    Their errors are reported as exceptions anyway.
    """
    _STDERR.silence()
    try:
        yield
    finally:
        _STDERR.restore()


def silence(stream: TextIO) -> None:
    """Redirect a stream to the null device: writing the rest of its buffer would fail again."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, descriptor)
        os.close(null_device)


class _StderrDescriptor:
    """Descriptor 2, redirected to the null device while at least one caller wants it silent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers = 0
        self._kept = -1

    def silence(self) -> None:
        """Redirect it to the null device."""
        with self._lock:
            if self._callers == 0:
                _open_if_closed(2)
                self._kept = os.dup(2)
                null_device = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null_device, 2)
                os.close(null_device)
            self._callers += 1

    def restore(self) -> None:
        """Restore its target, unless another caller still wants it silent."""
        with self._lock:
            self._callers -= 1
            if self._callers == 0:
                os.dup2(self._kept, 2)
                os.close(self._kept)


_STDERR = _StderrDescriptor()


class _Stderr(io.TextIOWrapper):
    """Standard error, redirected to the null device once it cannot be written to."""

    def write(self, text: str, /) -> int:
        with self._harmless():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._harmless():
            super().flush()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:  # a terminal that other programs share may be full for a moment
            pass
        except OSError:
            silence(self)


def _file(descriptor: int, name: str) -> io.BufferedWriter:
    file = io.FileIO(descriptor, "w", closefd=False)
    file.name = name
    return io.BufferedWriter(file)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        null_device = os.open(os.devnull, os.O_RDWR)
        if null_device == descriptor:
            os.set_inheritable(null_device, True)
        else:
            os.dup2(null_device, descriptor)
            os.close(null_device)
