"""Run on a GPU what has never run on one, in pieces of at most ten minutes, and write one report.

    python benchmarks/gpu_day.py [--out build/gpu_day.md]

A piece that cannot run says why, and the exit code is 0. A piece that fails or takes too long stands in the
report with the end of its output, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

LIMIT_S = 600
LINES = 40
"""Of the output of each piece that the report shows."""

Outcome = Literal["ran", "failed", "not run"]


@dataclass(frozen=True)
class Piece:
    """One command, and what it needs."""

    name: str
    command: tuple[str, ...]
    """Arguments of the Python interpreter."""
    obstacle: Callable[[], str | None]
    """Says why the piece cannot run here; None if it can."""


@dataclass(frozen=True)
class Result:
    """What became of a piece."""

    piece: Piece
    outcome: Outcome
    text: str
    """End of its output, or why it did not run."""


def without_cuda() -> str | None:
    """Say so if torch sees no CUDA device."""
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def without_module(name: str) -> Callable[[], str | None]:
    """Return a check for CUDA and an installed package."""

    def obstacle() -> str | None:
        missing = importlib.util.find_spec(name) is None
        return without_cuda() or (f"{name} is not installed" if missing else None)

    return obstacle


PIECES = (
    Piece(
        "training step, two passes against five, CPU",
        ("benchmarks/training_passes.py", "--rounds", "1", "--samples", "2"),
        lambda: None,
    ),
    Piece(
        "training step, two passes against five, CUDA",
        ("benchmarks/training_passes.py", "--device", "cuda", "--samples", "16"),
        without_cuda,
    ),
    Piece("operations and bytes of a window", ("benchmarks/window_work.py",), lambda: None),
    Piece(
        "throughput by batch: torch, ONNX Runtime, TensorRT",
        ("benchmarks/throughput.py", "--device", "cuda"),
        without_cuda,
    ),
    Piece(
        "memory, stream and context calls of CUDA",
        ("-m", "pytest", "-q", "-m", "gpu", "tests/edge/gpu"),
        without_module("pycuda"),
    ),
    Piece(
        "TensorRT engine",
        ("-c", "from edge.cli.main import main; main()", "build-engine", "default"),
        without_module("tensorrt"),
    ),
)


def main() -> None:
    """Run the pieces and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu_day.md"))
    out: Path = parser.parse_args().out
    results = [outcome_of(piece) for piece in PIECES]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report(results), "utf-8")
    for result in results:
        reason = f": {result.text}" if result.outcome == "not run" else ""
        print(f"{result.outcome:8} {result.piece.name}{reason}")
    print(f"report in {out}")
    if any(result.outcome == "failed" for result in results):
        raise SystemExit(1)


def outcome_of(piece: Piece, limit_s: float = LIMIT_S) -> Result:
    """Run a piece in a process of its own."""
    if obstacle := piece.obstacle():
        return Result(piece, "not run", obstacle)
    try:
        done = subprocess.run(
            [sys.executable, *piece.command], capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Result(piece, "failed", f"took longer than {limit_s:g} s")
    text = "\n".join((done.stdout + done.stderr).splitlines()[-LINES:])
    return Result(piece, "failed" if done.returncode else "ran", text)


def report(results: Sequence[Result]) -> str:
    """Write the report as Markdown."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    parts = [f"# GPU day\n\n{platform.node()}, {platform.machine()}, {device}, torch {torch.__version__}\n"]
    for result in results:
        command = "python " + " ".join(result.piece.command)
        parts.append(
            f"## {result.piece.name}: {result.outcome}\n\n    {command}\n\n```\n{result.text}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
