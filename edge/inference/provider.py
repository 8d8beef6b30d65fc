"""Choice of the provider that runs a model: TensorRT if an engine was built, else CUDA, else the CPU."""

from __future__ import annotations

import contextlib
from typing import Final

from edge.errors import EngineError, UsageError
from edge.gpu.errors import tensorrt_module
from edge.gpu.plan import PlanRequirements, PlanTarget, StalePlanError, find_plan, open_plan
from edge.gpu.probe import Gpu, probe
from edge.gpu.session import TensorrtSession
from edge.inference.engine import (
    ASKED_FOR,
    Engine,
    EngineLike,
    WindowEngine,
    choose_provider,
    offered,
)
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import Bundle
from edge.model.engine_files import require_window_graph

CHOICES: Final = ("auto", "cpu", "cuda", "tensorrt")


def open_engine(bundle: Bundle, provider: str = "auto") -> EngineLike:
    """Make a model ready to run.

    Args:
        bundle: a checked bundle.
        provider: one of `CHOICES`; "auto" takes the first of TensorRT, CUDA and CPU that is available, and
            the engine's `reason` says why it is not an earlier one.

    Raises:
        UsageError: the provider is unknown.
        EngineError: the provider asked for is not available here; the message says how to get it.
        BundleError: the bundle's graphs cannot be used.
    """
    if provider not in CHOICES:
        *others, last = CHOICES
        raise UsageError(f"unknown provider {provider!r}", remedy=f"choose {', '.join(others)} or {last}")
    if provider == "auto":
        return _fastest(bundle)
    return _on_tensorrt(bundle, probe()[0]) if provider == "tensorrt" else _on_onnx_runtime(bundle, provider)


def _fastest(bundle: Bundle) -> EngineLike:
    try:
        gpu = probe()[0]
    except EngineError as error:
        engine = _on_onnx_runtime(bundle, "cpu")
        engine.reason = error.problem
        return engine
    try:
        return _on_tensorrt(bundle, gpu, f"an engine was built for {gpu.name}")
    except EngineError as error:
        engine = _on_onnx_runtime(bundle, "auto")
        engine.reason = f"{error.problem}; {engine.reason}"
        return engine


def _on_onnx_runtime(bundle: Bundle, provider: str) -> EngineLike:
    """Load the graphs with ONNX Runtime; "auto" falls back to the CPU where CUDA cannot be used."""
    if bundle.manifest.graphs.execution != "window":
        return Engine(bundle, provider)
    chosen = choose_provider(provider)
    reason = ASKED_FOR if provider != "auto" else offered(chosen)
    if chosen != "cpu":
        try:
            window = WindowEngine(bundle, provider=chosen)
            return WindowwiseEngine(bundle, window, provider=chosen, reason=reason)
        except EngineError as error:
            if provider != "auto":
                raise
            reason = error.problem
    return WindowwiseEngine(bundle, provider="cpu", reason=reason)


def _on_tensorrt(bundle: Bundle, gpu: Gpu, reason: str = ASKED_FOR) -> WindowwiseEngine:
    """Load the plan that was built for a bundle on this GPU."""
    require_window_graph(bundle)
    find_plan(bundle)  # raises before TensorRT is imported, which takes seconds
    trt = tensorrt_module()
    plan = open_plan(bundle, PlanTarget.of(gpu, trt.__version__), PlanRequirements())
    with contextlib.ExitStack() as undo:
        session = undo.enter_context(TensorrtSession(plan.data, tensorrt=trt))
        engine = WindowwiseEngine(bundle, session, provider="tensorrt", reason=reason, close=session.close)
        if (session.frames, session.bins) != (engine.frames, engine.bins):
            raise StalePlanError(
                f"the engine takes {session.frames} frames of {session.bins} bins, the model's windows have "
                f"{engine.frames} of {engine.bins}"
            )
        undo.pop_all()
    return engine
