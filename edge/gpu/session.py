"""The whole-window graph on TensorRT: one thread owns the GPU, any number of threads ask it.

    session(frames) in any thread -> _Requests -> owner thread: PlanRunner on a Cuda -> answers

The rule of batching: whoever waits while the GPU is busy is served together, in the order of asking, as
long as the windows fit into the plan's largest batch. Nobody waits for company: a request that finds the
GPU idle is served at once, alone.

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
from edge.gpu.runner import Answer, PlanRunner
from edge.system.futures import interruptible_result

SLICE_S: Final = 0.5
PATIENCE: Final = 3
"""Slices of time until a GPU that does not answer is given up: less than the sound that a microphone
keeps (2 s). In slices, so that a program that was stopped (Ctrl-Z) loses no more than one of them."""
FAREWELL_S: Final = 10.0
"""How long `close` waits for a GPU that hangs before it leaves the owner thread to its fate."""


class TensorrtSession:
    """Runs full windows on TensorRT, as `edge.inference.engine.WindowEngine` does on the CPU.

    Owns a thread, which owns the GPU's context; `close`, the end of a `with` block, the last reference
    going and the end of the program all end both. After a failure the session is lost: whoever waits,
    and whoever asks later, gets an EngineError.
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
            tensorrt: the module, or what stands in for it.
            open_cuda: takes hold of the GPU; called in the owner thread.
            slice_s: the GPU has `PATIENCE` times so many seconds to answer, > 0.

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

    def __call__(self, frames: Array) -> Answer:
        """Map (B, T, F) normalised frames, B of any size, to (B, D) embeddings and (B, C) generic logits.

        Raises:
            EngineError: the GPU has failed, now or before, or the session is closed.
        """
        assert frames.shape[1:] == (self.frames, self.bins), "this is no full window"
        most = self.largest_batch
        pieces = [frames[first : first + most] for first in range(0, len(frames), most)]
        asked = [self._requests.ask(piece) for piece in pieces]
        answers = [self._awaited(answer) for answer in asked]
        embeddings, logits = zip(*answers, strict=True)
        return np.concatenate(embeddings), np.concatenate(logits)

    def close(self) -> None:
        """Serve those who wait, then let go of the GPU and end the thread; twice does no harm."""
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

    def _awaited(self, answer: Future[Answer]) -> Answer:
        for _ in range(PATIENCE):
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return answer.result(self._slice_s)
        lost = EngineError(
            f"the GPU has not answered for {PATIENCE * self._slice_s:g} s",
            remedy="see what nvidia-smi or dmesg says",
        )
        self._requests.refuse(lost)
        raise _copy(lost)


@dataclass
class _Request:
    """Windows on their way to the GPU, and where the answer goes."""

    frames: Array
    answer: Future[Answer] = field(default_factory=Future)


class _Requests:
    """What the callers' threads ask of the owner thread, in order, until the session ends."""

    def __init__(self) -> None:
        self._waiting: deque[_Request] = deque()
        self._refusal: EngineError | None = None
        self._changed = threading.Condition()  # reentrant: `_end` may run wherever Python collects garbage

    def ask(self, frames: Array) -> Future[Answer]:
        """Queue windows, no more than fit into a batch.

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
        """Wait for requests; return those in front that fit into a batch together, none after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._refusal)
            batch: list[_Request] = []
            while self._waiting and len(self._waiting[0].frames) <= most:
                batch.append(self._waiting.popleft())
                most -= len(batch[-1].frames)
            return batch

    def refuse(self, reason: EngineError) -> None:
        """Take no more, for the reason given first; what waits can still be taken."""
        with self._changed:
            self._refusal = self._refusal or reason
            self._changed.notify()

    def rest(self) -> list[_Request]:
        """Return what was never taken."""
        with self._changed:
            rest = list(self._waiting)
            self._waiting.clear()
            return rest


@dataclass
class _Owner:
    """The thread that holds the GPU from the first request to the last."""

    plan: bytes
    trt: Any
    open_cuda: Callable[[], Cuda]
    requests: _Requests
    started: Future[tuple[int, ...]] = field(default_factory=Future)

    def __call__(self) -> None:
        """Open, serve until nothing more is asked, and close."""
        try:
            cuda = self.open_cuda()
        except Exception as error:  # noqa: BLE001 - whoever waits must learn of anything
            self._give_up(error)
            return
        with contextlib.closing(cuda):
            try:
                self._serve(cuda)
            except Exception as error:  # noqa: BLE001
                self._give_up(error)
            # The error is forgotten here, and with it what its frames refer to: engine before CUDA.

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
        """Let nobody wait, now or later."""
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
        thread.join(FAREWELL_S)
