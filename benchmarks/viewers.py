"""Memory of `mmtl serve --web` while several pages watch one microphone: a real process, sound in real time.

    python benchmarks/viewers.py [--viewers 8] [--minutes 10]

The source is a file of the demo clip, repeated, played at the pace of speech. Every minute the server's
resident memory is printed, with the number of windows that each viewer has received. The exit code is 1 if
the median of the second half is more than 4 MB above that of the first, or if a viewer has missed a window.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
from websockets.asyncio.client import connect

from benchmarks.server_process import serving
from edge.arrays import SAMPLE_RATE
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.diagnostics.machine import resident_mb, this_machine

MOST_GROWTH_MB = 4.0
REPORT_EVERY_S = 60.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--viewers", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    if options.minutes < 2.0:
        parser.error("--minutes must be 2 or more: memory is read every minute")
    print(f"{this_machine().processor}, {options.viewers} viewers")
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "talk.wav"
        seconds = 60.0 * options.minutes
        soundfile.write(sound, np.resize(read_clip(demo_clip()), round(seconds * SAMPLE_RATE)), SAMPLE_RATE)
        with serving("--web", "127.0.0.1:0", "--source", str(sound)) as (process, [port]):
            resident, windows = asyncio.run(watched(process.pid, port, options.viewers))
    half = len(resident) // 2
    growth = median(resident[half:]) - median(resident[:half] or resident)
    print(f"median of the second half against the first: {growth:+.1f} MB (allowed: {MOST_GROWTH_MB:.0f})")
    print(f"windows of each viewer: {min(windows)} to {max(windows)}")
    sys.exit(growth > MOST_GROWTH_MB or min(windows) != max(windows))


async def watched(pid: int, port: int, viewers: int) -> tuple[list[float], list[int]]:
    """Watch the source from its start to its end: memory every minute, windows of each viewer."""
    windows = [0] * viewers
    resident: list[float] = []
    all_watch, watching = asyncio.Event(), 0

    async def viewer(number: int) -> None:
        nonlocal watching
        async with connect(f"ws://127.0.0.1:{port}/watch", proxy=None) as socket:
            await socket.send(json.dumps({"token": ""}))
            await socket.recv()
            watching += 1
            if watching == viewers:
                all_watch.set()
            await all_watch.wait()
            if number == 0:
                await socket.send(json.dumps({"do": "start"}))
            async for event in events(socket):
                windows[number] += event.get("type") == "window"
                if event.get("type") == "summary":
                    return

    async def reports() -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            resident.append(resident_mb(pid))
            print(f"{len(resident):4} min {resident[-1]:7.1f} MB   {windows}", flush=True)

    reporting = asyncio.ensure_future(reports())
    await asyncio.gather(*(viewer(number) for number in range(viewers)))
    reporting.cancel()
    return resident, windows


async def events(socket: AsyncIterable[str | bytes]) -> AsyncIterator[dict[str, object]]:
    """Yield the events of a viewer's messages; one message may hold several."""
    async for message in socket:
        parts = json.loads(message)
        for part in parts if isinstance(parts, list) else [parts]:
            yield part


if __name__ == "__main__":
    main()
