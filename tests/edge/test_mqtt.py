"""Publishing against a real broker, on the loopback, and against none."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge import mqtt
from edge.errors import UsageError
from edge.events import Overrun, Session
from edge.mqtt import Mqtt, Target, parse_target
from tests.edge.schema import checked

client_module = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

needs_broker = pytest.mark.skipif(BROKER is None, reason="mosquitto is not installed")

SESSION = Session("demo", "default", None, "cpu", ("happy",), 3.0, 0.24, False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def wait_for(truth: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


@contextlib.contextmanager
def broker(folder: Path, port: int) -> Iterator[None]:
    """Run a broker that takes anybody from this machine."""
    assert BROKER
    configuration = folder / "broker.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n", "utf-8")
    command = [BROKER, "-c", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(port))
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def reader(port: int, topic: str) -> Iterator[list[tuple[str, str]]]:
    """Collect (topic, payload) of what is published."""
    heard: list[tuple[str, str]] = []
    subscribed = threading.Event()
    client = client_module.Client(client_module.CallbackAPIVersion.VERSION2)

    def on_connect(client: Any, *_: Any) -> None:
        client.subscribe(topic)

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: heard.append(
        (message.topic, message.payload.decode())
    )
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    try:
        assert subscribed.wait(15.0)
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


@needs_broker
def test_every_event_is_published_under_its_type_in_order(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    with broker(tmp_path, port), reader(port, "home/kitchen/#") as heard:
        with Mqtt(f"127.0.0.1:{port}/home/kitchen", said.append) as sink:
            sink.emit(SESSION)
            for number in range(200):
                sink.emit(Overrun(float(number), 0.1))
        wait_for(lambda: len(heard) == 201)
    events = [checked(payload) for _, payload in heard]
    assert [topic for topic, _ in heard[:2]] == ["home/kitchen/session", "home/kitchen/overrun"]
    assert [event["start_s"] for event in events[1:]] == list(range(200))
    assert said == []


@needs_broker
def test_a_broker_that_comes_late_gets_what_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "MOST_WAITING", 3)
    monkeypatch.setattr(mqtt, "GOODBYE_S", 10.0)
    port, said = free_port(), list[str]()
    sink = Mqtt(f"127.0.0.1:{port}/mmtl", said.append)
    for number in range(5):
        sink.emit(Overrun(float(number), 0.1))
    wait_for(lambda: bool(said))
    with broker(tmp_path, port), contextlib.ExitStack() as stack:
        with sink._changed:  # it may connect meanwhile, but not publish
            heard = stack.enter_context(reader(port, "mmtl/overrun"))
        sink.close()
        wait_for(lambda: len(heard) >= 3)
    assert [checked(payload)["start_s"] for _, payload in heard] == [2.0, 3.0, 4.0]
    assert said[-1] == f"2 events were not delivered to the broker at 127.0.0.1:{port}"


@needs_broker
def test_a_broker_that_restarts_is_found_again(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    with contextlib.ExitStack() as stack:
        with broker(tmp_path, port):
            sink = Mqtt(f"127.0.0.1:{port}/mmtl", said.append)
            stack.callback(sink.close)
            sink.emit(SESSION)
            wait_for(lambda: sink.undelivered == 0)
        wait_for(lambda: len(said) == 1)
        sink.emit(Overrun(1.0, 0.1))
        with broker(tmp_path, port):
            wait_for(lambda: sink.undelivered == 0)
            stack.close()
    assert "trying again" in said[0]
    assert len(said) == 1


def test_no_broker_never_holds_up_the_recogniser_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "GOODBYE_S", 0.1)
    port, said = free_port(), list[str]()
    sink = Mqtt(f"127.0.0.1:{port}/mmtl", said.append)
    began = time.monotonic()
    for _ in range(3_000):
        sink.emit(SESSION)
    assert time.monotonic() - began < 15.0
    assert len(sink._waiting) == mqtt.MOST_WAITING
    wait_for(lambda: bool(said))
    sink.close()
    sink.close()
    sink.emit(SESSION)
    assert len(said) == 2
    assert said[0].startswith(f"no MQTT broker at 127.0.0.1:{port} (no answer)")
    assert said[1].startswith("3000 events were not delivered")


def test_a_broker_that_never_answers_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "GOODBYE_S", 0.1)
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sink = Mqtt(f"127.0.0.1:{silent.getsockname()[1]}/mmtl", said.append)
        stack.callback(sink.close)
        for _ in range(2_000):
            sink.emit(SESSION)
        assert len(sink._waiting) <= mqtt.MOST_WAITING
    assert said[-1].startswith("2000 events were not delivered")


def test_a_broker_that_takes_nothing_more_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "GOODBYE_S", 0.1)
    monkeypatch.setattr(mqtt, "MOST_WAITING", 10)
    said: list[str] = []
    large = replace(SESSION, source=1_000_000 * "a")
    with contextlib.ExitStack() as stack:
        stuck = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sink = Mqtt(f"127.0.0.1:{stuck.getsockname()[1]}/mmtl", said.append)
        stack.callback(sink.close)
        connection = stack.enter_context(stuck.accept()[0])
        connection.sendall(b"\x20\x02\0\0")  # CONNACK, and nothing is read ever after
        wait_for(lambda: sink._connected)
        for _ in range(100):
            sink.emit(large)
        assert len(sink._waiting) == 10
        assert sink._in_flight <= mqtt.AT_ONCE
    assert "events were not delivered" in said[-1]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("localhost/mmtl", Target("localhost", 1883, "mmtl")),
        ("192.168.1.5:8883/home/kitchen/", Target("192.168.1.5", 8883, "home/kitchen")),
        ("[::1]:1884/mmtl", Target("::1", 1884, "mmtl")),
        ("[::1]/mmtl", Target("::1", 1883, "mmtl")),
    ],
)
def test_a_target_names_host_port_and_topic(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "localhost/", "/mmtl", "localhost:/mmtl", "localhost:0/mmtl", "localhost:x/mmtl"),
        *("localhost:65536/mmtl", "localhost/#", "localhost/a/+/b", "[::1]x/mmtl", "localhost//", "::1/mmtl"),
    ],
)
def test_what_is_no_place_to_publish_to_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected HOST\[:PORT\]/TOPIC"):
        parse_target(text)
