"""Lag of six clients of `mmtl serve` while a seventh floods the server: a real process and real sockets.

    python benchmarks/flood.py [--seconds 12]

One WebSocket client sends frames without sound as fast as the server accepts them, reads nothing and
reconnects when it is disconnected. Six TCP clients send speech in real time. Their lag is the time from when
the last sample of a window was due to the arrival of its event. The first row is without a flood.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import platform
import socket
import subprocess
import threading
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.server_process import serving
from edge.arrays import SAMPLE_RATE
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics.machine import resident_mb

CLIENTS = 6
PIECE = 1_280
"""Samples per message of a client: 80 ms."""
MASK = bytes(4)
FLOODS = {
    "nothing": b"",
    "pings": bytes([0x89, 0xFD]) + MASK + bytes(125),
    "empty messages": bytes([0x82, 0x80]) + MASK,
    "messages of one byte": bytes([0x82, 0x81]) + MASK + b"\0",
    "empty fragments": bytes([0x00, 0x80]) + MASK,
}
FIRST_FRAGMENT = bytes([0x02, 0x80]) + MASK


@dataclass(frozen=True)
class Served:
    """A server process and its ports."""

    process: subprocess.Popen[str]
    tcp: int
    websocket: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load before the start {load:.1f}")
    print("flood of                lag p50 / p95 / max              memory")
    for name, frame in FLOODS.items():
        arguments = ["--tcp", "0", "--websocket", "0", "--provider", "cpu"]
        with serving(*arguments, listeners=2) as (process, [tcp, websocket]):
            measure(Served(process, tcp, websocket), name, frame, options.seconds)


def measure(served: Served, name: str, frame: bytes, seconds: float) -> None:
    """Print the lag of the clients during a flood, and the memory of the server."""
    before, stop = resident_mb(served.process.pid), threading.Event()
    attacker = threading.Thread(target=flood, args=(served.websocket, frame, stop))
    if frame:
        attacker.start()
    lags = asyncio.run(all_clients(served.tcp, seconds))
    grown = resident_mb(served.process.pid) - before
    stop.set()
    if frame:
        attacker.join()
    p50, p95, longest = np.percentile(lags, [50, 95, 100])
    print(f"{name:22}  {p50:.3f} / {p95:.3f} / {longest:.3f} s  {grown:+7.1f} MB", flush=True)


def flood(port: int, frame: bytes, stop: threading.Event) -> None:
    """Send frames as fast as they are accepted and read nothing; reconnect when disconnected."""
    data = frame * (2**16 // len(frame))
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5.0) as client:
            key = base64.b64encode(os.urandom(16)).decode()
            client.sendall(
                f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            client.sendall(FIRST_FRAGMENT if frame == FLOODS["empty fragments"] else b"")
            client.settimeout(0.5)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    client.sendall(data)
        time.sleep(0.05)


async def all_clients(port: int, seconds: float) -> list[float]:
    """Run the clients, and return the lags of all their windows in seconds."""
    sound = (32_767 * np.resize(read_clip(demo_clip()), round(seconds * SAMPLE_RATE))).astype("<i2")
    lags = await asyncio.gather(*(client(port, sound) for _ in range(CLIENTS)))
    return list(itertools.chain.from_iterable(lags))


async def client(port: int, sound: np.ndarray) -> list[float]:
    """Send sound in real time, and return the lags of the windows in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    began_s = time.perf_counter()
    listening = asyncio.ensure_future(listen(reader, began_s))
    for start in range(0, len(sound) - PIECE + 1, PIECE):
        due_s = began_s + (start + PIECE) / SAMPLE_RATE
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        writer.write(sound[start : start + PIECE].tobytes())
    writer.write_eof()
    lags = await listening
    writer.close()
    return lags


async def listen(reader: asyncio.StreamReader, began_s: float) -> list[float]:
    """Read events to the end of the stream; return the lag of each window."""
    lags = []
    async for line in reader:
        event = json.loads(line)
        if event["type"] == "window":
            lags.append(time.perf_counter() - began_s - event["end_s"])
    return lags


if __name__ == "__main__":
    main()
