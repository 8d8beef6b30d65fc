"""What a client of the server can take: frames, memory, places, descriptors. Floods come over raw sockets."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.recognition.recognizer import Recognizer
from edge.server import rate_limits, websocket_transport
from edge.server.access import Address
from edge.server.client_session import Service, checked_rate
from edge.server.rate_limits import (
    FRAMES_AT_ONCE,
    FRAMES_PER_S,
    MOST_UNSENT,
    SLOWEST_PACE,
    FrameBudget,
    IdleAllowance,
    Limits,
    require_descriptors,
)
from edge.server.server import serve
from tests.cnn_lstm import CNN_LSTM
from tests.edge.server.clients import (
    END,
    ROOT,
    SOON_S,
    Events,
    Open,
    Running,
    connected,
    messages,
    rest,
    said_to,
    serve_process,
    types,
    wait_for,
    websocket,
)

MASK = bytes(4)
PING = bytes([0x89, 0xFD]) + MASK + bytes(125)
FLOODS = {
    "pings": PING,
    "pongs": bytes([0x8A, 0x80]) + MASK,
    "empty messages": bytes([0x82, 0x80]) + MASK,
    "empty texts": bytes([0x81, 0x80]) + MASK,
    "fragments": bytes([0x00, 0x81]) + MASK + b"\0",
}
FIRST_FRAGMENT = bytes([0x02, 0x80]) + MASK
SHORT = bytes(3_200)


def raw_websocket(running: Running) -> socket.socket:
    """Connect without a library, which would not send what follows."""
    client = socket.create_connection(("127.0.0.1", running.ports["websocket"]), SOON_S)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(1)
    assert received.startswith(b"HTTP/1.1 101 ")
    return client


def hung_up(client: socket.socket, data: bytes) -> bool:
    """Send again and again without reading; tell whether the connection broke within a minute."""
    deadline = time.monotonic() + SOON_S
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < deadline:
            client.sendall(data)
        return False
    return True


# Frames


@pytest.mark.parametrize("kind", list(FLOODS))
def test_a_flood_of_frames_without_sound_is_hung_up_on_and_leaves_the_others_alone(kind: str) -> None:
    with serve_process("--tcp", "0", "--websocket", "0", "--bundle", str(CNN_LSTM)) as server:
        before_mb = server.resident_mb()
        for _ in range(3):
            with raw_websocket(server) as client:
                client.sendall(FIRST_FRAGMENT if kind == "fragments" else b"")
                assert hung_up(client, FLOODS[kind] * (2**16 // len(FLOODS[kind])))
        wait_for(lambda: sum("sends too many pings" in said for said in server.said) == 3)
        assert server.resident_mb() < before_mb + 30.0
        assert types(said_to(server, SHORT)) == ["session", "summary"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give clients on a busy machine the time to read why they are cut off."""
    monkeypatch.setattr(websocket_transport, "ABORT_S", SOON_S)


def test_a_client_that_floods_is_told_why(serving: Open, patient: None) -> None:
    from websockets.exceptions import ConnectionClosedError

    def flood() -> None:
        with websocket(running) as client:
            for _ in range(FRAMES_AT_ONCE + 10):
                client.send(b"")
            messages(client)

    with serving() as running, pytest.raises(ConnectionClosedError) as closed:
        flood()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert "too many pings, empty messages or fragments" in closed.value.rcvd.reason


def test_a_client_that_floods_on_is_told_why_before_it_is_cut_off(serving: Open, patient: None) -> None:
    """Closing with unread bytes would reset the connection: the next send fails, and the reason is lost."""
    with serving() as running, raw_websocket(running) as client:
        client.settimeout(SOON_S)
        client.sendall(FLOODS["empty messages"] * (FRAMES_AT_ONCE + 10_000))
        for _ in range(10):
            time.sleep(0.02)
            client.sendall(FLOODS["empty messages"])
        received = b""
        while data := client.recv(4_096):
            received += data
    assert b"too many pings, empty messages or fragments" in received


def test_answers_that_nobody_reads_are_bounded(serving: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "FRAMES_AT_ONCE", 10**9)
    with serving() as running, raw_websocket(running) as client:
        assert hung_up(client, PING * 500)
        wait_for(lambda: any(f"does not read: {MOST_UNSENT} bytes" in said for said in running.said))


def test_pings_and_fragments_in_use_are_served(serving: Open) -> None:
    with serving() as running, websocket(running) as client:
        for _ in range(FRAMES_AT_ONCE // 2):
            client.send([SHORT[:1_600], SHORT[1_600:]])
            assert client.ping().wait(SOON_S)
            time.sleep(2.0 / FRAMES_PER_S)
        client.send(END)
        summary = messages(client)[-1]
    assert summary["duration_s"] == pytest.approx(0.1 * FRAMES_AT_ONCE / 2)


def test_the_frame_budget_is_a_burst_and_a_rate() -> None:
    budget = FrameBudget()
    assert [budget.spend(now_s=5.0) for _ in range(FRAMES_AT_ONCE + 1)] == [True] * FRAMES_AT_ONCE + [False]
    budget = FrameBudget()
    times_s = [100.0 + number / FRAMES_PER_S for number in range(10 * FRAMES_AT_ONCE)]
    assert all(map(budget.spend, times_s))


# Places


def drip(client: socket.socket, data: bytes, over: Callable[[], bool]) -> None:
    """Send a little now and then until it is over."""
    deadline = time.monotonic() + SOON_S
    with contextlib.suppress(ConnectionError):
        while not over():
            assert time.monotonic() < deadline
            client.sendall(data)
            time.sleep(0.02)


def test_a_byte_now_and_then_keeps_no_place(serving: Open) -> None:
    def let_go() -> bool:
        return sum("less than half of real time" in said for said in running.said) == 2

    with serving(Limits(idle_s=0.5, goodbye_s=SOON_S)) as running:
        with connected(running) as client:
            events: Events = []
            reader = threading.Thread(target=lambda: events.extend(rest(client)))
            reader.start()
            drip(client, b"\0", lambda: not reader.is_alive())
            reader.join(SOON_S)
        assert types(events) == ["session", "error", "summary"]
        assert "less than half of real time" in events[1]["message"]
        with raw_websocket(running) as client:
            drip(client, bytes([0x82, 0x81]) + MASK + b"\0", let_go)
        wait_for(let_go)


def test_a_flood_of_messages_of_one_byte_keeps_no_place(serving: Open) -> None:
    with serving(Limits(idle_s=0.5, goodbye_s=1.0)) as running, raw_websocket(running) as client:
        assert hung_up(client, (bytes([0x82, 0x81]) + MASK + b"\0") * 9_000)
        wait_for(lambda: any("less than half of real time" in said for said in running.said))


@pytest.mark.parametrize(("pace", "kept"), [(1.0, True), (SLOWEST_PACE, True), (0.9 * SLOWEST_PACE, False)])
def test_sound_near_real_time_keeps_a_place(pace: float, kept: bool) -> None:
    allowance, least_s = IdleAllowance(30.0), 30.0
    for _ in range(10_000):
        allowance.spend(0.08)
        least_s = min(least_s, allowance.left_s)
        allowance.earn(0.08 * pace)
    assert (least_s > 0.0) is kept


def test_a_pause_is_allowed_once_and_earned_back_by_sound() -> None:
    allowance = IdleAllowance(30.0)
    allowance.earn(1_000.0)
    assert allowance.left_s == 30.0
    allowance.spend(29.0)
    allowance.spend(2.0)
    assert allowance.left_s == 0.0
    allowance.earn(5.0)
    assert allowance.left_s == 10.0


def test_a_busy_server_is_not_the_clients_fault_unless_it_sends_next_to_nothing() -> None:
    allowance = IdleAllowance(30.0)
    allowance.earn(sound_s=0.5, compute_s=4.0)
    assert allowance.left_s == 30.0
    allowance.earn(sound_s=1 / 32_000, compute_s=4.0)
    assert allowance.left_s == pytest.approx(26.0, abs=0.01)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE"])
def test_an_http_request_to_the_tcp_port_is_hung_up_on_at_once(serving: Open, method: str) -> None:
    request = f"{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n".encode()
    with serving() as running:
        for _ in range(3):
            with connected(running) as client:
                began_s = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    client.sendall(request + SHORT)
                    session, error = rest(client)
                    assert (session["type"], error["type"]) == ("session", "error")
                    assert error["message"].startswith("a network protocol arrived (HTTP)")
                assert time.monotonic() - began_s < SOON_S / 2
    said = [line for line in running.said if "HTTP request was refused" in line]
    assert len(said) == 1


@pytest.mark.parametrize("asked", [44_100.0, "44100.0", "44100", 44_100])
def test_a_whole_number_may_be_written_as_a_float(asked: object) -> None:
    assert checked_rate(asked) == 44_100
    assert checked_rate(json.loads(json.dumps(asked))) == 44_100


@pytest.mark.parametrize(
    "asked", [44_100.5, float("nan"), float("inf"), 1e300, "44100.", ".0", "1e4", "٤٤١٠٠"]
)
def test_other_numbers_are_no_rate(asked: object) -> None:
    with pytest.raises(UsageError, match="expected 4000 to 192000 Hz"):
        checked_rate(asked)


def test_what_a_client_says_cannot_steer_the_terminal_of_the_server(serving: Open) -> None:
    with serving() as running:
        (_, error, _) = said_to(running, json.dumps({"rate": "\x1b[2J\u009b"}).encode() + b"\n")
        assert "\x1b[2J" in error["message"]
    assert any("a rate of ?[2J? arrived" in line for line in running.said)
    assert all(line.isprintable() for line in running.said)


# Ready before the port opens


def test_what_clients_need_is_loaded_before_the_port_opens(tmp_path: Path, sound: bytes) -> None:
    folder = Path(shutil.copytree(CNN_LSTM, tmp_path / "bundle"))
    with serve_process("--tcp", "0", "--bundle", str(folder), "--provider", "cpu") as server:
        shutil.rmtree(folder)
        clients = [connected(server) for _ in range(2 * (os.cpu_count() or 1))]
        for client in clients:
            client.sendall(sound)
            client.shutdown(socket.SHUT_WR)
        assert {"window", "summary"} <= set.intersection(*(set(types(rest(client))) for client in clients))
        for client in clients:
            client.close()


def test_a_recognizer_that_does_not_work_opens_no_port(make: Callable[[], Recognizer], serving: Open) -> None:
    def broken() -> Recognizer:
        raise UsageError("no recogniser today")

    threads = threading.active_count()
    with pytest.raises(UsageError, match="no recogniser today"):
        serve(Service(broken), tcp=Address("127.0.0.1", 0))
    assert threading.active_count() == threads


def limited(soft: int, hard: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mmtl serve` under a limit on open files until it ends, or for some seconds."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, "
        f"({soft}, {hard})); from edge.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "serve", "--tcp", "0", "--provider", "cpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SOON_S)


def test_too_few_descriptors_for_the_clients_are_refused_at_the_start() -> None:
    done = limited(128, 128, "--clients", "100")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "100 clients need" in done.stderr
    assert "ulimit -n" in done.stderr


@pytest.mark.parametrize("idle_s", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_time_that_is_none_is_refused(idle_s: float) -> None:
    with pytest.raises(UsageError, match="invalid idle time"):
        Limits(idle_s=idle_s)


def test_the_limit_on_descriptors_is_raised_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append((kind, limits)))
    require_descriptors(16)
    assert asked == []
    require_descriptors(1_000)
    ((kind, (soft, hard)),) = asked
    assert (kind, hard) == (resource.RLIMIT_NOFILE, 4_096)
    assert 1_000 < soft < 1_300
    with pytest.raises(UsageError, match=r"5000 clients need \d+ open files, but this process may have 4096"):
        require_descriptors(5_000)
