"""A TensorRT of the few names this project uses, for machines without one.

It answers as TensorRT does: a failure is None or a TypeError, and why is only in the log. Its "plans" hold
the graph's own bytes, so that `FakeSession` can run them. `tests/tensorrt` checks that TensorRT has every
name that is here.
"""

from __future__ import annotations

import enum
import functools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from edge.arrays import Array

MAGIC = b"plan of a fake\n"
CACHE_HEADER = b"timings of "


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity: Any = Severity

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 7


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class ITensor:
    name = "frames"


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> memoryview:
        return memoryview(self._content)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._graph = b""

    def get_input(self, index: int) -> ITensor:
        assert index == 0
        return ITensor()


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: tuple[tuple[int, ...], ...] = ()

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - TensorRT's names
        assert input == ITensor.name
        self._shapes = (min, opt, max)


class IBuilderConfig:
    def __init__(self, gpu: str) -> None:
        self._gpu = CACHE_HEADER + gpu.encode()
        self._cache: ITimingCache | None = None
        self._workspace = 0
        self._tf32 = True
        self._profile = IOptimizationProfile()
        self.progress_monitor: IProgressMonitor | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE
        self._workspace = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32
        self._tf32 = False

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache) or self._gpu)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        fits = cache._content.startswith(self._gpu) or ignore_mismatch
        self._cache = cache if fits else self._cache
        return fits


class FakeTensorrt:
    """The module. What it shall do wrong is set on it by a test."""

    ILogger: Any = ILogger
    IProgressMonitor: Any = IProgressMonitor
    NetworkDefinitionCreationFlag: Any = NetworkDefinitionCreationFlag
    BuilderFlag: Any = BuilderFlag
    MemoryPoolType: Any = MemoryPoolType

    def __init__(self, version: str = "10.3.0", gpu: str = "Orin") -> None:
        self.__version__ = version
        self.__file__ = "/usr/lib/python3/dist-packages/tensorrt/__init__.py"
        self._gpu = gpu
        self._driver = True
        self._complaints: dict[str, list[str]] = {}
        """Errors that building a graph ends with, by the graph's file name or "" for any."""
        self._steps = 2
        """Of the outer phase of a build; each has two inner ones."""
        self._during: Callable[[int], None] = lambda _: None
        """Called before each step of a build."""
        self._built: list[dict[str, Any]] = []

    def Builder(self, logger: Any) -> Builder:  # noqa: N802 - a class in TensorRT
        return Builder(self, logger)

    def OnnxParser(self, network: INetworkDefinition, logger: Any) -> OnnxParser:  # noqa: N802
        return OnnxParser(network, logger)


def interrupt_at(moment: int) -> Callable[[int], None]:
    """Return what to call before each step so that Ctrl-C comes at one of them, unheard by a lock.

    The signal is the building thread's own, sent while the main thread waits: it interrupts no system
    call there, as if it had come just before.
    """

    def during(step: int) -> None:
        time.sleep(0.2 if step == moment else 0.001)  # as TensorRT does, lets the main thread run
        if step == moment:
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    return during


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        assert logger.ready
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        if b"mmtl_window" not in model:  # the graph's name
            self._errors.append(ParserError("ModelImporter.cpp:1: Failed to parse ONNX model"))
            return False
        self._network._graph = model
        return True


class Builder:
    def __init__(self, trt: FakeTensorrt, logger: ILogger) -> None:
        if not trt._driver:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        assert logger.ready
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._trt._gpu)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> memoryview | None:
        if not self._steps(config):
            return None
        complaints = [
            line
            for name, lines in self._trt._complaints.items()
            if name.encode() in network._graph
            for line in lines
        ]
        for line in complaints:
            self._logger.log(Severity.ERROR, line)
        if complaints:
            return None
        self._trt._built.append(
            {
                "flags": network._flags,
                "tf32": config._tf32,
                "workspace": config._workspace,
                "shapes": config._profile._shapes,
                "cache": config._cache and bytes(config._cache.serialize()),
            }
        )
        return memoryview(MAGIC + network._graph)

    def _steps(self, config: IBuilderConfig) -> bool:
        """Report the steps of one phase, each of two steps of an inner one; learn a timing at each."""
        monitor = config.progress_monitor
        if monitor is not None:
            monitor.phase_start("Building", None, self._trt._steps)
        for step in range(self._trt._steps):
            if monitor is not None:
                monitor.phase_start("Timing", "Building", 2)
            for inner in range(2):
                self._trt._during(2 * step + inner)
                if config._cache is not None:
                    config._cache._content += b"."
                if monitor is not None and not monitor.step_complete("Timing", inner):
                    return False
            if monitor is not None:
                monitor.phase_finish("Timing")
                if not monitor.step_complete("Building", step):
                    return False
        return True


class FakeSession:
    """Runs a fake's plan on ONNX Runtime; `error` is added to what it gives, `tick` called at each run."""

    def __init__(self, plan: bytes, error: float = 0.0, tick: Callable[[], None] = lambda: None) -> None:
        assert plan.startswith(MAGIC)
        self._graph = plan[len(MAGIC) :]
        self._error, self._tick = np.float32(error), tick
        self.largest = 0
        self.closed = False

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        assert not self.closed
        self._tick()
        self.largest = max(self.largest, len(frames))
        embedding, logits = _answer(self._graph, frames.tobytes(), frames.shape)
        return embedding, logits + self._error

    def close(self) -> None:
        self.closed = True


@functools.lru_cache(maxsize=64)
def _answer(graph: bytes, frames: bytes, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Run the same windows once only: timing runs a window many times."""
    embedding, logits = _session(graph).run(
        None, {"frames": np.frombuffer(frames, np.float32).reshape(shape)}
    )
    return embedding, logits


@functools.lru_cache(maxsize=8)
def _session(graph: bytes) -> Any:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
