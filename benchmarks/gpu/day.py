"""Run on a GPU what has never run on one, in pieces of at most ten minutes, and write one report.

    python benchmarks/gpu/day.py [--out build/gpu_day.md]

A piece that cannot run says why, and the exit code is 0. A piece that fails or takes too long stands in the
report with the end of its output, and the exit code is 1. The report counts them at its top.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, get_args

import edge  # noqa: F401 - before ONNX Runtime, whose telemetry it turns off

# isort: split
import onnxruntime
import torch

from edge.inference.engine import PROVIDERS

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
    seconds: float = 0.0


def without_cuda() -> str | None:
    """Say so if torch sees no CUDA device."""
    if torch.cuda.is_available():
        return None
    built = "and this torch was built without CUDA" if torch.version.cuda is None else "see nvidia-smi"
    return f"torch sees no CUDA device ({built})"


def without_module(name: str, remedy: str) -> Callable[[], str | None]:
    """Return a check for CUDA and an installed package."""

    def obstacle() -> str | None:
        missing = importlib.util.find_spec(name) is None
        return _joined(without_cuda(), f"{name} is not installed: {remedy}" if missing else None)

    return obstacle


def without_cuda_provider() -> str | None:
    """Say so if ONNX Runtime was built without CUDA, or there is no device."""
    missing = PROVIDERS["cuda"] not in onnxruntime.get_available_providers()
    return _joined(
        without_cuda(),
        f"this ONNX Runtime has no {PROVIDERS['cuda']}: install onnxruntime-gpu in place of onnxruntime"
        if missing
        else None,
    )


def _joined(*obstacles: str | None) -> str | None:
    return "; ".join(filter(None, obstacles)) or None


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
    Piece(
        "training epoch of MMTL, CUDA against CPU",
        ("benchmarks/gpu/training_epoch.py", "--device", "cuda"),
        without_cuda,
    ),
    Piece(
        "CUDA session of edge against CPU",
        ("benchmarks/gpu/cuda_session.py", "--provider", "cuda"),
        without_cuda_provider,
    ),
    Piece("operations and bytes of a window", ("benchmarks/window_work.py",), lambda: None),
    Piece(
        "memory, stream and context calls of CUDA",
        ("benchmarks/gpu/cuda_calls.py",),
        without_module("pycuda", "pip install pycuda, which is built from source and needs a CUDA toolkit"),
    ),
    Piece(
        "TensorRT engine",
        ("-c", "from edge.cli.main import main; main()", "build-engine", "default"),
        without_module("tensorrt", "pip install 'mmtl[tensorrt]'"),
    ),
    Piece(
        "throughput by batch beside its floor: torch, ONNX Runtime, TensorRT",
        ("benchmarks/throughput.py", "--device", "cuda"),
        without_cuda,
    ),
)


def main() -> None:
    """Run the pieces and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu_day.md"))
    out: Path = parser.parse_args().out
    results = []
    for piece in PIECES:
        result = outcome_of(piece)
        results.append(result)
        reason = f": {result.text}" if result.outcome == "not run" else ""
        print(f"{result.outcome:8} {piece.name}{reason}", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report(results), "utf-8")
    print(f"report in {out}")
    if any(result.outcome == "failed" for result in results):
        raise SystemExit(1)


def outcome_of(piece: Piece, limit_s: float = LIMIT_S) -> Result:
    """Run a piece in a process of its own."""
    if obstacle := piece.obstacle():
        return Result(piece, "not run", obstacle)
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *piece.command], capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as expired:
        output = "\n".join(_text(part) for part in (expired.stdout, expired.stderr))
        text = f"{_end(output)}\ntook longer than {limit_s:g} s".strip()
        return Result(piece, "failed", text, time.perf_counter() - began)
    outcome: Outcome = "failed" if done.returncode else "ran"
    return Result(piece, outcome, _end(done.stdout + done.stderr), time.perf_counter() - began)


def _end(output: str) -> str:
    """Return the last lines as a page can show them: without colours, paths relative to the checkout."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output).replace(f"{Path.cwd()}/", "")
    return "\n".join(plain.splitlines()[-LINES:])


def _text(part: str | bytes | None) -> str:
    """Return output of a process that was ended, which comes as bytes even where text was asked for."""
    return part.decode(errors="replace") if isinstance(part, bytes) else part or ""


def report(results: Sequence[Result]) -> str:
    """Write the report as Markdown: machine, what became of each piece, then what each printed."""
    counts = Counter(result.outcome for result in results)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome))
    parts = [f"# GPU day\n\n{machine()}\n\nOf {len(results)} pieces: {total}.\n"]
    for result in results:
        parts.append(f"## {result.piece.name}: {result.outcome}\n")
        if result.outcome == "not run":
            parts.append(f"Because: {result.text}. The command is\n\n    {command_of(result.piece)}\n")
        else:
            spent = f"In {result.seconds:.0f} s by\n\n    {command_of(result.piece)}\n"
            parts.append(f"{spent}\n```\n{result.text}\n```\n")
    return "\n".join(parts)


def machine() -> str:
    """Name the machine, its processor and GPU, and the versions that count."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return (
        f"{platform.node()}: {cpu_name()}, {os.cpu_count()} processors; {device}; "
        f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, "
        f"Python {platform.python_version()}; {date.today().isoformat()}"
    )


def cpu_name() -> str:
    """Return the processor's name, or its architecture where Linux does not give one."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def command_of(piece: Piece) -> str:
    """Return a piece's command as a shell takes it."""
    return shlex.join(["python", *piece.command])


if __name__ == "__main__":
    main()
