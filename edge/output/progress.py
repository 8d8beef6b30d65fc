"""Progress of long work: a bar on a terminal, lines on a terminal that cannot be redrawn, else nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, ProgressColumn

from edge.output.console import can_redraw, plain_console
from edge.output.sinks import say
from edge.system.job_control import TerminalChange, terminal_change


@contextlib.contextmanager
def bars(*columns: ProgressColumn, console: Console | None = None) -> Iterator[Progress]:
    """Show bars; they disappear at the end, and while Ctrl-Z stops the program.

    Args:
        columns: rich's progress columns; its defaults if none are given.
        console: where to draw; stderr by default.
    """
    console = console or plain_console(stderr=True)
    shown = can_redraw(console)
    progress = Progress(*columns, console=console, transient=True, disable=not shown)
    drawing = TerminalChange(make=progress.start, undo=progress.stop)
    with terminal_change(drawing) if shown else contextlib.nullcontext():
        yield progress


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], None]]:
    """Show a bar and the time left; yield the function that takes the share done, in [0, 1]."""
    tenths = Tenths(what)
    with bars() as progress:
        task = progress.add_task(what, total=None)  # the bar pulses until a share is known

        def show(share: float) -> None:
            progress.update(task, total=1.0, completed=share)
            tenths.show(share)

        yield show


class Tenths:
    """Reports each tenth of long work as a line, on a terminal that cannot be redrawn."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = 0
        console = plain_console(stderr=True)
        self._speaks = console.file.isatty() and not can_redraw(console)

    def show(self, share: float) -> None:
        """Take the share done, in [0, 1]."""
        tenths = int(10 * share)
        if self._speaks and tenths > self._said:
            self._said = tenths
            say(f"{self._what}: {10 * tenths} %")
