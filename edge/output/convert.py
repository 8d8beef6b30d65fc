"""Convert a log of events to tables and subtitles for other tools.

A log is written by `--jsonl`. RTTM, TextGrid and SRT have a segment for each utterance; CSV has a
row for each window. All functions but `lines_of` are pure: lines in, text out.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.errors import UsageError
from edge.events import EVENT_VERSION, Session, Summary, Utterance, Window, to_json
from edge.system.files import encoding_of

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Segment:
    """An utterance, in seconds of the stream."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Row:
    """A window, in seconds of the stream."""

    start_s: float
    end_s: float
    label: str
    speech: bool
    level_dbfs: float | None
    probs: dict[str, float | None]
    smoothed: dict[str, float | None]


@dataclass
class Log:
    """The fields of one session's log that the formats need."""

    source: str = ""
    emotions: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    """End of the stream, or of the last segment if the log is incomplete."""
    rows: list[Row] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


def read_log(
    lines: Iterable[str],
    name: str,
    *,
    session: int | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Log:
    """Read a session of a log; unknown event types and fields, and empty lines, are ignored.

    A truncated line at the end of a session, left by a program that was killed, is ignored with a warning.

    Args:
        lines: JSON Lines.
        name: of the log, for messages.
        session: which one, >= 1; None if the log has only one.
        warn: takes the warning about a truncated line.

    Raises:
        UsageError: a line is not an event of this version (the message has its number), there is no such
            session, or the log has several and `session` is None.
    """
    reader = _Reader(name, warn)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            reader.take(number, line)
    reader.ignore_torn()
    choose = f"choose one with --session 1 to {len(reader.logs)}"
    if session is None and len(reader.logs) > 1:
        raise UsageError(f"{name} holds {len(reader.logs)} sessions", remedy=choose)
    if session is not None and session > len(reader.logs):
        raise UsageError(f"{name} has no session {session}", remedy=choose)
    return reader.logs[(session or 1) - 1]


class _Reader:
    """Reads events into one log per session.

    Remembers a line that may be truncated, until it is known whether it is the last of its session.
    """

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self.logs = [Log()]
        self._name, self._warn = name, warn
        self._begun = False
        self._torn: tuple[int, UsageError] | None = None

    def take(self, number: int, line: str) -> None:
        """Take a line that is not empty."""
        try:
            self._take(line)
        except _BadLineError as error:
            bad = UsageError(
                f"{self._name}, line {number}: {error}, expected a log that mmtl run --jsonl wrote",
                remedy="correct or remove the line",
            )
            if self._torn or not self._begun or not isinstance(error, _TornLineError):
                raise self._torn[1] if self._torn else bad from error
            self._torn = number, bad

    def ignore_torn(self) -> None:
        """Warn that a truncated line is ignored, if there is one."""
        if self._torn:
            number, _ = self._torn
            self._warn(f"{self._name}, line {number} is truncated: it is ignored")
            self._torn = None

    def _take(self, line: str) -> None:
        event = _event(line)
        if event["type"] == Session.type:
            self.ignore_torn()
            if self.logs[-1].source:
                self.logs.append(Log())
        if self._torn:
            raise self._torn[1]
        _record(self.logs[-1], event)
        self._begun = True


class _BadLineError(Exception):
    """A line is not a valid event; the message says why."""


class _TornLineError(_BadLineError):
    """The line is the beginning of an object, or only zeros, which a power loss can leave."""


def _event(line: str) -> Fields:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        start = line.strip("\0 \r\n")[:1]
        raise (_TornLineError if start in ("", "{") else _BadLineError)("it is not JSON") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise _BadLineError("it is not an event")
    if event.get("v") != EVENT_VERSION:
        raise _BadLineError(
            f"it has event version {event.get('v')!r}, this mmtl reads version {EVENT_VERSION}"
        )
    return event


def _record(log: Log, event: Fields) -> None:
    if event["type"] == Session.type:
        log.source = _text(event, "source")
        log.emotions = _texts(event, "emotions")
    elif event["type"] == Window.type:
        log.rows.append(_row(event))
    elif event["type"] == Utterance.type:
        start_s, end_s = _span(event)
        log.segments.append(Segment(start_s, end_s, _text(event, "label")))
        log.duration_s = max(log.duration_s, end_s)
    elif event["type"] == Summary.type:
        log.duration_s = max(log.duration_s, _seconds(event, "duration_s"))


def _row(event: Fields) -> Row:
    start_s, end_s = _span(event)
    if not isinstance(event.get("speech"), bool):
        raise _BadLineError("its field speech is not true or false")
    return Row(
        start_s=start_s,
        end_s=end_s,
        label=_text(event, "label"),
        speech=event["speech"],
        level_dbfs=_number_or_none(event, "level_dbfs"),
        probs=_probs(event, "probs"),
        smoothed=_probs(event, "smoothed"),
    )


def _span(event: Fields) -> tuple[float, float]:
    start_s, end_s = _seconds(event, "start_s"), _seconds(event, "end_s")
    if end_s < start_s:
        raise _BadLineError(f"it ends at {end_s} s, before it starts at {start_s} s")
    return start_s, end_s


def _text(event: Fields, key: str) -> str:
    value = event.get(key)
    if not isinstance(value, str) or not value:
        raise _BadLineError(f"its field {key} is not a string")
    return " ".join(value.split()) or "?"


def _texts(event: Fields, key: str) -> list[str]:
    value = event.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _BadLineError(f"its field {key} is not a list of strings")
    return value


def _seconds(event: Fields, key: str) -> float:
    value = _number_or_none(event, key)
    if value is None or value < 0:
        raise _BadLineError(f"its field {key} is not a time in seconds")
    return value


def _number_or_none(event: Fields, key: str) -> float | None:
    value = event.get(key, "missing")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise _BadLineError(f"its field {key} is not a number")
    return float(value)


def _probs(event: Fields, key: str) -> dict[str, float | None]:
    value = event.get(key)
    if not isinstance(value, dict):
        raise _BadLineError(f"its field {key} does not map emotions to numbers")
    return {emotion: _number_or_none(value, emotion) for emotion in value}


def to_csv(log: Log) -> str:
    """Write a row for each window, with the probabilities of the window and the smoothed ones."""
    emotions = list(dict.fromkeys([*log.emotions, *(emotion for row in log.rows for emotion in row.probs)]))
    lines = [csv_header(emotions), *(csv_line(row, emotions) for row in log.rows)]
    return "".join(line + "\n" for line in lines)


def csv_header(emotions: Iterable[str]) -> str:
    """Return the header line, without its line end."""
    emotions = list(emotions)
    plain = ["start_s", "end_s", "label", "speech", "level_dbfs"]
    return _csv_line([*plain, *emotions, *(f"{emotion}_smoothed" for emotion in emotions)])


def csv_line(row: Row, emotions: Iterable[str]) -> str:
    """Return a window's line for the header of the same emotions, without its line end."""
    emotions = list(emotions)
    probs = [row.probs.get(emotion) for emotion in emotions]
    smoothed = [row.smoothed.get(emotion) for emotion in emotions]
    speech = str(row.speech).lower()
    return _csv_line([row.start_s, row.end_s, row.label, speech, row.level_dbfs, *probs, *smoothed])


def row_of(window: Window) -> Row:
    """Return the row of a window, with its numbers rounded as in a log."""
    return _row(_event(to_json(window)))


def _csv_line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def to_rttm(log: Log) -> str:
    """Write NIST RTTM (Rich Transcription Time Marked): the label takes the place of the speaker's name."""
    source = log.source.replace(" ", "_") or "unknown"
    return "".join(
        f"SPEAKER {source} 1 {segment.start_s:.3f} {segment.end_s - segment.start_s:.3f} "
        f"<NA> <NA> {segment.label.replace(' ', '_')} <NA> <NA>\n"
        for segment in log.segments
    )


def to_textgrid(log: Log) -> str:
    """Write a Praat TextGrid: one tier without gaps, in which silence has an empty label."""
    intervals = list(_tier(log))
    end_s = intervals[-1].end_s if intervals else log.duration_s
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end_s:.6f}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "emotion"',
        "        xmin = 0",
        f"        xmax = {end_s:.6f}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, interval in enumerate(intervals, start=1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {interval.start_s:.6f}",
            f"            xmax = {interval.end_s:.6f}",
            f'            text = "{_quoted(interval.label)}"',
        ]
    return "\n".join(lines) + "\n"


def to_srt(log: Log) -> str:
    """Write SubRip subtitles: the label is the text."""
    return "\n".join(
        f"{number}\n{_subtitle_time(segment.start_s)} --> {_subtitle_time(segment.end_s)}\n{segment.label}\n"
        for number, segment in enumerate(log.segments, start=1)
    )


FORMATS: Final[dict[str, Callable[[Log], str]]] = {
    "csv": to_csv,
    "rttm": to_rttm,
    "textgrid": to_textgrid,
    "srt": to_srt,
}


def converted(
    lines: Iterable[str],
    name: str,
    form: str,
    *,
    session: int | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> str:
    """Convert a session of a log to one of `FORMATS`; see `read_log` for the arguments.

    Raises:
        UsageError: the format or session is unknown, or a line is invalid.
    """
    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", remedy=f"choose {', '.join(FORMATS)}")
    return FORMATS[form](read_log(lines, name, session=session, warn=warn))


def lines_of(path: str) -> Iterable[str]:
    """Read the lines of a log, "-" for stdin, in UTF-8 or in the encoding of its byte order mark.

    A truncated character at the end is ignored.

    Raises:
        UsageError: the log cannot be read, or is not text.
    """
    if path == "-" and sys.stdin is None:
        raise UsageError("stdin is closed", remedy="pipe a log into it, or name a file")
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = codecs.getincrementaldecoder(encoding_of(data))().decode(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(
            f"cannot read {path} ({reason})", remedy="name a log that mmtl run --jsonl wrote"
        ) from error
    return io.StringIO(text, newline=None)


def _tier(log: Log) -> Iterator[Segment]:
    """Yield the segments and the silences between them; the second of two that overlap starts later."""
    now_s = 0.0
    for segment in sorted(log.segments, key=lambda segment: segment.start_s):
        if segment.start_s > now_s:
            yield Segment(now_s, segment.start_s, "")
        start_s = max(now_s, segment.start_s)
        if segment.end_s > start_s:
            yield Segment(start_s, segment.end_s, segment.label)
            now_s = segment.end_s
        else:
            now_s = start_s
    if log.duration_s > now_s:
        yield Segment(now_s, log.duration_s, "")


def _quoted(text: str) -> str:
    return text.replace('"', '""')


def _subtitle_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, seconds_left = divmod(whole, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds_left:02d},{milliseconds:03d}"
