"""`mmtl run ... --out`: many recordings to a table and a page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.reports.batch import Progress


def run_report(
    sources: Sequence[str],
    out: Path,
    *,
    bundle: Path | None,
    profile: str | None,
    provider: str,
    step_ms: int,
    channel: str,
    table: str,
    workers: int | None,
    embed: bool,
    replace: bool,
) -> None:
    """Recognise all recordings that the sources name into a folder."""
    from edge.audio.downmix import parse_channel
    from edge.cli.commands import installed_version
    from edge.model.profile import find_profile
    from edge.output.sinks import say
    from edge.recognition.settings import Settings
    from edge.reports.batch import ReportOptions, write_report
    from edge.reports.file_recognition import RecognitionJob
    from edge.reports.recordings import find_recordings
    from edge.reports.table import require_table_format
    from edge.reports.workers import core_count

    form = require_table_format(table)
    recordings = find_recordings(sources, note=say)
    job = RecognitionJob(
        bundle=str(bundle or ""),
        profile=str(find_profile(profile)) if profile else "",
        settings=Settings(step_ms=step_ms, channel=parse_channel(channel)),
        provider="cpu" if provider == "auto" else provider,
    )
    options = ReportOptions(
        folder=out,
        table=form,
        workers=workers or core_count(),
        embed=embed,
        replace=replace,
        version=installed_version(),
    )
    with _bar() as show:
        write_report(recordings, job, options, show=show, note=say)


def require_unused(options: Mapping[str, object]) -> None:
    """Refuse options that mean nothing beside --out.

    Args:
        options: value by name; one that is true was given.
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"{' and '.join(given)} cannot be given with --out", remedy="leave one of them out")


def only_source(sources: Sequence[str], of_reports: Mapping[str, object]) -> str:
    """Return the source of a run that writes events.

    Args:
        sources: as named.
        of_reports: options that need --out: value by name; one that is true was given.

    Raises:
        UsageError: there are several sources, or such an option was given.
    """
    given = [name for name, value in of_reports.items() if value]
    if given:
        raise UsageError(f"{given[0]} was given without --out", remedy="add --out FOLDER, or leave it out")
    if len(sources) > 1:
        raise UsageError(
            f"{len(sources)} sources were given, expected one",
            remedy="add --out FOLDER to recognise several recordings into a table and a page",
        )
    return sources[0]


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Show a bar, the recordings done and the time left; yield the function that takes the progress."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from edge.output.progress import Tenths, bars

    tenths = Tenths("recognising")
    counts = TextColumn("{task.description}")
    with bars(
        counts, BarColumn(bar_width=None), TextColumn("{task.percentage:3.0f} %"), TimeRemainingColumn()
    ) as shown:
        task = shown.add_task("recognising", total=1.0)

        def show(progress: Progress) -> None:
            text = f"{progress.done} of {progress.recordings} recordings"
            failed = f", {progress.problems} not readable" if progress.problems else ""
            shown.update(task, completed=progress.share, description=text + failed)
            tenths.show(progress.share)

        yield show
