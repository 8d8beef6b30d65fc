"""Checks of what runs the model here, and of what prevents the use of a GPU; one function each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.diagnostics.checks import Check, DiagnosticContext, Verdict, failed
from edge.diagnostics.probes import copies_of, installed
from edge.gpu.plan import PlanRequirements, PlanTarget, StalePlanError, find_plan, open_plan
from edge.gpu.probe import Gpu
from edge.model.bundle import Bundle
from edge.system.shell import quoted

TENSORRT_PARTS: Final = r"tensorrt(?:_cu\d+)?(?:_bindings|_libs)?"
"""Names of the distributions that install TensorRT for Python."""
ONNXRUNTIMES: Final = r"onnxruntime(?:_(?:gpu|openvino|directml|training|rocm|qnn))?"
"""Names of the distributions that install ONNX Runtime, all into the same folder."""
_ONNXRUNTIME: Final = "pip install --force-reinstall onnxruntime"
_UNUSABLE: Final = "not checked: the bundle cannot be used"


def onnxruntime(context: DiagnosticContext) -> Check:
    """Check that ONNX Runtime is installed, and only once; list its providers."""
    name = "onnxruntime"
    found = context.probe.ask("onnxruntime")
    if "error" in found:
        return failed(name, "problem", found, _ONNXRUNTIME)
    said = f"{found['version']} with {', '.join(found['providers'])}"
    kinds = sorted({kind for kind, _, _ in installed(ONNXRUNTIMES)})
    if len(kinds) > 1:
        remedy = f"pip uninstall {' '.join(kinds)}, then reinstall the one you need"
        return Check(name, "note", f"{said}; {' and '.join(kinds)} are installed over each other", remedy)
    return Check(name, "ok", said)


def gpu(context: DiagnosticContext) -> Check:
    """Name the GPU, and check that its driver works."""
    found, verdict = context.driver, context.gpu_verdict
    if "error" in found:
        check = failed("gpu", verdict, found, "run nvidia-smi to see why, or use --provider cpu")
        return check if verdict == "problem" else Check("gpu", verdict, check.found, _for_gpu(check.remedy))
    gpus = [Gpu(**item) for item in found["gpus"]]
    others = f", the first of {len(gpus)}" if len(gpus) > 1 else ""
    return Check("gpu", "ok", f"{_described(gpus[0])}{others}")


def _for_gpu(remedy: str) -> str:
    return f"only for a GPU: {remedy.removesuffix(', or use --provider cpu')}"


def _described(item: Gpu) -> str:
    memory = f"{item.memory_bytes / 2**30:.1f} GB"
    capability = f"compute capability {item.compute_capability}"
    return f"{item.name}, {capability}, {memory}, driver for CUDA {item.driver_cuda_version}"


def tensorrt(context: DiagnosticContext) -> Check:
    """Check that TensorRT loads, and that it is installed only once."""
    name, found, copies = "tensorrt", context.engines, _copies()
    if "error" in found:
        needed = context.gpu_verdict if copies or context.jetson_linux else "note"
        check = failed(name, needed, found, "reinstall it, or use --provider cpu")
        remedy = check.remedy if context.gpu_verdict == "problem" else _for_gpu(check.remedy)
        return Check(name, needed, check.found, remedy, copies)
    said = f"{found['version']}, {found['file']}"
    if _is_twice():
        return Check(
            name, context.gpu_verdict, f"{said}, and another copy is installed", _remove(context), copies
        )
    if context.jetson_linux and not _is_systems(context, found["file"]):
        return Check(name, "problem", f"{said}, which is not JetPack's", _remove(context), copies)
    return Check(name, "ok", said)


def _is_twice() -> bool:
    """Tell whether TensorRT is in two folders, or two versions of it in one."""
    versions = {version.partition(".post")[0] for _, version, _ in installed(TENSORRT_PARTS)}
    return len(copies_of("tensorrt")) > 1 or len(versions) > 1


def _copies() -> tuple[str, ...]:
    """List the folders that Python can import TensorRT from, and the installed distributions."""
    packages = [str(folder) for folder in copies_of("tensorrt")]
    return (
        *packages,
        *(f"{name} {version} in {folder}" for name, version, folder in installed(TENSORRT_PARTS)),
    )


def _is_systems(context: DiagnosticContext, file: str) -> bool:
    return Path(file).resolve().is_relative_to((context.probe.root / "usr" / "lib").resolve())


def _remove(context: DiagnosticContext) -> str:
    keep = "JetPack's, under /usr/lib" if context.jetson_linux else "the one that fits the driver"
    return f"keep {keep}; pip uninstall the other, then mmtl build-engine {quoted(context.folder)}"


def pycuda(context: DiagnosticContext) -> Check:
    """Check that pycuda is installed, which copies windows to the GPU and results back."""
    found = context.probe.ask("pycuda")
    if "error" not in found:
        return Check("pycuda", "ok", f"{found['version']}, built for CUDA {found['cuda']}")
    wanted = context.gpu_verdict == "problem" and "error" not in context.engines
    verdict: Verdict = "problem" if wanted else "note"
    return Check("pycuda", verdict, found["error"], _PYCUDA if wanted else f"only for TensorRT: {_PYCUDA}")


_PYCUDA: Final = "PATH=/usr/local/cuda/bin:$PATH pip install pycuda"


def engine(context: DiagnosticContext) -> Check:
    """Check that a TensorRT engine was built for this model and is valid here."""
    name, model = "engine", context.bundle
    if not isinstance(model, Bundle):
        return Check(name, "note", _UNUSABLE)
    useless = "error" in context.driver or "error" in context.engines
    build = f"mmtl build-engine {quoted(context.folder)}"
    try:
        path = find_plan(model)
    except StalePlanError as error:
        return Check(name, "ok", error.problem) if useless else Check(name, "note", error.problem, build)
    if useless:
        return Check(name, "note", f"{path}: only TensorRT on a GPU can use it")
    here = PlanTarget.of(Gpu(**context.driver["gpus"][0]), context.engines["version"])
    try:
        holds = open_plan(model, here, PlanRequirements()).fingerprint
    except StalePlanError as error:
        return Check(name, "problem", f"stale: {error.problem}", build)
    windows = f"{holds.batch} window{'s' if holds.batch != 1 else ''} at once"
    encoding = holds.precision if holds.recurrence == "none" else f"{holds.recurrence}, {holds.precision}"
    return Check(name, "ok", f"fresh: {encoding}, up to {windows} ({path})")


def provider(context: DiagnosticContext) -> Check:
    """Report what --provider auto selects, and why nothing faster."""
    if not isinstance(context.bundle, Bundle):
        return Check("provider", "note", _UNUSABLE)
    found = context.probe.ask("provider", str(context.folder))
    if "error" in found:
        return failed("provider", "problem", found, "use --provider cpu")
    slower = found["provider"] == "cpu" and context.gpu_verdict == "problem"
    said = f"auto selects {found['provider']}: {found['reason']}"
    return (
        Check("provider", "note", said, "see above what prevents the use of the GPU")
        if slower
        else Check("provider", "ok", said)
    )
