"""A TensorRT plan of the whole-window graph, run in the thread that owns the GPU.

It uses only what is the same in TensorRT 10.3 to 11.4: tensors by name, never by index. No TensorRT engine
has run for this project yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edge.arrays import Array
from edge.errors import EngineError
from edge.gpu.cuda import Cuda
from edge.gpu.errors import engine_error, error_log

INPUT: Final = "frames"
OUTPUTS: Final = ("embedding", "logits")

EngineOutput = tuple[Array, Array]
"""(B, D) embeddings and (B, C) generic logits."""


class PlanRunner:
    """A loaded plan: TensorRT's objects, and one buffer for each tensor, sized for the largest batch.

    Used by the owner thread only. Keeps logger, runtime, engine and context alive until `close`, which must
    come before that of its CUDA.
    """

    def __init__(self, plan: bytes, trt: Any, cuda: Cuda) -> None:
        """Load a plan and run it once on silence.

        Raises:
            EngineError: TensorRT rejects the plan, or it is not a plan of the window graph.
        """
        self._cuda = cuda
        self._trt = trt
        self._log = error_log(trt)
        self._log.errors.clear()
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._require(self._engine is not None)
        _check_tensors(self._engine, trt)
        self._context = self._engine.create_execution_context()
        self._require(self._context is not None)
        self.shape = tuple(self._engine.get_tensor_profile_shape(INPUT, 0)[2])
        """The largest (B, T, F) input."""
        self._host: dict[str, Array] = {}
        self._device: dict[str, int] = {}
        self._prepare(INPUT, self.shape)
        for name in OUTPUTS:
            self._prepare(name, (self.shape[0], *tuple(self._engine.get_tensor_shape(name))[1:]))
        self([np.zeros((1, *self.shape[1:]), np.float32)])

    def _prepare(self, name: str, shape: tuple[int, ...]) -> None:
        """Allocate a tensor's buffers on host and device."""
        self._host[name] = self._cuda.pinned(shape)
        self._device[name] = self._cuda.alloc(self._host[name].nbytes)
        self._require(self._context.set_tensor_address(name, self._device[name]))

    def __call__(self, pieces: Sequence[Array]) -> EngineOutput:
        """Run (B, T, F) pieces together, at most `shape[0]` windows in all."""
        count = sum(map(len, pieces))
        frames = np.concatenate(pieces, out=self._host[INPUT][:count])
        self._require(self._context.set_input_shape(INPUT, frames.shape))
        self._cuda.h2d(self._device[INPUT], frames)
        self._require(self._context.execute_async_v3(self._cuda.stream))
        outputs = [self._host[name][:count] for name in OUTPUTS]
        for name, host in zip(OUTPUTS, outputs, strict=True):
            self._cuda.d2h(host, self._device[name])
        self._cuda.sync()
        embedding, logits = (host.copy() for host in outputs)
        return embedding, logits

    def close(self) -> None:
        """Release TensorRT's objects: context, engine, then runtime."""
        self._context = self._engine = self._runtime = None
        self._host.clear()

    def _require(self, done: bool) -> None:
        """Raise the reason from TensorRT's log if a call failed."""
        if not done:
            raise engine_error(self._trt, self._log.errors)


def _check_tensors(engine: Any, trt: Any) -> None:
    """Check that the engine has the window graph's inputs and outputs, all float32."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names}
    modes = {INPUT: trt.TensorIOMode.INPUT, **dict.fromkeys(OUTPUTS, trt.TensorIOMode.OUTPUT)}
    if found != {name: (mode, trt.DataType.FLOAT) for name, mode in modes.items()}:
        raise EngineError(
            f"the engine has the inputs and outputs {', '.join(sorted(names))}, expected float32 {INPUT}, "
            f"{' and '.join(OUTPUTS)}",
            remedy="run mmtl build-engine BUNDLE --force",
        )
