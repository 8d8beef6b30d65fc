"""The engine of a bundle: each encoding of its graph is built and timed, and the fastest that agrees stays.

No TensorRT builder or engine has run for this project yet: which encoding wins on which device is not known,
and that is why it is measured where it matters.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.engine_builder.build import BuildConfig, Progress, Say, build_plan
from edge.engine_builder.candidates import Candidate, Reference, candidates, largest_difference, reference_of
from edge.errors import EngineError, UsageError, VerificationError
from edge.gpu.cuda import pycuda_driver
from edge.gpu.errors import tensorrt_module
from edge.gpu.plan import (
    Fingerprint,
    Plan,
    PlanRequirements,
    Target,
    fingerprint_of_graph,
    open_plan,
    plan_folder,
    plan_path,
    stale,
    write_plan,
)
from edge.gpu.probe import Gpu, probe
from edge.model.bundle import Bundle
from edge.system.files import remove_leftovers

_WORKSPACE_BYTES: Final = 2**30
_ROOM_BYTES: Final = 64 * 2**20
"""Free space without which a build of minutes is not begun."""
_WARM_UP, _TIMED = 10, 50


class WindowSession(Protocol):
    """A plan that is loaded and can run."""

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        """Map (B, T, F) normalised frames to (B, D) embeddings and (B, C) generic logits."""

    def close(self) -> None:
        """Release what it holds of the GPU."""


@dataclass(frozen=True)
class Machine:
    """What builds engines here."""

    gpu: Gpu
    trt: Any
    """TensorRT's module."""
    open_session: Callable[[bytes], WindowSession]
    clock: Callable[[], float] = time.perf_counter
    """In seconds."""

    @property
    def target(self) -> Target:
        """What the plans built here hold for."""
        return Target.of(self.gpu, self.trt.__version__)


@dataclass(frozen=True)
class Measured:
    """A candidate that was built and run."""

    candidate: Candidate
    plan: bytes = field(repr=False)
    difference: float
    """Largest, of embedding and logits, from ONNX Runtime; NaN if the engine gives NaN."""
    allowed: float
    milliseconds: float
    """Median of one window at a time."""

    @property
    def agrees(self) -> bool:
        """Whether it does what ONNX Runtime does."""
        return self.difference <= self.allowed

    def described(self) -> dict[str, Any]:
        """Return what is kept of it beside the plan."""
        return {
            "graph": self.candidate.graph,
            "difference": self.difference if math.isfinite(self.difference) else None,
            "agrees": self.agrees,
            "milliseconds": self.milliseconds,
        }


def this_machine() -> Machine:
    """Look at the GPU, then load TensorRT, and in this order only; then pycuda, without which no engine runs.

    Raises:
        EngineError: one of them is not there, or too old.
    """
    gpu = probe()[0]
    trt = tensorrt_module()
    pycuda_driver()  # asked now: to learn after minutes of building that nothing can be compared is too late
    from edge.gpu.session import TensorrtSession

    return Machine(gpu, trt, TensorrtSession)


def build_engine(
    bundle: Bundle,
    wanted: PlanRequirements,
    machine: Machine,
    *,
    folder: Path | None = None,
    force: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda _: None,
) -> Plan:
    """Return the bundle's engine, built again unless the one that is there holds.

    Args:
        bundle: a checked bundle.
        wanted: precision and batch.
        machine: what to build with.
        folder: of the plans; where `edge.gpu.plan.plan_folder` says, if not given.
        force: build even if it holds.
        say: told, in a line each, why it is built and what became of each candidate.
        progress: told the share that is done.

    Raises:
        EngineError: no candidate can be built.
        VerificationError: none agrees with ONNX Runtime; the engine that was there stays.
        UsageError: the precision is not to be had, or the folder cannot be written.
    """
    tried = candidates(bundle, wanted.precision)
    remove_leftovers(plan_folder(folder))
    reason = stale(bundle, machine.target, wanted, folder)
    if not reason and not force:
        return open_plan(bundle, machine.target, wanted, folder)
    say(reason or "building as asked")
    _require_room(plan_folder(folder))
    workshop = _CandidateBenchmark(bundle, wanted, machine, plan_folder(folder), reference_of(bundle))
    measured = workshop.measure_all(tried, say, progress)
    best = fastest(measured)
    report = {
        "driver_cuda_version": machine.gpu.driver_cuda_version,
        "candidates": [item.described() for item in measured],
    }
    return write_plan(plan_path(bundle, folder), best.plan, workshop.fingerprint(best.candidate), report)


def fastest(measured: Sequence[Measured]) -> Measured:
    """Return the fastest of those that agree with ONNX Runtime.

    Raises:
        VerificationError: none does.
    """
    agreeing = [item for item in measured if item.agrees]
    if not agreeing:
        found = ", ".join(f"{item.candidate} by {item.difference:.2g}" for item in measured)
        raise VerificationError(
            f"no engine agrees with ONNX Runtime ({found}): nothing was written; use --provider cpu, and "
            "report this with what mmtl doctor prints"
        )
    return min(agreeing, key=lambda item: item.milliseconds)


class _CandidateBenchmark:
    """What building each candidate needs."""

    def __init__(
        self, bundle: Bundle, wanted: PlanRequirements, machine: Machine, folder: Path, reference: Reference
    ) -> None:
        self._bundle, self._wanted, self._machine = bundle, wanted, machine
        self._folder, self._reference = folder, reference

    def measure_all(self, tried: Sequence[Candidate], say: Say, progress: Progress) -> list[Measured]:
        """Build and run each candidate; one that fails is left out, unless all do."""
        outcomes = {
            candidate: self._attempt(candidate, say, _part(progress, index, len(tried)))
            for index, candidate in enumerate(tried)
        }
        measured = [outcome for outcome in outcomes.values() if isinstance(outcome, Measured)]
        for candidate, outcome in outcomes.items():
            if isinstance(outcome, EngineError):
                if not measured:
                    raise outcome
                say(f"{candidate}: {outcome}")
        return measured

    def _attempt(self, candidate: Candidate, say: Say, progress: Progress) -> Measured | EngineError:
        try:
            measured = self.measure(candidate, say, progress)
        except EngineError as error:
            return error
        say(_verdict(measured))
        return measured

    def measure(self, candidate: Candidate, say: Say, progress: Progress) -> Measured:
        """Build a candidate, compare it with ONNX Runtime and time it."""
        plan = build_plan(self._machine.trt, self._recipe(candidate), progress, say)
        session = self._machine.open_session(plan)
        try:
            allowed = self._reference.tolerance[candidate.precision]
            return Measured(candidate, plan, self._compared(session), allowed, self._timed(session))
        finally:
            session.close()

    def fingerprint(self, candidate: Candidate) -> Fingerprint:
        """Say what a candidate's plan holds for."""
        target = self._machine.target
        return Fingerprint(
            graph=candidate.graph,
            onnx_sha256=fingerprint_of_graph(self._bundle, candidate.graph),
            tensorrt=target.tensorrt,
            gpu=target.gpu,
            compute_capability=target.compute_capability,
            precision=candidate.precision,
            recurrence=candidate.recurrence,
            frames=self._bundle.manifest.front_end.window_frames,
            batch=self._wanted.batch,
        )

    def _recipe(self, candidate: Candidate) -> BuildConfig:
        gpu, target = self._machine.gpu, self._machine.target
        return BuildConfig(
            graph=self._bundle.graph(candidate.graph),
            frames=self._bundle.manifest.front_end.window_frames,
            bins=self._bundle.manifest.front_end.bins,
            batch=self._wanted.batch,
            workspace_bytes=min(_WORKSPACE_BYTES, gpu.memory_bytes // 4),
            timing_cache=self._folder / f"timing-{target.tensorrt}-sm{target.compute_capability}.cache",
        )

    def _compared(self, session: WindowSession) -> float:
        """Return the largest difference, of full batches and of single windows."""
        count, batch = len(self._reference.frames), self._wanted.batch
        windows = np.resize(np.arange(count), max(count, batch))
        batches = [windows[start : start + batch] for start in range(0, len(windows), batch)]
        return float(np.max([self._difference(session, chosen) for chosen in (*batches, windows[:1])]))

    def _difference(self, session: WindowSession, chosen: NDArray[np.intp]) -> float:
        reference = self._reference
        expected = (reference.embedding[chosen], reference.logits[chosen])
        return largest_difference(session(reference.frames[chosen]), expected)

    def _timed(self, session: WindowSession) -> float:
        one, clock = self._reference.frames[:1], self._machine.clock
        times = []
        for _ in range(_WARM_UP + _TIMED):
            started = clock()
            session(one)
            times.append(clock() - started)
        return 1000.0 * median(times[_WARM_UP:])


def _verdict(item: Measured) -> str:
    agreement = f"{item.difference:.1e} from ONNX Runtime, {item.allowed:g} allowed"
    left_out = "" if item.agrees else ": left out"
    return f"{item.candidate}: {item.milliseconds:.2f} ms a window; {agreement}{left_out}"


def _part(progress: Progress, index: int, count: int) -> Progress:
    return lambda share: progress((index + share) / count)


def _require_room(folder: Path) -> None:
    """Make the folder, and refuse to begin where the plan could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}: name a folder you may write to with --out"
        ) from error
    if free < _ROOM_BYTES:
        raise EngineError(
            f"{folder} has room for {free >> 20} MB, an engine needs {_ROOM_BYTES >> 20}: make room, or name "
            "another folder with --out"
        )
