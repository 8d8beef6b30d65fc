"""With a frozen sound server every command ends in time, and keeps the sound so far."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge.audio import microphone as microphone_module
from edge.audio import portaudio_thread
from edge.audio.microphone import Microphone
from edge.audio.portaudio_thread import FrozenServerError
from edge.audio.sources import demo_clip
from edge.events import Event, Summary
from edge.model.bundle import Bundle
from edge.output.sinks import Sink
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer
from tests.calibrate.session.pseudo_terminal import Terminal
from tests.cnn_lstm import CNN_LSTM
from tests.edge.audio.portaudio import FakeStream, Frozen, desk, ramp
from tests.edge.audio.pulse import VirtualMicrophone

ROOT = Path(__file__).parents[3]

WAIT_S = 60.0

SAID = "the sound server does not answer: restart it"

CALLING = """
import sys
from edge.audio import portaudio_thread

submit = portaudio_thread.submit

def noted(work):
    print("calling", file=sys.stderr, flush=True)
    return submit(work)

portaudio_thread.submit = noted
portaudio_thread.CALL_TIMEOUT_S = float(sys.argv.pop(1))
from edge.cli.main import main
main()
"""
"""Runs `mmtl` with its own time-out, and tells when PortAudio is called."""


class Kept(Sink):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


# Without a server


@pytest.mark.parametrize("call", ["query_devices", "RawInputStream"])
def test_a_microphone_that_does_not_open_in_time_is_an_error_and_is_freed_when_it_does(
    call: str, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    portaudio = desk()
    opening = getattr(portaudio, call)

    def slow(*arguments: object, **options: object) -> object:
        frozen()
        return opening(*arguments, **options)

    monkeypatch.setattr(portaudio, call, slow, raising=False)
    monkeypatch.setattr(portaudio_thread, "CALL_TIMEOUT_S", 0.05)
    with pytest.raises(FrozenServerError, match=SAID):
        Microphone(portaudio=portaudio).__enter__()
    frozen.thaw()
    assert all(stream.closed for stream in portaudio.streams)


def test_a_microphone_that_cannot_be_closed_ends_in_an_error_after_the_summary(
    bundle: Bundle, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    portaudio, sink = desk(), Kept()
    portaudio.opening = ramp(16_000)
    close = FakeStream.close

    def slow(stream: FakeStream, ignore_errors: bool = True) -> None:
        frozen()
        close(stream, ignore_errors)

    monkeypatch.setattr(FakeStream, "close", slow)
    monkeypatch.setattr(microphone_module, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(Kept, "progress", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(FrozenServerError, match=SAID):
        listen(Microphone(portaudio=portaudio), Recognizer(bundle, provider="cpu"), [sink])
    assert isinstance(sink.events[-1], Summary)
    assert sink.events[-1].duration_s == pytest.approx(1.0, abs=0.02)


def test_a_signal_ends_the_wait_for_a_lost_microphone_that_cannot_be_closed(
    frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    portaudio = desk()
    portaudio.opening = ramp(320)
    monkeypatch.setattr(FakeStream, "close", lambda *_, **__: frozen())
    monkeypatch.setattr(microphone_module, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(microphone_module, "RETRY_S", 0.05)
    microphone = Microphone(portaudio=portaudio, stall_s=0.05).__enter__()
    blocks = iter(microphone)
    assert len(next(blocks).samples) == 320
    change = next(blocks).device_change
    assert change is not None
    assert change.state == "lost"
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(blocks)
    with pytest.raises(FrozenServerError):
        microphone.__exit__(None, None, None)


# With a real one


def started(pulse: VirtualMicrophone, *arguments: str, timeout_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALLING, str(timeout_s), *arguments],
        env=pulse.environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(running: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end; return stdout and stderr."""
    with running:
        try:
            out, err = running.communicate(timeout=WAIT_S)
        finally:
            running.kill()
    return out, err.replace("calling\n", "")


@pytest.mark.mic
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("run mic", signal.SIGINT),
        ("run mic", signal.SIGTERM),
        ("monitor", signal.SIGHUP),
        ("devices", signal.SIGINT),
    ],
)
def test_a_signal_ends_a_command_that_waits_for_the_server(
    pulse: VirtualMicrophone, command: str, number: signal.Signals
) -> None:
    with pulse.frozen():
        running = started(pulse, *command.split(), timeout_s=10 * WAIT_S)
        assert running.stderr
        assert running.stderr.readline() == "calling\n"
        time.sleep(0.3)  # it waits for the answer
        running.send_signal(number)
        out, err = ended(running)
    assert (running.returncode, out) == (3, "")
    assert err.startswith(f"mmtl: {SAID}")
    assert err.count("\n") == 1


@pytest.mark.mic
def test_a_signal_ends_the_doctor_that_waits_for_the_server(pulse: VirtualMicrophone) -> None:
    with pulse.frozen():
        running = started(pulse, "doctor", timeout_s=WAIT_S)
        assert running.stdout
        while "power mode" not in running.stdout.readline():
            assert running.poll() is None
        time.sleep(1.0)  # the next question is about the sound
        running.send_signal(signal.SIGINT)
        _, err = ended(running)
    assert (running.returncode, err) == (
        0,
        "mmtl: stopped during the check of portaudio\n",
    )


@pytest.mark.mic
def test_a_signal_ends_a_guided_session_that_waits_for_the_server(
    pulse: VirtualMicrophone, tmp_path: Path
) -> None:
    environment = {**pulse.environment, "XDG_DATA_HOME": str(tmp_path)}
    with pulse.frozen():
        terminal = Terminal(["calibrate", "anna", "--yes"], environment)
        try:
            terminal.wait_for("Ctrl-C stops at any time")
            time.sleep(1.0)
            terminal.press("\x03")
            assert terminal.leave() == 3
            assert SAID in terminal.text
            assert "Traceback" not in terminal.text
        finally:
            terminal.close()


@pytest.mark.mic
@pytest.mark.parametrize("command", ["run mic", "devices"])
def test_a_command_waits_for_the_server_no_longer_than_it_may(pulse: VirtualMicrophone, command: str) -> None:
    with pulse.frozen():
        out, err = ended(running := started(pulse, *command.split(), timeout_s=1.0))
    assert (running.returncode, out) == (3, "")
    assert err.startswith(f"mmtl: {SAID}")
    assert err.count("\n") == 1


class Recording:
    """`mmtl run mic --jsonl -` with sound to record, and the events it has written so far."""

    def __init__(self, pulse: VirtualMicrophone) -> None:
        options = ("--jsonl", "-", "--provider", "cpu", "--bundle", str(CNN_LSTM))
        self.process = started(pulse, "run", "mic", *options, timeout_s=WAIT_S)
        self.events: list[dict[str, Any]] = []

    def wait_for(self, kind: str, **fields: object) -> None:
        """Read events up to one of a kind."""
        assert self.process.stdout
        while not self.events or {**self.events[-1], **fields, "type": kind} != self.events[-1]:
            self.events.append(json.loads(self.process.stdout.readline()))

    def end(self, number: signal.Signals) -> list[str]:
        """Send a signal; return the lines on stderr, except warnings of delay."""
        self.process.send_signal(number)
        out, err = ended(self.process)
        self.events += map(json.loads, out.splitlines())
        assert (self.events[0]["type"], self.events[-1]["type"]) == ("session", "summary")
        assert self.events[-1]["duration_s"] >= 3.0
        return [line for line in err.splitlines() if "warning: events come" not in line]


@pytest.mark.mic
@pytest.mark.parametrize(("lost", "number"), [(False, signal.SIGHUP), (True, signal.SIGINT)])
def test_what_was_heard_before_the_server_froze_is_kept(
    pulse: VirtualMicrophone, lost: bool, number: signal.Signals
) -> None:
    with pulse.playing(demo_clip()):
        recording = Recording(pulse)
        recording.wait_for("window")
        with pulse.frozen():
            if lost:
                recording.wait_for("device", state="lost")
            (said,) = recording.end(number)
    assert recording.process.returncode == 3
    assert said.startswith(f"mmtl: {SAID}")


@pytest.mark.mic
@pytest.mark.slow
def test_a_server_that_answers_again_is_heard_again(pulse: VirtualMicrophone) -> None:
    with pulse.playing(demo_clip()):
        recording = Recording(pulse)
        recording.wait_for("window")
        with pulse.frozen():
            recording.wait_for("device", state="lost")
        recording.wait_for("device", state="back")
        recording.wait_for("window")
        assert recording.end(signal.SIGINT) == []
    assert recording.process.returncode == 0
    assert recording.events[-1]["dropped"] > 0
