"""TensorRT's runtime on `NumpyCuda`: the real call sequence, with a Python function as the engine.

It is as strict as the real one is unforgiving: a call out of order or without a stream is refused, and what
is destroyed after CUDA was closed is noted.
"""

from __future__ import annotations

import enum
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.arrays import Array
from tests.edge.gpu.numpy_cuda import NumpyCuda

Graph = Callable[[Array], tuple[Array, Array]]


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class Logger:
    Severity = Severity

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Kind(enum.Enum):
    FLOAT = 0
    HALF = 1


class FakeTensorrt:
    """What stands in for the module `tensorrt`, and for the machine that it runs on.

    A plan is JSON with the batch, and what shall be wrong with it.
    """

    __version__ = "10.3.0"
    __file__ = "tensorrt/__init__.py"
    ILogger = Logger
    TensorIOMode = Mode
    DataType = Kind

    def __init__(self, graph: Graph, frames: int, bins: int, outputs: dict[str, int] | None = None) -> None:
        self.graph = graph
        self.frames, self.bins = frames, bins
        self.outputs = outputs or {"embedding": 2, "logits": 4}
        self.cuda = NumpyCuda()
        self.batches: list[int] = []
        """Windows of each run, the first one's being the warm-up's."""
        self.gone: list[tuple[str, bool]] = []
        """What was destroyed, in order, and whether CUDA was still open then."""
        self.running = threading.Event()
        """Set when the GPU begins to compute."""
        self.go = threading.Event()
        """While it is clear, the GPU computes and computes."""
        self.go.set()
        self.refuse_runs = False

    def open_cuda(self) -> NumpyCuda:
        """Take hold of the GPU."""
        self.cuda = NumpyCuda()
        return self.cuda

    def plan(self, batch: int = 4, wrong: str = "") -> bytes:
        """Return a plan for this graph."""
        return json.dumps({"batch": batch, "wrong": wrong}).encode()

    def Runtime(self, logger: Logger) -> FakeRuntime:  # noqa: N802 - TensorRT's name
        """Return a runtime."""
        return FakeRuntime(self, logger)


class Fake:
    """One of TensorRT's objects; notes when it is destroyed."""

    def __init__(self, machine: FakeTensorrt) -> None:
        self.machine = machine

    def __del__(self) -> None:
        self.machine.gone.append((type(self).__name__, not self.machine.cuda.closed))


class FakeRuntime(Fake):
    def __init__(self, machine: FakeTensorrt, logger: Logger) -> None:
        super().__init__(machine)
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        try:
            described = json.loads(plan)
        except ValueError:
            self.logger.log(Severity.ERROR, "magicTagRead == magicTag. Magic tag does not match")
            return None
        return FakeEngine(self.machine, self.logger, **described)


class FakeEngine(Fake):
    def __init__(self, machine: FakeTensorrt, logger: Logger, batch: int, wrong: str) -> None:
        super().__init__(machine)
        self.logger, self.batch, self.wrong = logger, batch, wrong
        self.names = ["logits", "frames", "embedding"]  # in no order that one could count on
        if wrong == "names":
            self.names[0] = "output_0"

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "frames" else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Kind:
        return Kind.HALF if (name, self.wrong) == ("logits", "kind") else Kind.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes = {"frames": (self.machine.frames, self.machine.bins)}
        return (-1, *sizes.get(name, (self.machine.outputs.get(name, 0),)))

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("frames", 0), "only inputs have profiles"
        return [(count, self.machine.frames, self.machine.bins) for count in (1, 1, self.batch)]

    def create_execution_context(self) -> FakeContext | None:
        if self.wrong == "memory":
            self.logger.log(Severity.ERROR, "[defaultAllocator.cpp] Cuda error: out of memory")
            return None
        return FakeContext(self.machine, self)


class FakeContext(Fake):
    def __init__(self, machine: FakeTensorrt, engine: FakeEngine) -> None:
        super().__init__(machine)
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.names

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        fits = 1 <= shape[0] <= self.engine.batch
        return fits and (name, *shape[1:]) == ("frames", self.machine.frames, self.machine.bins)

    def execute_async_v3(self, stream: int) -> bool:
        if self.machine.refuse_runs or set(self.addresses) != set(self.engine.names):
            self.engine.logger.log(Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cask")
            return False
        assert stream == self.machine.cuda.stream, "not the stream that the copies are on"
        self.machine.cuda.enqueue(self.compute)
        return True

    def compute(self) -> None:
        """Do what the kernels do."""
        machine = self.machine
        machine.batches.append(self.shape[0])
        machine.running.set()
        assert machine.go.wait(60.0), "nobody let the GPU go on"
        frames = machine.cuda.memory(self.addresses["frames"], self.shape)
        results: dict[str, Any] = dict(zip(("embedding", "logits"), machine.graph(frames), strict=True))
        for name, result in results.items():
            np.copyto(machine.cuda.memory(self.addresses[name], result.shape), result)
