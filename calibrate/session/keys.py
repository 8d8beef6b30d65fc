"""Keys as they are pressed, without waiting for Enter; the terminal is as it was before when left."""

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
"""Ctrl-D; also what is read from a terminal that has gone."""
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)")
"""What arrows and function keys send."""


class Keys:
    """Reads a terminal key by key while it is entered. Ctrl-C and Ctrl-Z stay signals.

    While Ctrl-Z stops the program the terminal is as it was before.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """Choose a terminal.

        Args:
            descriptor: of the terminal; standard input by default.
        """
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._taken = contextlib.ExitStack()

    def __enter__(self) -> Keys:
        """Take over the terminal; what was typed before is dropped.

        Raises:
            UsageError: this system has no such terminals.
        """
        self._before = _termios().tcgetattr(self._descriptor)
        self._take()
        self._taken.enter_context(
            job_control.terminal_change(job_control.TerminalChange(self._give_back, self._take))
        )
        return self

    def __exit__(self, *exc: object) -> None:
        """Give the terminal back as it was."""
        self._taken.close()
        self._give_back()

    def _take(self) -> None:
        termios = _termios()
        mode = termios.tcgetattr(self._descriptor)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, mode)

    def _give_back(self) -> None:
        termios = _termios()
        with contextlib.suppress(termios.error):  # its window was closed
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._before)

    def pressed(self) -> list[str]:
        """Return the keys pressed since the last call, at once: names of `NAMES`, or characters."""
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
        except OSError:  # the terminal's window was closed
            return b""


def named(typed: str) -> list[str]:
    """Name the keys behind what a terminal sent; those without a character are left out."""
    return [NAMES.get(character, character.lower()) for character in _SEQUENCE.sub("", typed)]


def _termios() -> Any:
    try:
        import termios
    except ImportError as error:
        raise UsageError(
            "the guided session needs a POSIX terminal: record the takes yourself and give "
            "--from MANIFEST.csv"
        ) from error
    return termios
