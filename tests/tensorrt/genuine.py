"""Run in a process of its own, with one TensorRT's bindings and our stubs in the place of its libraries.

Reads names from stdin, as JSON; prints, as JSON, which of them TensorRT lacks and how our code fails there.
Usage: genuine.py FOLDER_OF_THE_BINDINGS GRAPH
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lacks(module: Any, name: str) -> bool:
    """Tell whether a module has no "Class.method"."""
    for part in name.split("."):
        if not hasattr(module, part):
            return True
        module = getattr(module, part)
    return False


def failure(act: Callable[[], object]) -> str:
    """Return an error's class and text."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - which one it is, is what the test asks
        return f"{type(error).__name__}: {error}"
    return "it did not fail"


def build(trt: Any, graph: Path) -> None:
    """Build a plan with our code."""
    from edge.engine_builder.build import BuildConfig, build_plan

    build_plan(trt, BuildConfig(graph, 300, 200, 1, 1 << 28, Path("/nowhere/timing.cache")))


def run(trt: Any) -> None:
    """Load a plan with our code."""
    from edge.gpu.session import TensorrtSession
    from tests.edge.gpu.numpy_cuda import NumpyCuda

    TensorrtSession(b"a plan", tensorrt=trt, open_cuda=NumpyCuda)


def kept(trt: Any) -> list[str]:
    """Let our log hear an error and a remark, and return what it keeps."""
    from edge.gpu.errors import error_log

    log = error_log(trt)
    log.log(trt.ILogger.Severity.ERROR, "an error")
    log.log(trt.ILogger.Severity.INFO, "a remark")
    return list(log.errors)


def main() -> None:
    """Look the names up, and let our code meet a TensorRT without a driver."""
    folder, graph = sys.argv[1:]
    sys.path.insert(0, folder)
    trt = importlib.import_module("tensorrt_bindings")
    sys.modules["tensorrt"] = trt  # as the package of that name has it
    from edge.engine_builder.selection import build_environment
    from edge.gpu.errors import tensorrt_module

    report = {
        "version": tensorrt_module().__version__,
        "lacking": [name for name in json.load(sys.stdin) if lacks(trt, name)],
        "theirs": failure(lambda: trt.Builder(trt.Logger())),
        "kept": kept(trt),
        "build": failure(lambda: build(trt, Path(graph))),
        "run": failure(lambda: run(trt)),
        "command": failure(build_environment),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
