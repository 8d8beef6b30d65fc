"""The live monitor in a terminal: stopped by Ctrl-Z, resized, closed, or one that cannot be redrawn."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.calibrate.session.pseudo_terminal import CHILD, ENTER, HIDE, HOME, LEAVE, SHELL, SHOW, Terminal
from tests.cnn_lstm import CNN_LSTM
from tests.edge.audio.pulse import VirtualMicrophone
from tests.edge.schema import checked

Open = Callable[..., Terminal]

NOISY = CHILD.replace(
    "main()\n",
    """
import os, threading, time

def write():
    while True:
        os.write(2, b"LIBRARY NOISE")
        time.sleep(0.01)

def at_first_frame(*_):
    threading.Thread(target=write, daemon=True).start()

from edge.output import screen
take = screen.Screen._take
screen.Screen._take = lambda self: (at_first_frame(), take(self))
main()
""",
)
"""Runs `mmtl` with a library that writes to descriptor 2 from the first frame on."""

STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def monitor() -> Iterator[Open]:
    """A function that runs `mmtl monitor` in a window."""
    windows: list[Terminal] = []

    def run(
        *arguments: str,
        environment: dict[str, str] | None = None,
        size: tuple[int, int] = (80, 24),
        program: str = CHILD,
        term: str = "xterm-256color",
        command: str = "monitor",
    ) -> Terminal:
        windows.append(
            Terminal(
                [command, *arguments, "--provider", "cpu"],
                environment or dict(os.environ),
                size,
                program,
                term,
            )
        )
        return windows[-1]

    yield run
    for window in windows:
        window.close()


def frames(window: Terminal) -> list[list[str]]:
    """Return what was drawn, frame by frame, as lines without colour."""
    drawn = window.written.partition(ENTER)[2].partition(LEAVE)[0].split(HOME)[1:]
    return [STYLE.sub("", frame).split("\r\n") for frame in drawn]


# Ctrl-Z


def test_ctrl_z_gives_the_shell_its_screen_and_cursor_and_fg_goes_on(monitor: Open) -> None:
    window = monitor("demo", program=SHELL)
    window.wait_for("listening", "input")
    window.press("\x1a")
    window.wait_for("STOPPED as before")
    shown = window.written.partition("STOPPED")[0].rpartition(HIDE)[2]
    assert shown.count(LEAVE) == shown.count(SHOW) == 1
    window.press("bg\r")
    window.wait_for("bg", "STOPPED as before")
    assert window.written.count(ENTER) == 1
    window.goes_on()
    window.wait_for("input", "provider cpu")
    assert window.written.count(ENTER) == window.written.count(HIDE) == 2
    window.press("\x03")
    assert window.leave() == 0
    window.wait_for("mmtl heard")
    assert window.written.count(LEAVE) == window.written.count(SHOW) == 2


@pytest.mark.mic
def test_sound_that_is_missed_while_the_monitor_is_stopped_is_lost_sound(
    pulse: VirtualMicrophone, monitor: Open, tmp_path: Path
) -> None:
    log = tmp_path / "events.jsonl"
    window = monitor("mic", "--jsonl", str(log), environment=pulse.environment, program=SHELL)
    window.wait_for("listening 1.")
    window.press("\x1a")
    window.wait_for("STOPPED")
    stopped_s = time.monotonic()
    time.sleep(3.0)
    window.goes_on()
    stopped_s = time.monotonic() - stopped_s
    window.wait_for("s lost)")
    window.press("\x03")
    assert window.leave() == 0
    events = [checked(line) for line in log.read_text("utf-8").splitlines()]
    lost_s = sum(float(str(event["lost_s"])) for event in events if event["type"] == "overrun")
    # What the sound server kept meanwhile is heard late, so the loss may be shorter than the stop.
    assert 0.5 < lost_s < stopped_s + 1.0
    assert float(str(events[-1]["duration_s"])) > lost_s


# Closed, resized, written to by others


@pytest.mark.parametrize(
    ("command", "pace", "shown"), [("monitor", [], "real-time factor 0."), ("run", ["--paced"], "0:03.0")]
)
def test_a_window_that_is_closed_ends_the_command_with_all_events(
    monitor: Open, tmp_path: Path, command: str, pace: list[str], shown: str
) -> None:
    log = tmp_path / "events.jsonl"
    window = monitor("demo", "--bundle", str(CNN_LSTM), *pace, "--jsonl", str(log), command=command)
    window.wait_for(shown)
    window.hang_up()
    assert window.leave() == 0
    events = [checked(line) for line in log.read_text("utf-8").splitlines()]
    assert {"speech", "utterance"} <= {str(event["type"]) for event in events}
    assert events[-1]["type"] == "summary"
    assert float(str(events[-1]["duration_s"])) < 13.0


@pytest.mark.parametrize("size", [(20, 6), (300, 80)])
def test_a_window_may_change_its_size(monitor: Open, size: tuple[int, int]) -> None:
    window = monitor("demo")
    window.wait_for("listening")
    window.resize(*size)
    drawn = len(frames(window))
    window.wait_until(lambda: len(frames(window)) >= drawn + 4)
    lines = frames(window)[-2]
    assert (max(map(cell_len, lines)), len(lines)) == size


def test_what_a_library_writes_does_not_reach_the_screen(monitor: Open) -> None:
    window = monitor("demo", program=NOISY)
    window.wait_for("listening 1")
    assert "NOISE" not in window.written
    window.press("\x03")
    assert window.leave() == 0
    window.wait_for("mmtl heard")


# Terminals that cannot be redrawn


@pytest.mark.parametrize(
    ("term", "variables"),
    [("dumb", {}), ("unknown", {}), ("", {}), ("xterm", {"TTY_COMPATIBLE": "0"})],
    ids=str,
)
def test_a_terminal_that_cannot_be_redrawn_shows_lines_as_they_come(
    monitor: Open, term: str, variables: dict[str, str]
) -> None:
    window = monitor("demo", "--bundle", str(CNN_LSTM), environment={**os.environ, **variables}, term=term)
    window.wait_for("listening to demo: cnn-lstm", "0:03.0 ")
    assert window.process.poll() is None
    window.press("\x03")
    assert window.leave() == 0
    assert "\x1b" not in window.written


SHOWN = ("listening", "N neutral", "speech", "dBFS", "source demo")


def test_a_terminal_without_colour_shows_the_same(monitor: Open) -> None:
    window = monitor("demo", environment={**os.environ, "NO_COLOR": "1"}, size=(60, 24))
    window.wait_for(*SHOWN)
    window.press("\x03")
    assert window.leave() == 0
    assert not re.search(r"\x1b\[[0-9;]*([34]8;|[34][0-7])[0-9;]*m", window.written)


def test_a_terminal_without_unicode_shows_the_same(monitor: Open) -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    window = monitor("demo", environment=ascii_only, size=(60, 24))
    window.wait_for(*SHOWN)
    window.press("\x03")
    assert window.leave() == 0
    assert window.written.isascii()
    assert "\\u" not in window.written
