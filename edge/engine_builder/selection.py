"""Build and time an engine from each graph of a bundle, and keep the fastest that agrees with ONNX Runtime.

No TensorRT builder or engine has run for this project yet. Which graph is fastest depends on the device, so
it is measured there.
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
from edge.engine_builder.build import BuildConfig, LineCallback, ProgressCallback, build_plan
from edge.engine_builder.candidates import (
    GraphCandidate,
    ReferenceWindows,
    candidates,
    largest_difference,
    reference_of,
)
from edge.errors import EngineError, UsageError, VerificationError
from edge.gpu.cuda import pycuda_driver
from edge.gpu.errors import tensorrt_module
from edge.gpu.plan import (
    Fingerprint,
    Plan,
    PlanRequirements,
    PlanTarget,
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
"""Free disk space that a build needs before it starts."""
_WARM_UP, _TIMED = 10, 50


class WindowSession(Protocol):
    """A loaded plan."""

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        """Map (B, T, F) normalised frames to (B, D) embeddings and (B, C) generic logits."""

    def close(self) -> None:
        """Release the GPU."""


@dataclass(frozen=True)
class BuildEnvironment:
    """The GPU and the TensorRT that build engines, and how engines are run and timed."""

    gpu: Gpu
    trt: Any
    """TensorRT's module."""
    open_session: Callable[[bytes], WindowSession]
    clock: Callable[[], float] = time.perf_counter
    """In seconds."""

    @property
    def target(self) -> PlanTarget:
        """Where plans that are built here run."""
        return PlanTarget.of(self.gpu, self.trt.__version__)


@dataclass(frozen=True)
class CandidateResult:
    """A candidate after it was built and run."""

    candidate: GraphCandidate
    plan: bytes = field(repr=False)
    difference: float
    """Largest difference of embedding and logits from ONNX Runtime; NaN if the engine returns NaN."""
    allowed: float
    """Largest difference that passes."""
    milliseconds: float
    """Median time of one window."""

    @property
    def agrees(self) -> bool:
        """Whether the difference passes."""
        return self.difference <= self.allowed

    def described(self) -> dict[str, Any]:
        """Return the report that is kept beside the plan."""
        return {
            "graph": self.candidate.graph,
            "difference": self.difference if math.isfinite(self.difference) else None,
            "agrees": self.agrees,
            "milliseconds": self.milliseconds,
        }


def build_environment() -> BuildEnvironment:
    """Probe the GPU, then load TensorRT, in this order; then pycuda, which running an engine needs.

    Raises:
        EngineError: one of them is missing or too old.
    """
    gpu = probe()[0]
    trt = tensorrt_module()
    pycuda_driver()  # checked before a build of minutes, which could not be compared without it
    from edge.gpu.session import TensorrtSession

    return BuildEnvironment(gpu, trt, TensorrtSession)


def build_engine(
    bundle: Bundle,
    requirements: PlanRequirements,
    environment: BuildEnvironment,
    *,
    folder: Path | None = None,
    force: bool = False,
    say: LineCallback = lambda _: None,
    progress: ProgressCallback = lambda _: None,
) -> Plan:
    """Return the bundle's engine; build it unless a valid one exists.

    Args:
        bundle: a checked bundle.
        requirements: precision and batch.
        environment: what to build with.
        folder: of the plans; `edge.gpu.plan.plan_folder`'s if None.
        force: build even if a valid engine exists.
        say: called with one line for the reason of the build and one for each candidate's result.
        progress: called with the share that is done.

    Raises:
        EngineError: no candidate can be built.
        VerificationError: no engine agrees with ONNX Runtime; an existing engine stays.
        UsageError: no graph has the precision, or the folder cannot be written.
    """
    graphs = candidates(bundle, requirements.precision)
    remove_leftovers(plan_folder(folder))
    reason = stale(bundle, environment.target, requirements, folder)
    if not reason and not force:
        return open_plan(bundle, environment.target, requirements, folder)
    say(reason or "building again, as --force asks")
    _require_room(plan_folder(folder))
    benchmark = _CandidateBenchmark(
        bundle, requirements, environment, plan_folder(folder), reference_of(bundle)
    )
    results = benchmark.measure_all(graphs, say, progress)
    best = fastest(results)
    report = {
        "driver_cuda_version": environment.gpu.driver_cuda_version,
        "candidates": [result.described() for result in results],
    }
    return write_plan(plan_path(bundle, folder), best.plan, benchmark.fingerprint(best.candidate), report)


def fastest(results: Sequence[CandidateResult]) -> CandidateResult:
    """Return the fastest candidate that agrees with ONNX Runtime.

    Raises:
        VerificationError: none agrees.
    """
    agreeing = [result for result in results if result.agrees]
    if not agreeing:
        found = ", ".join(f"{result.candidate} by {result.difference:.2g}" for result in results)
        raise VerificationError(
            f"nothing was written: every engine differs too much from ONNX Runtime ({found})",
            remedy="use --provider cpu, and report this with the output of mmtl doctor",
        )
    return min(agreeing, key=lambda result: result.milliseconds)


class _CandidateBenchmark:
    """Builds, compares and times each candidate."""

    def __init__(
        self,
        bundle: Bundle,
        requirements: PlanRequirements,
        environment: BuildEnvironment,
        folder: Path,
        reference: ReferenceWindows,
    ) -> None:
        self._bundle, self._requirements, self._environment = bundle, requirements, environment
        self._folder, self._reference = folder, reference

    def measure_all(
        self, graphs: Sequence[GraphCandidate], say: LineCallback, progress: ProgressCallback
    ) -> list[CandidateResult]:
        """Build and run each candidate; leave out those that fail, or raise if all do."""
        outcomes = {
            candidate: self._attempt(candidate, say, _part(progress, index, len(graphs)))
            for index, candidate in enumerate(graphs)
        }
        results = [outcome for outcome in outcomes.values() if isinstance(outcome, CandidateResult)]
        for candidate, outcome in outcomes.items():
            if isinstance(outcome, EngineError):
                if not results:
                    raise outcome
                say(f"{candidate}: {outcome}")
        return results

    def _attempt(
        self, candidate: GraphCandidate, say: LineCallback, progress: ProgressCallback
    ) -> CandidateResult | EngineError:
        try:
            result = self.measure(candidate, say, progress)
        except EngineError as error:
            return error
        say(_verdict(result))
        return result

    def measure(
        self, candidate: GraphCandidate, say: LineCallback, progress: ProgressCallback
    ) -> CandidateResult:
        """Build a candidate, compare it with ONNX Runtime and time it."""
        plan = build_plan(self._environment.trt, self._build_config(candidate), progress, say)
        session = self._environment.open_session(plan)
        try:
            allowed = self._reference.tolerance[candidate.precision]
            return CandidateResult(candidate, plan, self._compared(session), allowed, self._timed(session))
        finally:
            session.close()

    def fingerprint(self, candidate: GraphCandidate) -> Fingerprint:
        """Return the fingerprint of a candidate's plan."""
        target = self._environment.target
        return Fingerprint(
            graph=candidate.graph,
            onnx_sha256=fingerprint_of_graph(self._bundle, candidate.graph),
            tensorrt=target.tensorrt,
            gpu=target.gpu,
            compute_capability=target.compute_capability,
            precision=candidate.precision,
            recurrence=candidate.recurrence,
            frames=self._bundle.manifest.front_end.window_frames,
            batch=self._requirements.batch,
        )

    def _build_config(self, candidate: GraphCandidate) -> BuildConfig:
        gpu, target = self._environment.gpu, self._environment.target
        return BuildConfig(
            graph=self._bundle.graph(candidate.graph),
            frames=self._bundle.manifest.front_end.window_frames,
            bins=self._bundle.manifest.front_end.frame_size,
            batch=self._requirements.batch,
            workspace_bytes=min(_WORKSPACE_BYTES, gpu.memory_bytes // 4),
            timing_cache=self._folder / f"timing-{target.tensorrt}-sm{target.compute_capability}.cache",
        )

    def _compared(self, session: WindowSession) -> float:
        """Return the largest difference over full batches and one single window."""
        count, batch = len(self._reference.frames), self._requirements.batch
        windows = np.resize(np.arange(count), max(count, batch))
        batches = [windows[start : start + batch] for start in range(0, len(windows), batch)]
        return float(np.max([self._difference(session, chosen) for chosen in (*batches, windows[:1])]))

    def _difference(self, session: WindowSession, chosen: NDArray[np.intp]) -> float:
        reference = self._reference
        expected = (reference.embedding[chosen], reference.logits[chosen])
        return largest_difference(session(reference.frames[chosen]), expected)

    def _timed(self, session: WindowSession) -> float:
        one, clock = self._reference.frames[:1], self._environment.clock
        times = []
        for _ in range(_WARM_UP + _TIMED):
            started = clock()
            session(one)
            times.append(clock() - started)
        return 1000.0 * median(times[_WARM_UP:])


def _verdict(result: CandidateResult) -> str:
    agreement = f"{result.difference:.1e} from ONNX Runtime, {result.allowed:g} allowed"
    left_out = "" if result.agrees else ": rejected"
    return f"{result.candidate}: {result.milliseconds:.2f} ms per window; {agreement}{left_out}"


def _part(progress: ProgressCallback, index: int, count: int) -> ProgressCallback:
    return lambda share: progress((index + share) / count)


def _require_room(folder: Path) -> None:
    """Create the folder, and check that a plan can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(
            f"cannot write {folder} ({error.strerror})", remedy="name a folder you may write to with --out"
        ) from error
    if free < _ROOM_BYTES:
        raise EngineError(
            f"{folder} has {free >> 20} MB free, an engine needs {_ROOM_BYTES >> 20} MB",
            remedy="free some space, or name another folder with --out",
        )
