"""Import TensorRT, and turn its log into one line that says what to do.

TensorRT reports a failure as None, or as a TypeError about a null pointer. The reason is only in its log, in
several lines, of which the last often says least. So all of them are kept, and the first entry of the table
that matches any of them becomes the message.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from edge.errors import EngineError

OLDEST: Final = (10, 3)
"""JetPack 6's version."""
_KEPT_LINES: Final = 50
_LONGEST: Final = 300

_REBUILD: Final = "build it again with mmtl build-engine BUNDLE --force"
_TWO_VERSIONS: Final = "if that does not help, two versions of TensorRT are installed: remove one"
_TABLE: Final = (
    (
        r"expecting library version|version tag does not match|not compatible with this version of tensorrt",
        "the engine was built by another TensorRT than {version} ({file})",
        f"{_REBUILD}; {_TWO_VERSIONS}",
    ),
    (r"magic ?tag does not match", "the engine's file is truncated or not an engine", _REBUILD),
    (r"incompatible device", "the engine was built for another GPU", _REBUILD),
    (
        r"target gpu sm \S+ is not supported|unsupported sm\b",
        "TensorRT {version} ({file}) does not support this GPU",
        "on a Jetson use JetPack's own TensorRT, in a venv made with --system-site-packages, never pip's; "
        "elsewhere install a version that supports it",
    ),
    (
        r"initialization failure with error:? 35\b|driver version is insufficient",
        "the NVIDIA driver is too old for TensorRT {version}",
        "update the driver",
    ),
    (
        r"out of memory|outofmemory|requested amount of gpu memory",
        "the GPU has too little free memory",
        "close other programs that use it, or build with a smaller --batch",
    ),
    (
        r"could not find any implementation for node",
        "TensorRT {version} cannot compute a layer in the free memory",
        "close other programs that use the GPU, or build with a smaller --batch",
    ),
    (
        r"factory function returned nullptr",
        "TensorRT {version} ({file}) does not start: there is no NVIDIA driver, or one that does not match",
        "install or update the driver",
    ),
)


def tensorrt_module() -> Any:
    """Import TensorRT. Call `edge.gpu.probe.probe` first: without a driver TensorRT may crash.

    Raises:
        EngineError: TensorRT is not installed, damaged or too old.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise EngineError(
            "TensorRT is not installed for this Python",
            remedy="on a Jetson it comes with JetPack (make the venv with --system-site-packages); "
            "elsewhere pip install 'mmtl[tensorrt]'",
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"TensorRT cannot be loaded ({_line(error)})", remedy="reinstall it, or use --provider cpu"
        ) from error
    _require_recent(tensorrt)
    return tensorrt


def _require_recent(trt: Any) -> None:
    found = str(getattr(trt, "__version__", "(unknown version)"))
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise EngineError(
            f"TensorRT {found} ({_file(trt)}) is too old",
            remedy=f"install {oldest} or newer (JetPack 6 has it)",
        )


@functools.cache
def error_log(trt: Any) -> Any:
    """Return the process's one TensorRT logger, whose `errors` are the last error messages.

    TensorRT keeps the first logger that it gets for the life of the process and ignores later ones.
    MMTL_DEBUG=1 prints every message.
    """

    class ErrorLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT_LINES)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR}:
                self.errors.append(message)
            if os.environ.get("MMTL_DEBUG"):
                sys.stderr.write(f"TensorRT: {message}\n")

    return ErrorLog()


def engine_error(trt: Any, messages: Iterable[object]) -> EngineError:
    """Turn TensorRT's messages into one error: what happened and what to do.

    Args:
        trt: TensorRT's module.
        messages: its log's errors, or exceptions, oldest first.
    """
    lines = [_line(message) for message in messages]
    for pattern, problem, remedy in _TABLE:
        if any(re.search(pattern, line, re.IGNORECASE) for line in lines):
            return EngineError(problem.format(version=trt.__version__, file=_file(trt)), remedy=remedy)
    last = lines[-1][:_LONGEST] if lines else "no reason given"
    return EngineError(
        f"TensorRT {trt.__version__} failed ({last})",
        remedy="set MMTL_DEBUG=1 to see its whole log, or use --provider cpu",
    )


def _file(trt: Any) -> str:
    return str(getattr(trt, "__file__", None) or "unknown path")


def _line(message: object) -> str:
    return " ".join(str(message).split())
