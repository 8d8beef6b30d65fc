"""One graph becomes one TensorRT plan, on the GPU it shall run on.

No TensorRT builder or engine has run for this project yet: the steps follow NVIDIA's documentation, their
names are checked against TensorRT's own Python API, and their order and failures against a stand-in.

The precision is the graph's (strongly typed, with explicit casts), TF32 is off, and the plan is not version
compatible: such plans hold code for the CPU, which nobody should load from a file.
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
from edge.gpu.plan import write_whole
from edge.system.futures import interruptible_result

Progress = Callable[[float], None]
"""Takes the share that is done, 0 to 1."""
Say = Callable[[str], None]
"""Takes a line for the person who waits."""

_NEARLY: Final = 0.99


@dataclass(frozen=True)
class BuildConfig:
    """How a graph becomes a plan."""

    graph: Path
    frames: int
    """T of a window."""
    bins: int
    batch: int
    """Most windows at once, >= 1."""
    workspace_bytes: int
    """Most that a layer may use to compute in."""
    timing_cache: Path
    """What TensorRT learned about this GPU's kernels; it makes the next build faster, and may be missing."""


def build_plan(
    trt: Any, recipe: BuildConfig, progress: Progress = lambda _: None, say: Say = lambda _: None
) -> bytes:
    """Build a plan. Ask `edge.gpu.probe.probe` first.

    TensorRT works in a thread of its own, so that Ctrl-C is heard: it then ends at its next step. The
    timing cache is kept even so.

    Args:
        trt: TensorRT's module.
        recipe: what to build.
        progress: told how far it is, from other threads too.
        say: told that it is being stopped.

    Raises:
        EngineError: TensorRT cannot build it; the one line says why.
        KeyboardInterrupt: it was stopped.
    """
    watch = _Watch(progress)
    with ThreadPoolExecutor(1, "tensorrt") as pool:
        pool.submit(lambda: None)  # starts the thread, for Ctrl-C while it starts would leave it unknown
        try:
            return interruptible_result(pool.submit(_Build(trt, recipe, watch)))
        except KeyboardInterrupt:
            watch.stopped.set()
            say("stopping at TensorRT's next step; what it learned so far is kept")
            raise


class Phases:
    """TensorRT's phases and the phases within them, as one share that never shrinks."""

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
    """What the person sees of a build, and how they stop it."""

    def __init__(self, progress: Progress) -> None:
        self.stopped = threading.Event()
        self._progress = progress

    def monitor(self, trt: Any) -> Any:
        """Return what TensorRT reports its steps to. An exception in it would stop the build."""
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
    """One build, in the thread that calls it; what TensorRT refers to lives as long as this does."""

    def __init__(self, trt: Any, recipe: BuildConfig, watch: _Watch) -> None:
        self._trt, self._recipe = trt, recipe
        self._log = error_log(trt)
        self._monitor = watch.monitor(trt) if hasattr(trt, "IProgressMonitor") else None

    def __call__(self) -> bytes:
        self._log.errors.clear()
        builder = self._builder()
        network = builder.create_network(self._creation_flags())
        parser = self._trt.OnnxParser(network, self._log)
        self._parse(parser)
        config = builder.create_builder_config()
        self._configure(builder, network, config)
        cache = self._timing_cache(config)
        try:
            plan = builder.build_serialized_network(network, config)
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
        """Ask for a strongly typed network, where that is not the only kind there is."""
        trt = self._trt
        if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            return 0
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _parse(self, parser: Any) -> None:
        if not parser.parse(self._recipe.graph.read_bytes()):
            raise self._failure(*(parser.get_error(index).desc() for index in range(parser.num_errors)))

    def _configure(self, builder: Any, network: Any, config: Any) -> None:
        trt, recipe = self._trt, self._recipe
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
        if hasattr(trt.BuilderFlag, "TF32"):  # on unless it is cleared, and then FP32 has 10 bits
            config.clear_flag(trt.BuilderFlag.TF32)
        if self._monitor is not None:
            config.progress_monitor = self._monitor
        profile = builder.create_optimization_profile()
        one, most = ((count, recipe.frames, recipe.bins) for count in (1, recipe.batch))
        profile.set_shape(network.get_input(0).name, one, one, most)  # fastest where one person speaks
        if config.add_optimization_profile(profile) < 0:
            raise self._failure("the graph does not take windows of the model's size")

    def _timing_cache(self, config: Any) -> Any:
        """Give TensorRT the timings of earlier builds; if they are not of this GPU, an empty cache."""
        with contextlib.suppress(OSError):
            cache = config.create_timing_cache(self._recipe.timing_cache.read_bytes())
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
        self._log.errors.clear()
        return cache

    def _keep(self, cache: Any) -> None:
        """Write the timings; that they cannot be written is no reason to fail."""
        timings = None if cache is None else cache.serialize()
        if timings is not None:
            with contextlib.suppress(MmtlError):
                write_whole(self._recipe.timing_cache, bytes(timings))

    def _failure(self, *messages: object) -> EngineError:
        return engine_error(self._trt, [*messages, *self._log.errors])
