"""Sinks of events: JSON Lines for programs, CSV rows for tables, plain lines for logs and plain terminals.

The live monitor, in `edge.output.monitor`, is another sink.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from edge.errors import MmtlError, SoundWarning, UsageError
from edge.events import Event, Session, StreamWarning, Window, to_json
from edge.output.convert import csv_header, csv_line, row_of
from edge.output.text import describe, printable
from edge.system.outputs import Existing, OutputFile
from edge.system.standard_streams import silence


class ReaderGone(Exception):  # noqa: N818 - not an error
    """The reader of the output has gone (`mmtl run ... | head -1`): stop without a message, with exit code 0.

    The broken stream is redirected to the null device before this is raised, so that Python's flush at exit
    does not fail.
    """


class Sink:
    """Ignores all events; sinks override what they need."""

    def emit(self, event: Event) -> None:
        """Take the next event."""

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        """Take, after each block of sound, the duration heard so far (s) and the block's RMS level (dBFS)."""

    def close(self) -> None:
        """Release what the sink holds; closing twice does no harm."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Lines(Sink):
    """Writes lines to a file or stdout, and flushes each one, so that readers can follow a growing file.

    Args:
        target: "-" for stdout, else the path of a file.
        existing: what to do with a file that is not empty. A file is replaced with the first line only, so
            that nothing is lost if the source cannot be opened.

    Raises:
        UsageError: the target cannot be opened, is in use, or is not empty and may not be changed.
        MmtlError: while emitting, the target cannot be written to.
        ReaderGone: while emitting, the reader of a pipe went away.
    """

    def __init__(self, target: str, existing: Existing = "refuse") -> None:
        self.name = "stdout" if target == "-" else printable(target)
        self._file = None if target == "-" else OutputFile(target, existing)
        self._stream = self._file.stream if self._file else standard_output()

    @property
    def first_line(self) -> str:
        """First line of the content that is kept; empty without one."""
        return self._file.first_line if self._file else ""

    def write(self, line: str) -> None:
        """Write a line."""
        try:
            if self._file:
                self._file.begin()
        except OSError as error:
            raise unwritable(self.name, error) from error
        _write_line(self._stream, line, self.name)

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if not self._file:
            return
        try:
            self._stream.close()
        except OSError as error:
            raise unwritable(self.name, error) from error


class JsonLines(_Lines):
    """Writes each event as a line of JSON, to a file or to stdout ("-")."""

    def emit(self, event: Event) -> None:
        """Write the event as one line."""
        self.write(to_json(event))


class CsvRows(_Lines):
    """Writes each window as a row, to a file or to stdout ("-"), in the format of `mmtl convert`.

    The session event writes the header, unless the file has one. Remembers its emotions, which are columns.
    """

    def __init__(self, target: str, existing: Existing = "refuse") -> None:
        super().__init__(target, existing)
        self._emotions: tuple[str, ...] = ()

    def emit(self, event: Event) -> None:
        """Write the header of a session, or the row of a window."""
        if isinstance(event, Session):
            self._emotions = event.emotions
            self._write_header(csv_header(self._emotions))
        if isinstance(event, Window):
            self.write(csv_line(row_of(event), self._emotions))

    def _write_header(self, header: str) -> None:
        if not self.first_line:
            self.write(header)
        elif self.first_line != header:
            raise UsageError(
                f"{self.name} begins with other columns, expected {header}", remedy="name another file"
            )


class PlainLines(Sink):
    """Writes a short line for each change: for pipes, logs and terminals without colour.

    Remembers the last label written, so that a label is written only when it changes.

    Args:
        stream: flushed after each line, never closed.
        report: takes the message if the stream cannot be written to, where other outputs go on; None: that
            is an error.
    """

    def __init__(self, stream: TextIO, report: Callable[[str], None] | None = None) -> None:
        self._stream = stream
        self._report = report
        self._name = printable(str(getattr(stream, "name", "output"))).strip("<>")
        self._label = ""
        self._percentages = False

    def emit(self, event: Event) -> None:
        """Write the event's line; a window only has one if the label has changed."""
        if isinstance(event, Session):
            self._percentages = event.temperature_fitted
        if isinstance(event, Window):
            if not event.speech or event.label == self._label:
                return
            self._label = event.label
        try:
            _write_line(self._stream, describe(event, self._percentages), self._name)
        except MmtlError as error:  # the stream is redirected to the null device from here on
            if self._report is None:
                raise
            self._report(str(error))


class ProviderNote(Sink):
    """Reports the provider that runs the model, and why, when the session starts.

    Args:
        say: takes the line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def emit(self, event: Event) -> None:
        """Report with the session event."""
        if isinstance(event, Session):
            self._say(printable(f"runs on {event.provider}: {event.provider_reason}"))


class WarningNote(Sink):
    """Reports warnings about the sound on stderr, if stdout has no lines for people.

    Args:
        say: takes the line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def emit(self, event: Event) -> None:
        """Report a warning event."""
        if isinstance(event, StreamWarning):
            self._say(describe(event, percentages=False))


def write_text(text: str) -> None:
    """Write a command's result to stdout.

    Raises:
        UsageError: stdout is closed.
        MmtlError: stdout cannot be written to.
        ReaderGone: the reader of a pipe has gone.
    """
    _write_line(standard_output(), text.removesuffix("\n"), "stdout")


def say(message: str) -> None:
    """Write a line for people to stderr."""
    line = printable(" ".join(line.strip() for line in message.splitlines()))
    sys.stderr.write(f"mmtl: {line}\n")  # a progress bar stays below it
    sys.stderr.flush()


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning about sound as one line; any other with its source line, as Python does."""
    ours = issubclass(category, SoundWarning)
    say(f"warning: {message}" if ours else warnings.formatwarning(message, category, filename, lineno, line))


def standard_output() -> TextIO:
    """Return stdout.

    Raises:
        UsageError: it is closed.
    """
    if sys.stdout is None:
        raise UsageError("stdout is closed", remedy="name a file instead of -")
    return sys.stdout


def _write_line(stream: TextIO, line: str, name: str) -> None:
    if not line:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        silence(stream)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone(f"the reader of {name} has gone") from error
        raise unwritable(name, error) from error


def unwritable(name: str, error: OSError) -> MmtlError:
    """Return the error of an open file or stream that can no longer be written to."""
    reason = error.strerror or error
    return MmtlError(f"cannot write to {name} ({reason})", remedy="free some space, or name another file")
