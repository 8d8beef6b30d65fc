"""CPU time of the whole process `mmtl run` for a file of 60 s, start included, and wall time of the help.

    python benchmarks/run_cpu.py [--repeats 5]

CPU time of the child process (user and system), on one thread; the file is the demo clip, repeated.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip

COMMAND = (sys.executable, "-c", "from edge.cli.main import main; main()")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minute.wav"
        clip = read_clip(demo_clip())
        soundfile.write(path, np.resize(clip, 60 * 16_000), 16_000)
        for name, arguments in (
            ("mmtl --help", ["--help"]),
            ("mmtl run, 60 s", ["run", str(path), "--jsonl", os.devnull, "--provider", "cpu"]),
        ):
            spent = [measure([*COMMAND, *arguments]) for _ in range(repeats)]
            cpu, wall = (statistics.median(values) for values in zip(*spent, strict=True))
            print(f"{name:16} CPU {cpu:5.2f} s   wall {wall:5.2f} s   (median of {repeats})")


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command to its end and return its CPU and wall time in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return cpu, time.perf_counter() - began


if __name__ == "__main__":
    main()
