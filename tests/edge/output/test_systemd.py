"""What systemd is told, heard on a socket as systemd listens on one."""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.block import Block
from edge.events import Device, Event, Session, Summary, Window
from edge.model.bundle import Bundle
from edge.output import systemd as readiness
from edge.output.systemd import VARIABLE, ServiceManager, notify
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer
from tests.command_line import exit_code_of

SESSION = Session("mic:USB", "default", "anna", "tensorrt", ("happy",), 3.0, 0.24, False)


class Manager:
    """A service manager, of which only the ear is there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return what was sent since, a datagram each."""
        told = []
        try:
            while True:
                told.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    listening = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv(VARIABLE, listening.address)
    yield listening
    listening.close()


@pytest.fixture
def sink() -> ServiceManager:
    def unexpected(line: str) -> None:
        raise AssertionError(line)

    return ServiceManager(report=unexpected)


class Speech:
    """A source of one block."""

    name = "speech"
    live = False

    def __enter__(self) -> Speech:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __iter__(self) -> Iterator[Block]:
        yield Block(np.zeros(16_000, np.float32), 0.0)


def test_the_session_makes_it_ready_and_says_what_is_heard(manager: Manager, sink: ServiceManager) -> None:
    sink.emit(SESSION)
    assert manager.heard() == ["READY=1\nSTATUS=listening to mic:USB: default, profile anna, tensorrt"]


def test_a_microphone_that_goes_is_seen_in_the_status(manager: Manager, sink: ServiceManager) -> None:
    sink.emit(Device(time_s=3.0, name="USB", state="lost"))
    assert manager.heard() == ["STATUS=0:03.0  device USB: lost"]


def test_a_device_cannot_smuggle_an_assignment_into_the_status(
    manager: Manager, sink: ServiceManager
) -> None:
    sink.emit(Device(time_s=3.0, name="USB\nMAINPID=1", state="lost"))
    assert manager.heard() == ["STATUS=0:03.0  device USB?MAINPID=1: lost"]


def test_a_run_is_ready_first_and_stops_last(manager: Manager, sink: ServiceManager, bundle: Bundle) -> None:
    listen(Speech(), Recognizer(bundle, provider="cpu"), [sink])
    first, last = manager.heard()
    assert first.startswith("READY=1\n")
    assert last.startswith("STOPPING=1\n")


def test_a_name_in_the_abstract_namespace_is_understood() -> None:
    listening = Manager(f"@mmtl-test-{os.getpid()}")
    notify("READY=1", listening.address)
    assert listening.heard() == ["READY=1"]
    listening.close()


def test_without_a_service_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "socket", None)
    notify("READY=1", "")


def test_a_service_manager_that_is_gone_is_said_once_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    said: list[str] = []
    sink = ServiceManager(report=said.append)
    sink.emit(SESSION)
    sink.emit(SESSION)
    assert len(said) == 1
    assert "No such file" in said[0]


def test_a_warm_recognizer_says_what_a_fresh_one_says(bundle: Bundle) -> None:
    sound = np.random.default_rng(0).normal(0.0, 0.1, 64_000).astype(np.float32)
    fresh, warmed = Recognizer(bundle, provider="cpu"), Recognizer(bundle, provider="cpu")
    warmed.warm_up()
    assert _said(warmed, sound) == _said(fresh, sound)


def test_warming_runs_every_graph(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer(bundle, provider="cpu")
    used: set[str] = set()
    for name in ("encode", "classify"):
        real = getattr(recognizer.engine, name)

        def noted(*arguments: Array, name: str = name, real: object = real) -> object:
            used.add(name)
            assert callable(real)
            return real(*arguments)

        monkeypatch.setattr(recognizer.engine, name, noted)
    recognizer.warm_up()
    assert used == {"encode", "classify"}


def test_a_service_is_warm_before_it_is_ready(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[list[str]] = []

    warm_up = Recognizer.warm_up

    def watched(recognizer: Recognizer) -> None:
        warm_up(recognizer)
        before.append(manager.heard())

    monkeypatch.setattr(Recognizer, "warm_up", watched)
    assert exit_code_of("run", "demo", "--provider", "cpu") == 0
    assert before == [[]]
    assert manager.heard()[0].startswith("READY=1\nSTATUS=listening to demo")
    assert capsys.readouterr().err == ""


def test_only_sockets_of_this_machine_are_made() -> None:
    tree = ast.parse(Path(readiness.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "socket"
    }
    assert used == {"socket", "AF_UNIX", "SOCK_DGRAM"}


def _said(recognizer: Recognizer, sound: Array) -> list[Event]:
    events = [*recognizer.feed(sound), *recognizer.flush()]
    assert any(isinstance(event, Window) for event in events)
    return [
        replace(event, latency_ms={}, lag_ms=0.0) if isinstance(event, Window) else event
        for event in events
        if not isinstance(event, Summary)
    ]
