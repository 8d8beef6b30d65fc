"""Servers on the loopback and their clients: real sockets, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.arrays import Array
from edge.server.access import Address
from edge.server.client_session import Service
from edge.server.rate_limits import Limits
from edge.server.server import Server
from tests.edge.schema import checked

ROOT = Path(__file__).parents[3]
Events = list[dict[str, Any]]

SOON_S = 60.0
"""No test waits for this long, unless it fails."""
FAST = Limits(speed=1e6, idle_s=SOON_S, goodbye_s=SOON_S)
END = json.dumps({"end": True})


@dataclass
class Running:
    """A server: its ports, by "tcp" and "websocket", and what it said to whoever runs it."""

    ports: dict[str, int]
    said: list[str] = field(default_factory=list)


Open = Callable[..., contextlib.AbstractContextManager[Running]]
"""Runs a server: takes limits, what makes recognisers, what finds profiles and the rules of access."""


@contextlib.contextmanager
def open_server(service: Service) -> Iterator[Running]:
    """Run a server in a thread of its own, both kinds of port open, and check that it ends in time."""
    running, ready = Running({}), threading.Event()
    handle: dict[str, Any] = {}

    async def main() -> None:
        server = Server(service, running.said.append)
        handle.update(server=server, loop=asyncio.get_running_loop())
        anywhere = Address("127.0.0.1", 0)

        def note(ports: dict[str, int]) -> None:
            running.ports.update(ports)
            ready.set()

        await server.run(tcp=anywhere, websocket=anywhere, ready=note)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(SOON_S)
        yield running
    finally:
        handle["loop"].call_soon_threadsafe(handle["server"].stop)
        thread.join(2 * SOON_S)
        assert not thread.is_alive()


@dataclass
class Serving(Running):
    """A server process."""

    process: subprocess.Popen[str] = field(kw_only=True)

    def resident_mb(self) -> float:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4_096 / 1e6


@contextlib.contextmanager
def serve_process(*arguments: str) -> Iterator[Serving]:
    """Run `mmtl serve` in a process of its own; killed at the end, if it is still there."""
    program = [sys.executable, "-c", "from edge.cli.main import main; main()", "serve", *arguments]
    with subprocess.Popen(
        program, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        running = Serving({}, process=process)
        reader: threading.Thread | None = None
        try:
            for _ in {"--tcp", "--websocket"} & set(arguments):
                line = process.stderr.readline()
                running.said.append(line)
                running.ports[line.split()[3]] = int(line.rpartition(":")[2])
            reader = threading.Thread(target=running.said.extend, args=(process.stderr,))
            reader.start()
            yield running
        finally:
            process.kill()
            if reader:
                reader.join()


def raw(samples: Array) -> bytes:
    return (32_767 * samples).astype("<i2").tobytes()


def connected(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.ports["tcp"]), SOON_S)


def rest(client: socket.socket) -> Events:
    """Read what the server says until it hangs up."""
    with client.makefile("r", encoding="utf-8") as lines:
        return [checked(line) for line in lines]


def said_to(running: Running, *pieces: bytes) -> Events:
    """Send pieces, end the stream, and return all events."""
    with connected(running) as client:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return rest(client)


def websocket(running: Running, query: str = "", address: str = "", **options: Any) -> Any:
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    options = {"proxy": None, **options}
    return client.connect(address or f"ws://127.0.0.1:{running.ports['websocket']}/{query}", **options)


def messages(client: Any) -> Events:
    return [checked(message) for message in client]


def types(events: Events) -> list[str]:
    return [event["type"] for event in events]


def wait_for(truth: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.01)
