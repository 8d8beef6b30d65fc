"""Number of live clients that `mmtl serve` supports: a real process, real sockets, sound in real time.

    python benchmarks/load.py [--clients 25] [--most 400] [--seconds 15] [--provider cpu]

The number of clients is doubled until the lag's p95 exceeds 0.5 s, then the largest number that stays below
is found by bisection, to a tenth. Lag is measured for --seconds after a warm-up of 12 s: as the server's
events report it, and by the client's clock, from when the last sample of a window was due to the arrival of
its event (up to 80 ms more, since sound is sent 80 ms at a time). The clients run in one process on the
same machine, and take processor time from the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.server_process import serving
from edge.arrays import SAMPLE_RATE
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip

MOST_LAG_S = 0.5
PIECE = 1_280
"""Samples per message of a client: 80 ms."""
WARM_UP_S = 12.0
"""Clients connect within a second, the first window is full after 3 s, and the check of the sample format
with which each stream begins ends after 10 s of sound."""


@dataclass
class Lags:
    """Lags of all windows in seconds: as the events report them, and as the clients measured them."""

    reported: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=25, help="to begin with")
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--provider", default="cpu")
    options = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load before the start {os.getloadavg()[0]:.1f}, {options.seconds:g} s each, {options.provider}")
    print("clients   lag p50 / p95 / max, as reported   p95 as measured   server")
    held, lost, clients = 0, options.most + 1, options.clients
    while lost - held > max(1, held // 10):
        if holds(clients, options.seconds, options.provider):
            held = clients
        else:
            lost = clients
        clients = min(options.most, 2 * held) if lost > options.most else (held + lost) // 2
        if held == options.most:
            break
    print(f"{held} live clients with lag p95 under {MOST_LAG_S:g} s")


def holds(clients: int, seconds: float, provider: str) -> bool:
    """Serve a number of clients, print their lag, and return whether its p95 is within the limit."""
    arguments = ["--tcp", "0", "--clients", str(clients), "--provider", provider]
    with serving(*arguments) as (process, [port]):
        before = cpu_seconds(process.pid)
        lags, began = Lags(), time.perf_counter()
        asyncio.run(all_clients(port, clients, seconds, lags))
        share = (cpu_seconds(process.pid) - before) / (time.perf_counter() - began)
    if not lags.reported:
        print(f"{clients:7}   no window came")
        return False
    p50, p95, longest = np.percentile(lags.reported, [50, 95, 100])
    measured = float(np.percentile(lags.measured, 95))
    print(
        f"{clients:7}   {p50:.3f} / {p95:.3f} / {longest:.3f} s   {measured:.3f} s   {share:.2f} cores",
        flush=True,
    )
    return bool(max(p95, measured) < MOST_LAG_S)


async def all_clients(port: int, clients: int, seconds: float, lags: Lags) -> None:
    """Connect the clients within one second and run them."""
    clip = read_clip(demo_clip())
    offsets = np.linspace(0, len(clip), clients, endpoint=False).astype(int)
    talks = (
        client(port, np.roll(clip, -offset), number / clients, seconds, lags)
        for number, offset in enumerate(offsets)
    )
    await asyncio.gather(*talks)


async def client(port: int, clip: np.ndarray, wait_s: float, seconds: float, lags: Lags) -> None:
    """Send sound in real time and record the lag of the windows after the warm-up."""
    await asyncio.sleep(wait_s)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()  # the session event: the server is ready
    sound = (32_767 * np.resize(clip, round((WARM_UP_S + seconds) * SAMPLE_RATE))).astype("<i2")
    started_s = time.perf_counter()
    listening = asyncio.ensure_future(listen(reader, started_s, lags))
    for start in range(0, len(sound) - PIECE + 1, PIECE):
        due_s = started_s + (start + PIECE) / SAMPLE_RATE
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        writer.write(sound[start : start + PIECE].tobytes())
    writer.write_eof()
    await listening
    writer.close()


async def listen(reader: asyncio.StreamReader, started_s: float, lags: Lags) -> None:
    """Read events to the end of the stream."""
    async for line in reader:
        event, now_s = json.loads(line), time.perf_counter()
        if event["type"] == "window" and event["end_s"] > WARM_UP_S:
            lags.reported.append(event["lag_ms"] / 1_000.0)
            lags.measured.append(now_s - started_s - event["end_s"])


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 without /proc."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


if __name__ == "__main__":
    main()
