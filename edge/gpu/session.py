"""The whole-window graph on TensorRT: one thread owns the GPU, any number of threads send requests.

    session(frames) in any thread -> _Requests -> owner thread: PlanRunner on a Cuda -> answers

Batching: requests that arrive while the GPU is busy run together, in order of arrival, as far as their
    windows
fit into the plan's largest batch. A request never waits for others: if the GPU is idle, it runs at once,
alone.

No TensorRT engine has run for this project yet. The names used are those of TensorRT 10.3 to 11.4; the
logic is tested with a runtime that computes with NumPy.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import numpy as np

from edge.arrays import Array
from edge.errors import EngineError
from edge.gpu.cuda import Cuda, PycudaCuda
from edge.gpu.errors import engine_error, error_log, tensorrt_module
from edge.gpu.runner import EngineOutput, PlanRunner
from edge.system.futures import interruptible_result

SLICE_S: Final = 0.5
TIMEOUT_SLICES: Final = 3
"""Time-out of the GPU, in slices; in all shorter than what the microphone's buffer holds (2 s). It is counted
in slices because a program that was suspended (Ctrl-Z) then loses one slice at most."""
CLOSE_TIMEOUT_S: Final = 10.0
"""How long `close` waits for the owner thread if the GPU hangs."""


class TensorrtSession:
    """Runs full windows on TensorRT, as `edge.inference.engine.WindowEngine` does on the CPU.

    Owns a thread, which owns the GPU's context. `close`, the end of a `with` block, the end of the last
    reference and the end of the program end both. After a failure the session is lost: pending and later
    requests get an EngineError.
    """

    def __init__(
        self,
        plan: bytes,
        *,
        tensorrt: Any = None,
        open_cuda: Callable[[], Cuda] = PycudaCuda,
        slice_s: float = SLICE_S,
    ) -> None:
        """Load a plan and run it once.

        Args:
            plan: a serialised engine; `edge.gpu.plan` has checked its fingerprint.
            tensorrt: the module, or a test double.
            open_cuda: opens the GPU; called in the owner thread.
            slice_s: the GPU has `TIMEOUT_SLICES` times this many seconds to answer, > 0.

        Raises:
            EngineError: the GPU, TensorRT or the plan cannot be used.
        """
        self._slice_s = slice_s
        self._requests = _Requests()
        owner = _Owner(plan, tensorrt or tensorrt_module(), open_cuda, self._requests)
        thread = threading.Thread(target=owner, name="tensorrt", daemon=True)
        self._end = weakref.finalize(self, _end, self._requests, thread)
        thread.start()
        try:
            self.largest_batch, self.frames, self.bins = interruptible_result(owner.started)
        except BaseException:
            self.close()
            raise

    def __call__(self, frames: Array) -> EngineOutput:
        """Map (B, T, F) normalised frames, B of any size, to (B, D) embeddings and (B, C) generic logits.

        Raises:
            EngineError: the GPU has failed, now or before, or the session is closed.
        """
        assert frames.shape[1:] == (self.frames, self.bins), "this is no full window"
        size = self.largest_batch
        pieces = [frames[first : first + size] for first in range(0, len(frames), size)]
        asked = [self._requests.ask(piece) for piece in pieces]
        answers = [self._awaited(answer) for answer in asked]
        embeddings, logits = zip(*answers, strict=True)
        return np.concatenate(embeddings), np.concatenate(logits)

    def close(self) -> None:
        """Answer pending requests, then release the GPU and end the thread; may be called twice."""
        self._end()

    def __enter__(self) -> TensorrtSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _awaited(self, answer: Future[EngineOutput]) -> EngineOutput:
        for _ in range(TIMEOUT_SLICES):
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return answer.result(self._slice_s)
        lost = EngineError(
            f"the GPU has not answered for {TIMEOUT_SLICES * self._slice_s:g} s",
            remedy="see the output of nvidia-smi and dmesg",
        )
        self._requests.refuse(lost)
        raise _copy(lost)


@dataclass
class _Request:
    """Windows for the GPU, and the future of their outputs."""

    frames: Array
    answer: Future[EngineOutput] = field(default_factory=Future)


class _Requests:
    """Queue of requests from the callers' threads to the owner thread."""

    def __init__(self) -> None:
        self._waiting: deque[_Request] = deque()
        self._refusal: EngineError | None = None
        self._changed = threading.Condition()  # reentrant: `_end` may run wherever Python collects garbage

    def ask(self, frames: Array) -> Future[EngineOutput]:
        """Queue windows, at most one batch.

        Raises:
            EngineError: the session is closed or lost.
        """
        request = _Request(frames)
        with self._changed:
            if self._refusal:
                raise _copy(self._refusal)
            self._waiting.append(request)
            self._changed.notify()
        return request.answer

    def take(self, most: int) -> list[_Request]:
        """Wait for requests; return those that fit into one batch, none once it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._refusal)
            batch: list[_Request] = []
            while self._waiting and len(self._waiting[0].frames) <= most:
                batch.append(self._waiting.popleft())
                most -= len(batch[-1].frames)
            return batch

    def refuse(self, reason: EngineError) -> None:
        """Accept no more requests; the first reason counts. Queued requests can still be taken."""
        with self._changed:
            self._refusal = self._refusal or reason
            self._changed.notify()

    def rest(self) -> list[_Request]:
        """Return the requests that were never taken."""
        with self._changed:
            rest = list(self._waiting)
            self._waiting.clear()
            return rest


@dataclass
class _Owner:
    """The work of the thread that owns the GPU."""

    plan: bytes
    trt: Any
    open_cuda: Callable[[], Cuda]
    requests: _Requests
    started: Future[tuple[int, ...]] = field(default_factory=Future)

    def __call__(self) -> None:
        """Open the GPU, serve until the queue is closed, and close the GPU."""
        try:
            cuda = self.open_cuda()
        except Exception as error:  # noqa: BLE001 - reported to every waiting caller
            self._give_up(error)
            return
        with contextlib.closing(cuda):
            try:
                self._serve(cuda)
            except Exception as error:  # noqa: BLE001
                self._give_up(error)
            # The error and its frames are released here, so the engine is destroyed before CUDA is closed.

    def _serve(self, cuda: Cuda) -> None:
        with contextlib.closing(PlanRunner(self.plan, self.trt, cuda)) as runner:
            self.started.set_result(runner.shape)
            while batch := self.requests.take(runner.shape[0]):
                self._answer(batch, runner)

    def _answer(self, batch: Sequence[_Request], runner: PlanRunner) -> None:
        """Run a batch and hand each request its rows."""
        try:
            embedding, logits = runner([request.frames for request in batch])
        except Exception as error:
            self._fail(batch, error)
            raise
        first = 0
        for request in batch:
            rows = slice(first, first + len(request.frames))
            request.answer.set_result((embedding[rows], logits[rows]))
            first = rows.stop

    def _give_up(self, error: Exception) -> None:
        """Refuse pending and later requests."""
        self.requests.refuse(self._explained(error))
        self._fail(self.requests.rest(), error)
        if not self.started.done():
            self.started.set_exception(self._explained(error))

    def _fail(self, requests: Sequence[_Request], error: Exception) -> None:
        for request in requests:
            request.answer.set_exception(self._explained(error))

    def _explained(self, error: Exception) -> EngineError:
        if isinstance(error, EngineError):
            return _copy(error)
        return engine_error(self.trt, [*error_log(self.trt).errors, error])


def _copy(error: EngineError) -> EngineError:
    """Return the same error without its traceback, whose frames would keep the engine alive."""
    return EngineError(error.problem, remedy=error.remedy)


def _end(requests: _Requests, thread: threading.Thread) -> None:
    requests.refuse(EngineError("the TensorRT session is closed", remedy="open another one"))
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(CLOSE_TIMEOUT_S)
