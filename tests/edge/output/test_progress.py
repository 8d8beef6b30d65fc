"""How far long work is: on a terminal, on one that cannot be redrawn, and on none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edge.output.progress import Tenths, progress_bar
from tests.calibrate.session.pseudo_terminal import CHILD, HIDE, SHELL, SHOW, Terminal


@contextmanager
def measuring(program: str, term: str = "xterm-256color") -> Iterator[Terminal]:
    """Run a command that takes long."""
    terminal = Terminal(["benchmark", "--seconds", "30"], dict(os.environ), program=program, term=term)
    try:
        yield terminal
    finally:
        terminal.close()


def test_ctrl_z_gives_the_shell_its_cursor_and_ctrl_c_says_that_nothing_is_done() -> None:
    with measuring(SHELL) as terminal:
        terminal.wait_for("measuring", "%")
        terminal.press("\x1a")
        terminal.wait_for("STOPPED as before")
        assert terminal.written.count(HIDE) == terminal.written.count(SHOW) == 1
        terminal.goes_on()
        terminal.press("\x03")
        assert terminal.leave() == 0
        terminal.wait_for("mmtl: stopped before it was done")
        assert terminal.written.count(HIDE) == terminal.written.count(SHOW) == 2


INTERRUPTS_A_CHANGE = """
import os, signal, sys

from rich.console import Console

show_cursor, left = Console.show_cursor, [int(sys.argv.pop(1))]

def interrupt(console, show=True):
    done = show_cursor(console, show)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return done

Console.show_cursor = interrupt
"""
"""Sends the program Ctrl-C while the bar hides or shows the cursor for the nth time."""


@pytest.mark.parametrize(
    ("nth", "keys", "seconds"), [(1, "", 30), (2, "", 1), (2, "\x1a", 30), (3, "\x1a", 30)]
)
def test_ctrl_c_while_the_bar_comes_or_goes_ends_the_program_as_at_other_times(
    nth: int, keys: str, seconds: int
) -> None:
    program = INTERRUPTS_A_CHANGE + CHILD  # has no shell: the system goes on at once after Ctrl-Z
    arguments = [str(nth), "benchmark", "--seconds", str(seconds)]
    terminal = Terminal(arguments, dict(os.environ), program=program)
    try:
        if keys:
            terminal.wait_for("measuring")
            terminal.press(keys)
        assert terminal.leave() == 0, terminal.text
        terminal.wait_for("mmtl: stopped before it was done")
        assert terminal.written.count(HIDE) == terminal.written.count(SHOW)
        # Once more where Ctrl-Z came during an import, at whose end the interrupt is raised.
        assert terminal.written.count(SHOW) - (nth + 1) // 2 in (0, 1)
    finally:
        terminal.close()


def test_a_terminal_that_cannot_be_redrawn_gets_a_line_for_each_tenth() -> None:
    with measuring(CHILD, term="dumb") as terminal:
        terminal.wait_for("mmtl: measuring: 10 %", "mmtl: measuring: 20 %")
        assert "\x1b" not in terminal.written


def test_a_log_gets_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working") as show:
        for share in (0.0, 0.5, 1.0):
            show(share)
    assert capsys.readouterr().err == ""


def test_a_tenth_is_said_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tenths = Tenths("reading [clips]")
    for share in (0.0, 0.05, 0.1, 0.15, 0.5, 1.0, 1.0):
        tenths.show(share)
    assert capsys.readouterr().err.splitlines() == [
        f"mmtl: reading [clips]: {percent} %" for percent in (10, 50, 100)
    ]
