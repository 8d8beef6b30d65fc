"""The alternate screen of a terminal, for full-screen programs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from edge.output.console import encodable
from edge.system import job_control
from edge.system.standard_streams import native_stderr_silenced

Frame = Callable[[int, int], Text]
"""Draws a frame of the given columns and lines."""


class Screen:
    """Switches to the alternate screen with the first frame; `close` restores the terminal.

    In between, output of C libraries is suppressed, and Ctrl-Z gives the shell its screen back.
    Only the thread that calls `draw` draws.
    """

    def __init__(self, console: Console) -> None:
        """Prepare; nothing is drawn yet.

        Args:
            console: the terminal.
        """
        self._console = console
        self._frame: Frame = lambda width, height: Text()
        self._live = Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._taken = contextlib.ExitStack()
        self.shown = False

    def draw(self, frame: Frame) -> None:
        """Show a frame in the current size of the terminal."""
        self._frame = frame
        with job_control.stop_deferred():
            if self.shown:
                self._show()
            else:
                if _has_its_own_descriptor(self._console):
                    self._taken.enter_context(native_stderr_silenced())
                self._taken.enter_context(
                    job_control.terminal_change(job_control.TerminalChange(self._take, self._leave))
                )

    def close(self) -> None:
        """Restore the terminal; may be called twice."""
        self._taken.close()

    def _take(self) -> None:
        self.shown = True
        self._live.start()
        self._show()

    def _leave(self) -> None:
        if not self.shown:
            return
        self.shown = False
        self._console.clear()  # tmux, once resized, would keep the last frame in its history
        self._live.stop()

    def _show(self) -> None:
        with contextlib.suppress(OSError):  # not a terminal
            size = os.get_terminal_size(self._console.file.fileno())
            self._console.size = ConsoleDimensions(*size)
        drawn = encodable(self._frame(*self._console.size), self._console)
        self._live.update(drawn, refresh=True)


def _has_its_own_descriptor(console: Console) -> bool:
    """Tell whether a console stays visible while descriptor 2 is redirected."""
    try:
        return console.file.fileno() != 2
    except OSError:
        return False
