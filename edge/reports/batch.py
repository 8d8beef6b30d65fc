"""Many recordings to a folder with a table and a page: recognised side by side, resumed where they ended."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from edge.errors import MmtlError, SourceError, UsageError
from edge.reports.file_recognition import RecognitionJob, shown_path
from edge.reports.journal import JOURNAL, Journal
from edge.reports.page import REPORT, report_page, require_embeddable
from edge.reports.recordings import Recording
from edge.reports.results import FileResult, UtteranceRow
from edge.reports.summaries import Finished
from edge.reports.table import TableFormat, table_path, write_table
from edge.reports.workers import core_count, recognize_side_by_side
from edge.system.files import require_writable
from edge.system.outputs import write_atomically
from edge.system.stop_signal import StopSignal

NAMED_PROBLEMS: Final = 3
"""Recordings that the closing message names."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report is to be."""

    folder: Path
    table: TableFormat = "csv"
    workers: int = field(default_factory=core_count)
    embed: bool = False
    replace: bool = False
    """Whether earlier results are computed again."""
    version: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a report is."""

    done: int
    """Recordings."""
    recordings: int
    problems: int
    share: float
    """Of the work, by the sizes of the files, in [0, 1]."""


def write_report(
    recordings: Sequence[Recording],
    job: RecognitionJob,
    options: ReportOptions,
    *,
    show: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Recognise recordings, and write the table and the page of those that are done.

    Ctrl-C, SIGTERM and SIGHUP end the recognition; table and page then hold what is done, and the same call
    goes on from there.

    Args:
        recordings: at least one.
        job: how they are recognised.
        options: what is written, and where.
        show: takes the progress, several times a second.
        note: takes lines about what was reused and what is left.

    Raises:
        SourceError: recordings could not be recognised; table and page say which and why.
        UsageError: the folder holds something else, is in use or cannot be written; or too much is embedded.
        MmtlError: the job cannot be done; or a signal other than Ctrl-C ended the recognition.
    """
    _require_report_folder(options.folder, replace=options.replace)
    if options.embed:
        require_embeddable([recording.size for recording in recordings])
    job.recognizer().engine.close()  # what cannot be used is reported once, before anything is written
    require_writable(options.folder)
    with (
        StopSignal().listening() as stop,
        contextlib.closing(Journal(options.folder, job, replace=options.replace)) as journal,
    ):
        finished = _recognize(recordings, job, journal, options, stop, show, note)
        kept = [(recording, finished[recording.key]) for recording in recordings if recording.key in finished]
        _write(kept, options)
    _report_end(kept, len(recordings), options, stop.number, note)


def _recognize(
    recordings: Sequence[Recording],
    job: RecognitionJob,
    journal: Journal,
    options: ReportOptions,
    stop: StopSignal,
    show: Callable[[Progress], None],
    note: Callable[[str], None],
) -> dict[str, FileResult]:
    """Return the results by the recordings' keys: those of the journal, and those computed now."""
    finished = {recording.key: result for recording in recordings if (result := journal.find(recording))}
    left = {str(recording.path): recording for recording in recordings if recording.key not in finished}
    if finished:
        note(f"{len(finished)} of {len(recordings)} recordings were recognised before: they are kept")
    meter = _Meter(left, len(recordings), show)
    results = recognize_side_by_side(
        sorted(left, key=meter.size_of, reverse=True),
        job,
        min(options.workers, max(1, len(left))),
        stopped=lambda: bool(stop.number),
        heard=meter.heard,
    )
    with contextlib.closing(results):
        for path, result in results:
            journal.add(left[path], result)
            finished[left[path].key] = result
            meter.done(path, result)
    return finished


class _Meter:
    """Follows how much of the work is done, by the sizes of the files."""

    def __init__(
        self, recordings: dict[str, Recording], total: int, show: Callable[[Progress], None]
    ) -> None:
        self._sizes = {key: max(1, recording.size) for key, recording in recordings.items()}
        self._whole = max(1, sum(self._sizes.values()))
        self._finished_bytes = 0
        self._bytes_per_s = 0.0
        self._finished_s = 0.0
        self._under_way: dict[str, float] = {}
        self._done, self._total, self._problems = total - len(recordings), total, 0
        self._show = show
        self._report()

    def size_of(self, key: str) -> int:
        """Return the bytes of a recording."""
        return self._sizes[key]

    def heard(self, key: str, heard_s: float) -> None:
        """Take the seconds of a recording that are done."""
        self._under_way[key] = heard_s
        self._report()

    def done(self, key: str, result: FileResult) -> None:
        """Take a recording that is done."""
        self._under_way.pop(key, None)
        self._done += 1
        self._problems += bool(result.problem)
        self._finished_bytes += self._sizes[key]
        self._finished_s += result.duration_s
        self._report()

    def _report(self) -> None:
        done = self._finished_bytes + sum(
            self._bytes_of(key, heard_s) for key, heard_s in self._under_way.items()
        )
        self._show(Progress(self._done, self._total, self._problems, min(1.0, done / self._whole)))

    def _bytes_of(self, key: str, heard_s: float) -> float:
        """Estimate the bytes behind seconds that are done: 32 kB a second until a file has been finished."""
        rate = self._finished_bytes / self._finished_s if self._finished_s > 0 else 32_000.0
        return min(0.95 * self._sizes[key], rate * heard_s)


def _write(finished: Sequence[Finished], options: ReportOptions) -> None:
    write_table(table_path(options.folder, options.table), _rows(finished), options.table)
    page = report_page(
        finished,
        options.folder,
        version=options.version,
        made=datetime.now().astimezone(),
        embed=options.embed,
    )
    write_atomically(options.folder / REPORT, page, replace=True)


def _rows(finished: Sequence[Finished]) -> Iterator[UtteranceRow]:
    for recording, result in finished:
        yield from result.rows(shown_path(recording.path), recording.speaker)


def _report_end(
    finished: Sequence[Finished], total: int, options: ReportOptions, number: int, note: Callable[[str], None]
) -> None:
    """Say what was written, and raise the error that the exit status stands for."""
    failed = [recording for recording, result in finished if result.problem]
    table = table_path(options.folder, options.table)
    if len(finished) < total:
        left = f"{len(finished)} of {total} recordings are in {table} and {options.folder / REPORT}"
        remedy = "run the same command again to go on"
        if number != signal.SIGINT:
            raise MmtlError(f"stopped: {left}", remedy=remedy)
        note(f"stopped: {left}: {remedy}")
        return
    note(f"wrote {table} and {options.folder / REPORT}")
    if failed:
        names = ", ".join(shown_path(recording.path.name) for recording in failed[:NAMED_PROBLEMS])
        more = ", ..." if len(failed) > NAMED_PROBLEMS else ""
        raise SourceError(
            f"{len(failed)} of {total} recordings could not be recognised ({names}{more})",
            remedy=f"the column problem of {table} says why; the others are done",
        )


def _require_report_folder(folder: Path, *, replace: bool) -> None:
    """Check that a folder is a report's, empty, or not there yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="name the folder of the report")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JOURNAL).is_file():
        raise UsageError(
            f"{folder} holds other files", remedy="name a new folder, or one that holds a report"
        )
