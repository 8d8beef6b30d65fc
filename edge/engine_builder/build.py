"""Build one TensorRT plan from one graph, on the GPU that will run it.

No TensorRT builder or engine has run for this project yet: the steps follow NVIDIA's documentation, their
names are checked against TensorRT's own Python API, and their order and failures against a stand-in.

The precision is the graph's (strongly typed, with explicit casts). TF32 is off. The plan is not version
compatible: such plans hold CPU code, which must not be loaded from a file.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.errors import EngineError, MmtlError
from edge.gpu.errors import engine_error, error_log
from edge.system.files import atomic_write
from edge.system.futures import interruptible_result

ProgressCallback = Callable[[float], None]
"""Takes the share of the work that is done, in [0, 1]."""
LineCallback = Callable[[str], None]
"""Takes one line for the user."""

_NEARLY: Final = 0.99


@dataclass(frozen=True)
class BuildConfig:
    """How a graph becomes a plan."""

    graph: Path
    frames: int
    """T of a window."""
    bins: int
    batch: int
    """Largest number of windows at once, >= 1."""
    workspace_bytes: int
    """Largest scratch memory of one layer."""
    timing_cache: Path
    """File with TensorRT's timings of this GPU's kernels, which makes the next build faster; it may be
    missing."""


def build_plan(
    trt: Any,
    build_config: BuildConfig,
    progress: ProgressCallback = lambda _: None,
    say: LineCallback = lambda _: None,
) -> bytes:
    """Build a plan. Ask `edge.gpu.probe.probe` first.

    TensorRT runs in its own thread, so that Ctrl-C is handled: the build then ends at TensorRT's next step,
    and the timing cache is still written.

    Args:
        trt: TensorRT's module.
        build_config: what to build.
        progress: called with the share that is done, from other threads too.
        say: called with one line when the build is stopped.

    Raises:
        EngineError: TensorRT cannot build it; the message says why.
        KeyboardInterrupt: the user stopped it.
    """
    watch = _Watch(progress)
    with ThreadPoolExecutor(1, "tensorrt") as pool:
        pool.submit(lambda: None)  # starts the thread: Ctrl-C during its start would lose track of it
        try:
            return interruptible_result(pool.submit(_Build(trt, build_config, watch)))
        except KeyboardInterrupt:
            watch.stopped.set()
            say("stopping at TensorRT's next step; its kernel timings are kept")
            raise


class Phases:
    """Progress of TensorRT's nested phases as one share, which never falls."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, int]] = {}  # steps done and steps in all, outermost phase first
        self._share = 0.0

    def start(self, name: str, steps: int) -> None:
        """Begin a phase."""
        self._open[name] = (0, max(1, steps))

    def step(self, name: str, step: int) -> None:
        """Note that a step, counted from 0, is done."""
        if name in self._open:
            self._open[name] = (step + 1, self._open[name][1])

    def finish(self, name: str) -> None:
        """End a phase."""
        self._open.pop(name, None)

    @property
    def share(self) -> float:
        """The share that is done: short of 1 until TensorRT has handed over the plan."""
        inner = 0.0
        for done, steps in reversed(self._open.values()):
            inner = min(1.0, (done + inner) / steps)
        self._share = max(self._share, min(inner, _NEARLY))
        return self._share


class _Watch:
    """Reports the progress of a build, and stops it."""

    def __init__(self, progress: ProgressCallback) -> None:
        self.stopped = threading.Event()
        self._progress = progress

    def monitor(self, trt: Any) -> Any:
        """Return the object to which TensorRT reports its steps. An exception in it would stop the build."""
        phases, stopped, progress = Phases(), self.stopped, self._progress

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                phases.start(phase_name, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                phases.step(phase_name, step)
                with contextlib.suppress(Exception):
                    progress(phases.share)
                return not stopped.is_set()

            def phase_finish(self, phase_name: str) -> None:
                phases.finish(phase_name)

        return Monitor()


class _Build:
    """One build, in the calling thread. Keeps alive what TensorRT refers to."""

    def __init__(self, trt: Any, build_config: BuildConfig, watch: _Watch) -> None:
        self._trt, self._build_config = trt, build_config
        self._log = error_log(trt)
        self._monitor = watch.monitor(trt) if hasattr(trt, "IProgressMonitor") else None

    def __call__(self) -> bytes:
        self._log.errors.clear()
        builder = self._builder()
        network = builder.create_network(self._creation_flags())
        parser = self._trt.OnnxParser(network, self._log)
        self._parse(parser)
        builder_config = builder.create_builder_config()
        self._configure(builder, network, builder_config)
        cache = self._timing_cache(builder_config)
        try:
            plan = builder.build_serialized_network(network, builder_config)
        finally:
            self._keep(cache)
        if plan is None:
            raise self._failure()
        return bytes(plan)

    def _builder(self) -> Any:
        try:
            return self._trt.Builder(self._log)
        except TypeError as error:  # what pybind11 makes of a null pointer
            raise self._failure(error) from error

    def _creation_flags(self) -> int:
        """Ask for a strongly typed network; TensorRT versions without the flag have no other kind."""
        trt = self._trt
        if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            return 0
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _parse(self, parser: Any) -> None:
        if not parser.parse(self._build_config.graph.read_bytes()):
            raise self._failure(*(parser.get_error(index).desc() for index in range(parser.num_errors)))

    def _configure(self, builder: Any, network: Any, builder_config: Any) -> None:
        trt, build_config = self._trt, self._build_config
        builder_config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build_config.workspace_bytes)
        if hasattr(trt.BuilderFlag, "TF32"):  # on by default; FP32 would have 10 bits of mantissa
            builder_config.clear_flag(trt.BuilderFlag.TF32)
        if self._monitor is not None:
            builder_config.progress_monitor = self._monitor
        profile = builder.create_optimization_profile()
        one, most = ((count, build_config.frames, build_config.bins) for count in (1, build_config.batch))
        profile.set_shape(network.get_input(0).name, one, one, most)  # optimal size: one speaker
        if builder_config.add_optimization_profile(profile) < 0:
            raise self._failure("the graph does not take windows of the model's size")

    def _timing_cache(self, builder_config: Any) -> Any:
        """Give TensorRT the timings of earlier builds, or an empty cache if those are of another GPU."""
        with contextlib.suppress(OSError):
            cache = builder_config.create_timing_cache(self._build_config.timing_cache.read_bytes())
            if cache is not None and builder_config.set_timing_cache(cache, False):
                return cache
        cache = builder_config.create_timing_cache(b"")
        builder_config.set_timing_cache(cache, False)
        self._log.errors.clear()
        return cache

    def _keep(self, cache: Any) -> None:
        """Write the timings; a failure to write them is ignored."""
        timings = None if cache is None else cache.serialize()
        if timings is not None:
            with (
                contextlib.suppress(MmtlError, OSError),
                atomic_write(self._build_config.timing_cache) as partial,
            ):
                partial.write_bytes(bytes(timings))

    def _failure(self, *messages: object) -> EngineError:
        return engine_error(self._trt, [*messages, *self._log.errors])
