"""Streams that are closed, full or lack a character: the whole program, and its parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.edge.schema import checked

ROOT = Path(__file__).parents[3]
FULL = Path("/dev/full")
MMTL = f"{sys.executable} -c 'from edge.cli.main import main; main()' "

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
full = pytest.param("2>/dev/full", marks=needs_full)


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's command, in which `mmtl` is ours."""
    return subprocess.run(
        ["sh", "-c", command.replace("mmtl ", MMTL)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A tenth of a second of sound, under a name that not every encoding has."""
    path = tmp_path / "Jürgen 민수 [usb] 🎤.wav"
    soundfile.write(path, np.full(1_600, 0.1), 16_000)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def assert_whole(log: Path) -> None:
    events = [checked(line) for line in log.read_text("utf-8").splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["session", "summary"]


@pytest.mark.parametrize("command", ["run", "monitor"])
@pytest.mark.parametrize("streams", ["2>&-", full, "<&- >&- 2>&-"])
def test_events_are_written_whatever_becomes_of_the_messages(
    command: str, streams: str, clip: Path, log: Path
) -> None:
    assert shell(f"mmtl {command} '{clip}' --jsonl {log} {streams}").returncode == 0
    assert_whole(log)


@pytest.mark.parametrize("streams", [">&-", pytest.param(">/dev/full", marks=needs_full)])
def test_events_are_written_to_a_file_whatever_becomes_of_the_lines(
    streams: str, clip: Path, log: Path
) -> None:
    done = shell(f"mmtl run '{clip}' --jsonl {log} --provider cpu {streams}")
    assert done.returncode == 0
    assert done.stderr.count(b"\n") == done.stderr.count(b"mmtl: cannot write to stdout") <= 1
    assert_whole(log)


def test_without_a_file_a_closed_stdout_is_refused(clip: Path) -> None:
    done = shell(f"mmtl run '{clip}' --provider cpu >&-")
    assert done.returncode == 2
    assert done.stderr.startswith(b"mmtl: stdout is closed")


@pytest.mark.parametrize("command", ["--help", "profile list"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
@needs_full
def test_a_full_stdout_is_one_line_and_code_1(command: str, unbuffered: str) -> None:
    done = shell(f"mmtl {command} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr.startswith(b"mmtl: cannot write to stdout (No space left on device)")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", ["--help", "profile list", "doctor"])
@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-"])
def test_a_command_does_without_the_streams_that_are_closed(command: str, streams: str) -> None:
    done = shell(f"mmtl {command} {streams}")
    assert done.returncode == (2 if command == "doctor" else 0)
    assert done.stderr.count(b"\n") == done.stderr.count(b"mmtl: stdout is closed") <= 1


def test_a_file_never_gets_the_number_of_a_standard_stream(tmp_path: Path) -> None:
    script = (
        "from edge.system import standard_streams; standard_streams.make_robust()\n"
        "import os, sys; sys.stderr.write('lost'); os.write(2, b'lost'); os.write(1, b'lost')\n"
        f"file = open({str(tmp_path / 'opened')!r}, 'w'); file.write(str(file.fileno()))\n"
    )
    shell(f'{sys.executable} -c "{script}" <&- >&- 2>&-')
    assert int((tmp_path / "opened").read_text()) > 2


@pytest.mark.parametrize("command", ["run", "monitor"])
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "utf-16"},
    ],
    ids=str,
)
def test_a_name_that_an_encoding_lacks_is_written_with_other_characters(
    command: str, environment: dict[str, str], clip: Path, log: Path
) -> None:
    done = shell(f"mmtl {command} '{clip}' --jsonl {log} --provider cpu", **environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    shown = (done.stdout + done.stderr).replace(b"\0", b"")
    assert b"listening to J" in shown
    assert b" [usb] " in shown
    assert_whole(log)
    refused = shell(f"mmtl run '{clip}.gone'", **environment)
    assert (refused.returncode, refused.stderr.count(b"Traceback")) == (3, 0)
    assert b" [usb] " in refused.stderr.replace(b"\0", b"")


QUIET = """
import os, sys, threading
from edge.system import standard_streams
from edge.system.standard_streams import native_stderr_silenced

standard_streams.make_robust()
inside, over = threading.Event(), threading.Event()

def other():
    with native_stderr_silenced():
        inside.set()
        over.wait()

thread = threading.Thread(target=other)
with native_stderr_silenced():
    thread.start()
    inside.wait()
    with native_stderr_silenced():
        os.write(2, b"noise ")
    sys.stderr.write("said ")
    sys.stderr.flush()
os.write(2, b"noise ")
over.set()
thread.join()
os.write(2, b"diagnostics")
"""


def test_libraries_are_silent_while_anyone_wants_it_and_the_program_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], cwd=ROOT, capture_output=True, check=True)
    assert done.stderr == b"said diagnostics"
