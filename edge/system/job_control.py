"""Temporary changes to the terminal: made and undone whole, and undone while Ctrl-Z stops the program."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from edge.system import signals

SIGTSTP: Final[Any] = getattr(signal, "SIGTSTP", None)
"""What Ctrl-Z sends; None on systems without job control."""


@dataclass(frozen=True, eq=False)
class TerminalChange:
    """A temporary change to the terminal; either call may come twice."""

    make: Callable[[], None]
    undo: Callable[[], None]


class _JobControl:
    """The active changes, and the signal handler that undoes them while the program is stopped."""

    def __init__(self) -> None:
        self._changes: list[TerminalChange] = []
        self._before: Any = None
        self._busy = False
        self._asked = False

    def add(self, change: TerminalChange) -> None:
        """Register a change to undo while the program is stopped."""
        if not self._changes and SIGTSTP and signal.getsignal(SIGTSTP) is not signal.SIG_IGN:
            self._before = signal.signal(SIGTSTP, self._handle)
        self._changes.append(change)

    def remove(self, change: TerminalChange) -> None:
        """Unregister a change."""
        self._changes.remove(change)
        if not self._changes and self._before is not None:
            signal.signal(SIGTSTP, self._before)
            self._before = None

    @contextlib.contextmanager
    def stop_deferred(self) -> Iterator[None]:
        """Defer Ctrl-Z until the end of the outermost block."""
        if self._busy:
            yield
            return
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            if self._asked:
                self._stop()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            self._asked = True
        else:
            self._stop()

    def _stop(self) -> None:
        self._busy = True
        try:
            with signals.interrupts_deferred():
                for change in reversed(self._changes):
                    change.undo()
            signal.signal(SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), SIGTSTP)  # returns when the shell continues the program
            signal.signal(SIGTSTP, self._handle)
            _wait_for_foreground()
            with signals.interrupts_deferred():
                for change in self._changes:
                    change.make()
        finally:
            self._busy = self._asked = False


_JOB_CONTROL = _JobControl()


@contextlib.contextmanager
def terminal_change(change: TerminalChange) -> Iterator[None]:
    """Change the terminal for the block; while the program is stopped or in the background, undo it.

    Neither Ctrl-Z nor an interrupt (`signals.Interrupt`) comes between the parts of a change.
    """
    _JOB_CONTROL.add(change)
    try:
        with stop_deferred(), signals.interrupts_deferred():
            change.make()
        yield
    finally:
        with stop_deferred(), signals.interrupts_deferred():
            change.undo()
            _JOB_CONTROL.remove(change)


def stop_deferred() -> contextlib.AbstractContextManager[None]:
    """Defer Ctrl-Z until the output inside is complete."""
    return _JOB_CONTROL.stop_deferred()


def _wait_for_foreground() -> None:
    """Stop again while the program is in the background (`bg`), as full-screen programs do.

    The system stops a background process that changes the terminal's settings.
    """
    import termios

    with contextlib.suppress(termios.error, OSError):  # stderr is no terminal, or it was closed
        termios.tcsetattr(sys.stderr, termios.TCSADRAIN, termios.tcgetattr(sys.stderr))
