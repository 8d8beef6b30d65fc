"""A program at a pseudo-terminal, as a person has it: a screen to look at and keys to press."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

WAIT_S = 60.0

# Makes the terminal the one that Ctrl-C is typed at, then becomes `mmtl`.
CHILD = (
    "import fcntl, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\nfrom edge.cli import main\nmain()\n"
)

HOME = "\x1b[H"
"""Begins each frame."""

_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)")


class Terminal:
    """`mmtl` with arguments, in a window of its own."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        size: tuple[int, int] = (80, 24),
    ) -> None:
        self._keyboard, program = pty.openpty()
        width, height = size
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = termios.tcgetattr(program)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            stdin=program,
            stdout=program,
            stderr=program,
            env={**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
            cwd=ROOT,
            start_new_session=True,
        )
        # Kept open: what the terminal was left like can be asked, and what was written last be read.
        self._program = program
        self._written = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._keyboard, 65_536)
            except OSError:
                return
            if not data:
                return
            self._written += data.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was ever written, in one line, without control sequences."""
        return " ".join(_CONTROL.sub("", self._written).split())

    @property
    def screen(self) -> str:
        """The newest frame, and what was written after it, in one line."""
        return " ".join(_CONTROL.sub("", self._written.rpartition(HOME)[2]).split())

    def wait_for(self, *words: str) -> str:
        """Wait until all the words are on the screen at once, and return it."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            screen = self.screen
            if all(word in screen for word in words):
                return screen
            time.sleep(0.02)
        raise AssertionError(f"no {words} on the screen: {self.screen}")

    def wait_for_one(self, *words: str) -> str:
        """Wait until one of the words is on the screen, and return it."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            screen = self.screen
            for word in words:
                if word in screen:
                    return word
            time.sleep(0.02)
        raise AssertionError(f"none of {words} on the screen: {self.screen}")

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._keyboard, keys.encode())

    def leave(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(WAIT_S)

    @property
    def after(self) -> list[object]:
        """The terminal's settings now."""
        return termios.tcgetattr(self._program)

    def close(self) -> None:
        """End the program, whatever it does."""
        self.process.kill()
        self.process.wait()
        os.close(self._program)
        self._reader.join()
        os.close(self._keyboard)
