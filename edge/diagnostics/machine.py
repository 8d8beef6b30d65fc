"""The machine of a benchmark: its processor, its libraries and the memory of this process."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine that figures were measured on."""

    platform: str
    processor: str
    cores: int
    python: str
    onnxruntime: str


def resident_mb(pid: int | None = None) -> float:
    """Return the resident memory of a process, this one if None, in MB (10^6 bytes); 0 if unknown."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid or 'self'}/status").read_text("ascii", "replace").splitlines()
        resident = next(line for line in lines if line.startswith("VmRSS:"))
        return int(resident.split()[1]) * 1024 / 1e6
    if pid is not None:
        return 0.0
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # the peak: the current value is not available
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return 0.0


def this_machine() -> Machine:
    """Describe this machine and its software."""
    import onnxruntime

    return Machine(
        platform=platform.platform(terse=True),
        processor=_processor() or platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
    )


def _processor() -> str:
    """Return the name of the processor, or of the board, since Arm names no processor; empty if unknown."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in {"model name", "Model"} and value.strip():
                return value.strip()
    with suppress(OSError):
        return Path("/proc/device-tree/model").read_text("utf-8", "replace").strip("\0 \n")
    return ""
