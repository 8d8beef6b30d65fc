"""A program at a pseudo-terminal: tests read its screen and press keys."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]

WAIT_S = 60.0

# Makes the terminal the controlling one, which Ctrl-C needs, then runs `mmtl`.
CHILD = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from edge.cli.main import main
main()
"""

SHELL = """
import fcntl, os, signal, sys, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
before = termios.tcgetattr(0)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    program = "from edge.cli.main import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", program, *sys.argv[1:]])
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    print("STOPPED", "as before" if termios.tcgetattr(0) == before else "changed", flush=True)
    if input() == "fg":
        os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""
"""A shell with one job: says when it is stopped, and reads fg or bg."""

HOME = "\x1b[H"
"""Begins each frame."""

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""To the alternate screen, and back."""

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
"""The cursor."""

_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)")


class Terminal:
    """`mmtl` with arguments, in a window of its own."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        size: tuple[int, int] = (80, 24),
        program: str = CHILD,
        term: str = "xterm-256color",
    ) -> None:
        """Start it.

        Args:
            arguments: for `mmtl`.
            environment: its own, but for the type of the terminal.
            size: columns and lines.
            program: what is run in the terminal: `CHILD`, `SHELL`, ...
            term: the type of the terminal.
        """
        self._keyboard, self._program = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self._program)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=self._program,
            stdout=self._program,
            stderr=self._program,
            env={"PYTHONUTF8": "1", **environment, "TERM": term},
            cwd=ROOT,
            start_new_session=True,
        )
        # The program's end stays open, so that the terminal's final settings and last output can be read.
        self.written = ""
        self._open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self._program, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self._open:
            if select.select([self._keyboard], [], [], 0.05)[0]:
                self.written += decoder.decode(os.read(self._keyboard, 65_536))

    @property
    def text(self) -> str:
        """All output so far, in one line, without control sequences."""
        return " ".join(_CONTROL.sub("", self.written).split())

    @property
    def screen(self) -> str:
        """The newest frame and later output, in one line."""
        return " ".join(_CONTROL.sub("", self.written.rpartition(HOME)[2]).split())

    def wait_for(self, *words: str) -> str:
        """Wait until all the words are on the screen at once, and return it."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            screen = self.screen
            if all(word in screen for word in words):
                return screen
            time.sleep(0.02)
        raise AssertionError(f"no {words} on the screen: {self.screen}")

    def goes_on(self) -> None:
        """Let a stopped job go on in the foreground, and wait until it has hidden the cursor again."""
        hidden = self.written.count(HIDE)
        self.press("fg\r")
        self.wait_until(lambda: self.written.count(HIDE) > hidden)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

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

    def hang_up(self) -> None:
        """Close the window."""
        self._open = False
        self._reader.join()
        os.close(self._program)
        os.close(self._keyboard)

    def close(self) -> None:
        """Kill the program."""
        self.process.kill()
        self.process.wait()
        if self._open:
            self.hang_up()
