"""Where events go: JSON Lines for programs, rows for tables, plain lines for logs and plain terminals.

The live monitor, in `edge.output.monitor`, is one more sink.
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


class ReaderGone(Exception):  # noqa: N818 - news, not an error
    """Whoever read our output has had enough (`mmtl run ... | head -1`): stop quietly, with exit code 0.

    The stream that broke already leads nowhere when this is raised, so Python's own flush at exit
    has nothing to complain about.
    """


class Sink:
    """Takes events and does nothing with them; sinks override what they need."""

    def emit(self, event: Event) -> None:
        """Take the next event."""

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        """Learn, after each block of sound, how much was heard (s) and its RMS level (dBFS)."""

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
    """Writes lines to a file or stdout, each one flushed: readers follow along while it grows.

    Args:
        target: "-" for stdout, else the path of a file.
        existing: what may become of a file that is not empty. What is to be replaced goes with the first
            line, so a source that cannot be opened costs nothing.

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
        """Of the file's content that is kept; empty where there is none."""
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
    """Writes each event as one JSON object a line, to a file or to stdout ("-")."""

    def emit(self, event: Event) -> None:
        """Write the event as one line."""
        self.write(to_json(event))


class CsvRows(_Lines):
    """Writes each window as a row, to a file or to stdout ("-"): what `mmtl convert` makes of the events.

    The session brings the header, unless it is there already. Remembers its emotions, which are the columns.
    """

    def __init__(self, target: str, existing: Existing = "refuse") -> None:
        super().__init__(target, existing)
        self._emotions: tuple[str, ...] = ()

    def emit(self, event: Event) -> None:
        """Write the header or a row, if the event brings one."""
        if isinstance(event, Session):
            self._emotions = event.emotions
            self._write_header(csv_header(self._emotions))
        if isinstance(event, Window):
            self.write(csv_line(row_of(event), self._emotions))

    def _write_header(self, header: str) -> None:
        if not self.first_line:
            self.write(header)
        elif self.first_line != header:
            raise UsageError(f"{self.name} begins with other columns, expected {header}: name another file")


class PlainLines(Sink):
    """Writes a short line whenever something changes: for pipes, logs and terminals without colour.

    Remembers the label shown last, so that a label is written when it changes and not again.

    Args:
        stream: where the lines go; it is flushed after each and never closed.
        report: takes the reason why the stream cannot be written to, where events go elsewhere too and
            nothing ends for that; None: it is an error.
    """

    def __init__(self, stream: TextIO, report: Callable[[str], None] | None = None) -> None:
        self._stream = stream
        self._report = report
        self._name = printable(str(getattr(stream, "name", "output"))).strip("<>")
        self._label = ""
        self._percentages = False

    def emit(self, event: Event) -> None:
        """Write a line if the event is news."""
        if isinstance(event, Session):
            self._percentages = event.temperature_fitted
        if isinstance(event, Window):
            if not event.speech or event.label == self._label:
                return
            self._label = event.label
        try:
            _write_line(self._stream, describe(event, self._percentages), self._name)
        except MmtlError as error:  # the stream leads nowhere from here on
            if self._report is None:
                raise
            self._report(str(error))


class ProviderNote(Sink):
    """Says what runs the model, and why, once the sound is there.

    Args:
        say: takes the line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def emit(self, event: Event) -> None:
        """Say it with the session."""
        if isinstance(event, Session):
            self._say(printable(f"runs on {event.provider}: {event.provider_reason}"))


class WarningNote(Sink):
    """Says on stderr what is doubtful about the sound, where stdout carries no lines for people.

    Args:
        say: takes the line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def emit(self, event: Event) -> None:
        """Say a warning."""
        if isinstance(event, StreamWarning):
            self._say(describe(event, percentages=False))


def write_text(text: str) -> None:
    """Write to stdout what a command has made.

    Raises:
        UsageError: stdout is closed.
        MmtlError: stdout cannot be written to.
        ReaderGone: whoever read it went away.
    """
    _write_line(standard_output(), text.removesuffix("\n"), "stdout")


def say(message: str) -> None:
    """Write a line for people to stderr."""
    line = printable(" ".join(line.strip() for line in message.splitlines()))
    sys.stderr.write(f"mmtl: {line}\n")  # which a progress bar keeps above itself
    sys.stderr.flush()


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning about sound in a line of its own; any other with its place, as Python does."""
    ours = issubclass(category, SoundWarning)
    say(f"warning: {message}" if ours else warnings.formatwarning(message, category, filename, lineno, line))


def standard_output() -> TextIO:
    """Return stdout.

    Raises:
        UsageError: it is closed.
    """
    if sys.stdout is None:
        raise UsageError("stdout is closed, events need somewhere to go: give a file instead of -")
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
            raise ReaderGone(f"nobody reads {name} any more") from error
        raise unwritable(name, error) from error


def unwritable(name: str, error: OSError) -> MmtlError:
    """Return what to say when a file or stream that was open cannot be written to."""
    reason = error.strerror or error
    return MmtlError(f"cannot go on writing to {name} ({reason}): make room there, or write elsewhere")
