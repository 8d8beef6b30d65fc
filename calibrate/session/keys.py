"""Read single keys from a terminal, without waiting for Enter, and restore its settings afterwards."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import sys
from typing import Any, Final

from edge.errors import UsageError
from edge.system import job_control

NAMES: Final = {
    " ": "space",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x1b": "escape",
}
END: Final = "\x04"
"""Ctrl-D; also reported for a terminal that was closed."""
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)")
"""The sequences that arrow and function keys send."""


class Keys:
    """Context manager that reads a terminal key by key. Ctrl-C and Ctrl-Z still send signals.

    The terminal's settings are restored on exit, and while Ctrl-Z suspends the program.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """Choose a terminal.

        Args:
            descriptor: of the terminal; standard input by default.
        """
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._exit_stack = contextlib.ExitStack()

    def __enter__(self) -> Keys:
        """Set the terminal to single keys; pending input is discarded.

        Raises:
            UsageError: the system has no POSIX terminals.
        """
        self._before = _termios().tcgetattr(self._descriptor)
        self._exit_stack.enter_context(
            job_control.terminal_change(job_control.TerminalChange(self._set_single_keys, self._restore))
        )
        return self

    def __exit__(self, *exc: object) -> None:
        """Restore the terminal's settings."""
        self._exit_stack.close()

    def _set_single_keys(self) -> None:
        termios = _termios()
        mode = termios.tcgetattr(self._descriptor)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, mode)

    def _restore(self) -> None:
        termios = _termios()
        with contextlib.suppress(termios.error):  # the window was closed
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._before)

    def pressed(self) -> list[str]:
        """Return the keys pressed since the last call, without waiting: names of `NAMES`, or characters."""
        typed = ""
        while select.select([self._descriptor], [], [], 0)[0]:
            data = self._read()
            typed += self._decoder.decode(data) or ("" if data else END)
            if not data:
                break
        return named(typed)

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 256)
        except OSError:  # the window was closed
            return b""


def named(typed: str) -> list[str]:
    """Name the keys of a terminal's input; arrow and function keys are left out."""
    return [NAMES.get(character, character.lower()) for character in _SEQUENCE.sub("", typed)]


def _termios() -> Any:
    try:
        import termios
    except ImportError as error:
        raise UsageError(
            "the guided session needs a POSIX terminal",
            remedy="record the takes yourself and give --from MANIFEST.csv",
        ) from error
    return termios
