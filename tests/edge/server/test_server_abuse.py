"""The server under clients that misbehave, by mistake or on purpose."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edge.arrays import Array
from edge.events import Device, Event
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from edge.server.rate_limits import QUIET_S, Limits, QuietLog
from edge.server.websocket_transport import LARGEST_MESSAGE
from tests.edge.schema import checked
from tests.edge.server.clients import (
    FAST,
    SOON_S,
    Open,
    Running,
    connected,
    messages,
    rest,
    said_to,
    types,
    wait_for,
    websocket,
)

Talk = Callable[..., Array]


class Late:
    """Makes recognisers, but not for clients until it is told to: the server makes some before it opens."""

    def __init__(self, make: Callable[[], Recognizer]) -> None:
        self._make = make
        self._clients = False
        self.told = threading.Event()

    def hold_back(self) -> None:
        self._clients = True

    def __call__(self) -> Recognizer:
        assert not self._clients or self.told.wait(SOON_S)
        return self._make()


# Clients that misbehave


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"rate": 1}\n', "a rate of 1 arrived, expected 4000 to 192000 Hz"),
        (b'{"rate": "high"}\n', "a rate of high arrived"),
        (b'{"rate": 16000.5}\n', "a rate of 16000.5 arrived"),
        (b'{"rate": 48000', "not complete"),
        (b'{"rate: 48000}\n', "expected sound or"),
        (b'{"pitch": 48000}\n', "expected sound or"),
        (b'{"' + 2_000 * b"a" + b"\n", "the first line has"),
        (b'{"' + 2_000_000 * b"a", "not complete"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a sound file arrived"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "compressed sound arrived (WebM or Matroska)"),
        (b"POST /asr HTTP/1.1\r\nHost: localhost\r\n\r\n", "a network protocol arrived (HTTP)"),
        (bytes.fromhex("16030102000100") + bytes(64), "a network protocol arrived (TLS)"),
    ],
)
def test_a_beginning_that_cannot_be_meant_is_an_error_event(serving: Open, data: bytes, message: str) -> None:
    with serving() as running, connected(running) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        with client.makefile("r") as lines:
            assert checked(lines.readline())["type"] == "session"
            error = checked(lines.readline())
    assert error["type"] == "error"
    assert message in error["message"]


def test_garbage_is_only_noise(serving: Open) -> None:
    garbage = np.random.default_rng(0).bytes(64_001)
    with serving() as running:
        events = said_to(running, b"\xff" + garbage)
    assert types(events)[-1] == "summary"
    assert events[-1]["duration_s"] == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("text", ["hello", "[]", "{}", '{"end": false}', '{"rate": 8000}', "[" * 50_000])
def test_text_amid_the_sound_is_an_error_event_and_the_tail_still_comes(serving: Open, text: str) -> None:
    with serving() as running, websocket(running) as client:
        client.send(bytes(3_200))
        client.send(text)
        events = messages(client)
    assert types(events) == ["session", "error", "summary"]
    assert events[-1]["duration_s"] == 0.1


def test_a_message_that_is_too_long_is_refused(serving: Open) -> None:
    from websockets.exceptions import ConnectionClosedError

    with serving() as running:
        with websocket(running) as client:
            with contextlib.suppress(ConnectionClosedError):  # it may be refused before all of it is sent
                client.send(bytes(LARGEST_MESSAGE + 1))
            with pytest.raises(ConnectionClosedError) as closed:
                messages(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert types(said_to(running, bytes(3_200))) == ["session", "summary"]


def test_what_is_no_handshake_disturbs_nobody(serving: Open, capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as running:
        with socket.create_connection(("127.0.0.1", running.ports["websocket"]), SOON_S) as client:
            client.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while client.recv(1_000):
                    pass
        assert types(said_to(running, bytes(3_200))) == ["session", "summary"]
    assert capfd.readouterr() == ("", "")


def _have_left(running: Running, clients: int) -> bool:
    return sum(line.endswith((": disconnected", ": done")) for line in running.said) == clients


def test_clients_that_vanish_leave_room_for_others(serving: Open, sound: bytes) -> None:
    with serving(Limits(speed=1e6, connections=2)) as running:
        for number in range(4):
            client = connected(running)
            client.sendall(sound)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # a reset, not an end
            wait_for(functools.partial(_have_left, running, number + 1))
        assert types(said_to(running, bytes(3_200))) == ["session", "summary"]
    assert not any("unexpected" in line or "refused" in line for line in running.said)


def test_one_client_too_many_is_told_so(serving: Open) -> None:
    with serving(Limits(connections=1)) as running, connected(running) as first:
        with first.makefile("r") as lines:
            assert checked(lines.readline())["type"] == "session"
        (refusal,) = said_to(running)
        assert refusal["message"] == "there are 1 clients: try again later"
        with websocket(running) as client:
            assert types(messages(client)) == ["error"]
        first.sendall(bytes(3_200))
        first.shutdown(socket.SHUT_WR)
        assert types(rest(first)) == ["summary"]


def test_an_idle_client_is_let_go_with_its_tail(
    serving: Open, make: Callable[[], Recognizer], sound: bytes
) -> None:
    late = Late(make)
    with serving(Limits(speed=1e6, idle_s=0.3), late) as running:
        late.hold_back()
        with connected(running) as client:
            client.sendall(sound)
            late.told.set()
            events = rest(client)
        with websocket(running) as other:
            assert types(messages(other)) == ["session", "error", "summary"]
    (message,) = [event["message"] for event in events if event["type"] == "error"]
    assert message.startswith("no sound came for 0.3 s")
    assert events[-1]["type"] == "summary"
    assert events[-1]["windows"] > 0


def test_a_client_that_sends_empty_messages_only_is_idle(serving: Open) -> None:
    closed = pytest.importorskip("websockets.exceptions", reason="websockets is not installed")
    with serving(Limits(idle_s=0.3)) as running, websocket(running) as client:
        deadline = time.monotonic() + 10.0
        with contextlib.suppress(closed.ConnectionClosed):
            while time.monotonic() < deadline:
                client.send(b"")
        assert time.monotonic() < deadline


def test_a_client_that_does_not_read_is_let_go_and_harms_nobody(bundle: Bundle, serving: Open) -> None:
    class Talkative(Recognizer):
        """Says so much that the buffers between the two ends are full at once."""

        def feed(self, samples: Array) -> list[Event]:
            return [*super().feed(samples), *(Device(0.0, 60_000 * "a", "lost") for _ in range(200))]

    late = Late(functools.partial(Talkative, bundle, provider="cpu"))
    with serving(Limits(speed=1e6, idle_s=0.5), late) as running:
        late.hold_back()
        client = connected(running)
        client.sendall(bytes(3_200))
        late.told.set()
        wait_for(lambda: any(line.endswith("disconnected") for line in running.said))
        assert types(said_to(running))[0] == "session"
        client.close()


def test_a_client_that_is_too_fast_is_held_back_and_loses_nothing(serving: Open) -> None:
    second = bytes(32_000)
    with serving(Limits(speed=20.0)) as running, connected(running) as client:
        began = time.monotonic()
        client.sendall(10 * second)
        client.shutdown(socket.SHUT_WR)
        events = rest(client)
    assert time.monotonic() - began > 0.4
    assert events[-1]["duration_s"] == 10.0


def test_a_held_back_client_cannot_fill_the_memory(serving: Open) -> None:
    with serving(Limits(speed=0.1)) as running, connected(running) as client:
        client.setblocking(False)
        taken = 0
        while select.select([], [client], [], 0.3)[1] and taken < 2**26:
            taken += client.send(bytes(2**16))
    assert taken < 2**25


def test_trouble_with_one_client_is_said_and_leaves_the_others_alone(bundle: Bundle, serving: Open) -> None:
    trouble = threading.Event()

    def maker() -> Recognizer:
        if trouble.is_set():
            trouble.clear()
            raise RuntimeError("bad luck")
        return Recognizer(bundle, provider="cpu")

    with serving(FAST, maker) as running:
        trouble.set()
        (error,) = said_to(running)
        assert (error["type"], "bad luck" in error["message"]) == ("error", False)
        assert "the server failed (RuntimeError)" in error["message"]
        assert types(said_to(running, bytes(3_200))) == ["session", "summary"]
    assert any("unexpected: RuntimeError: bad luck" in line for line in running.said)


def test_the_same_trouble_is_said_once_a_minute_with_how_often_it_happened() -> None:
    said: list[str] = []
    now_s = 0.0
    log = QuietLog(said.append, lambda: now_s)
    for kind in ["files", "files", "torn", "files", "torn"]:
        log.note(kind, f"trouble: {kind}")
    assert said == ["trouble: files", "trouble: torn"]
    now_s = QUIET_S
    log.note("files", "trouble: files")
    log.note("torn", "trouble: torn")
    assert said[2:] == [
        "trouble: files (2 more since the last such line)",
        "trouble: torn (1 more since the last such line)",
    ]
