"""How many live clients `mmtl serve` follows on this machine, and what a hostile one costs the others.

    python benchmarks/server_load.py [--clients 6,24,48] [--seconds 12]

The server is a process of its own; clients send the demo clip over TCP in blocks of 80 ms, at the pace of
a microphone. A window's lag is the time from when its last sample was due to when its event was read, so
it contains the network, the queue and the computation. The clients of this script take CPU time too.

The floods come from one WebSocket client that reads nothing while six others are served.
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
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.audio import read_clip
from edge.sources import demo_clip

BLOCK_S = 0.08
LARGEST_LAG_S = 0.5
"""A client counts as followed up to this lag, by the 95th percentile."""
MASK = bytes(4)
FLOODS = {
    "pings": bytes([0x89, 0xFD]) + MASK + bytes(125),
    "empty messages": bytes([0x82, 0x80]) + MASK,
    "messages of one byte": bytes([0x82, 0x81]) + MASK + b"\0",
    "empty fragments": bytes([0x00, 0x80]) + MASK,
}


@dataclass(frozen=True)
class Served:
    """A server process."""

    tcp: int
    websocket: int
    process: subprocess.Popen[str]

    def resident_mb(self) -> float:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", default="6,12,24,48")
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with server() as served:
        for clients in map(int, options.clients.split(",")):
            lags = asyncio.run(listen(served.tcp, clients, options.seconds))
            followed = float(np.percentile(lags, 95)) <= LARGEST_LAG_S
            print(f"{clients:4} clients: {described(lags)}{'' if followed else '  (not followed)'}")
    for name, frame in FLOODS.items():
        with server() as served:
            flood(served, name, frame, options.seconds)


def flood(served: Served, name: str, frame: bytes, seconds: float) -> None:
    """Print what six clients notice of a flood, and what it costs in memory."""
    before, stop = served.resident_mb(), threading.Event()
    attacker = threading.Thread(target=send_flood, args=(served.websocket, frame, stop))
    attacker.start()
    lags = asyncio.run(listen(served.tcp, 6, seconds))
    grown = served.resident_mb() - before
    stop.set()
    attacker.join()
    print(f"flood of {name}: {described(lags)}, memory {grown:+.0f} MB in {seconds:g} s")


def send_flood(port: int, frame: bytes, stop: threading.Event) -> None:
    """Send frames as fast as they are taken, reading nothing; connect again when hung up on."""
    data = frame * (2**16 // len(frame))
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5.0) as client:
            key = base64.b64encode(os.urandom(16)).decode()
            client.sendall(
                f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            if frame[0] == 0:  # a fragment needs a message to belong to
                client.sendall(bytes([0x02, 0x80]) + MASK)
            client.settimeout(0.5)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    client.sendall(data)
        time.sleep(0.05)


@contextlib.contextmanager
def server() -> Iterator[Served]:
    """Run `mmtl serve` on two free ports."""
    command = [sys.executable, "-c", "from edge.cli import main; main()", "serve", "--clients", "200"]
    command += ["--tcp", "0", "--websocket", "0", "--provider", "cpu"]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr
        ports = [int(process.stderr.readline().rpartition(":")[2]) for _ in range(2)]
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield Served(*ports, process)
        finally:
            process.terminate()


async def listen(port: int, clients: int, seconds: float) -> Sequence[float]:
    """Let clients send and read for some seconds; return the lags of their windows in seconds."""
    starts = [client * BLOCK_S / clients for client in range(clients)]
    heard = await asyncio.gather(*(converse(port, start_s, seconds) for start_s in starts))
    return list(itertools.chain.from_iterable(heard))


async def converse(port: int, start_s: float, seconds: float) -> list[float]:
    """Send the demo clip again and again for some seconds, and return the lags of its windows."""
    await asyncio.sleep(start_s)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    sending = asyncio.create_task(send(writer, began, seconds))
    lags = []
    async for line in reader:
        event = json.loads(line)
        if event["type"] == "window":
            lags.append(time.perf_counter() - began - event["end_s"])
    await sending
    writer.close()
    return lags


async def send(writer: asyncio.StreamWriter, began: float, seconds: float) -> None:
    """Send blocks when their last sample is due."""
    sound = (32_767 * read_clip(demo_clip())).astype("<i2").tobytes()
    size = 2 * round(BLOCK_S * 16_000)
    for number in range(round(seconds / BLOCK_S)):
        await asyncio.sleep(max(0.0, began + (number + 1) * BLOCK_S - time.perf_counter()))
        start = number * size % (len(sound) - size)
        writer.write(sound[start : start + size])
        await writer.drain()
    writer.write_eof()


def described(lags: Sequence[float]) -> str:
    """Write percentiles of lags."""
    if not lags:
        return "no window came"
    p50, p95 = np.percentile(lags, [50, 95])
    return f"lag p50 {p50:.3f} s, p95 {p95:.3f} s, largest {max(lags):.3f} s of {len(lags)} windows"


if __name__ == "__main__":
    main()
