"""A machine without a GPU lacks nothing; on one with a GPU, what keeps the model from it is a problem."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edge.diagnostics import gpu_checks
from edge.diagnostics.checks import Check, DiagnosticContext
from edge.diagnostics.probes import Answer, SystemProbe
from edge.gpu.plan import Fingerprint, fingerprint_of_graph, plan_path, write_plan
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import WINDOW
from tests.cnn_lstm import CNN_LSTM

DRIVER = Path(__file__).parents[1] / "gpu" / "fake_libcuda.c"
GPU = {
    "gpus": [
        {"name": "Orin", "compute_capability": "8.7", "memory_bytes": 8 << 30, "driver_cuda_version": "12.6"}
    ]
}
TENSORRT = {"version": "10.3.0", "file": "/usr/lib/python3.10/dist-packages/tensorrt/__init__.py"}
NO_DRIVER = {"error": "there is no NVIDIA driver here", "remedy": "install it, or use --provider cpu"}


@dataclass(frozen=True)
class Told(SystemProbe):
    """A machine that answers what a test tells it to; its libraries are those of this one otherwise."""

    answers: dict[str, Answer] = field(default_factory=dict)

    def ask(self, question: str, *arguments: str) -> Answer:
        return self.answers.get(question) or super().ask(question, *arguments)


MakeContext = Callable[..., DiagnosticContext]


@pytest.fixture
def make_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeContext:
    """Make a machine with these answers, and without a driver if none says otherwise."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))

    def make(folder: Path | None = None, **answers: Any) -> DiagnosticContext:
        told = {"gpu": NO_DRIVER, "tensorrt": {"error": "not installed", "remedy": "install it"}} | answers
        return DiagnosticContext(
            Told(tmp_path / "root", str(tmp_path / "bin"), answers=told), folder or CNN_LSTM
        )

    return make


def put(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def path_without(package: str) -> list[str]:
    """Return where Python imports from, less what has this package on this machine."""
    return [entry for entry in sys.path if not list(Path(entry or ".").glob(f"{package}*"))]


def assert_is(check: Check, verdict: str, *said: str) -> None:
    assert check.verdict == verdict, check
    for part in said:
        assert part in f"{check.found} -> {check.remedy}"


# ONNX Runtime


def test_onnx_runtime_is_described_as_it_is(make_context: MakeContext) -> None:
    import onnxruntime

    found = gpu_checks.onnxruntime(make_context())
    assert_is(found, "ok", onnxruntime.__version__, "CPUExecutionProvider")


def test_without_onnx_runtime_nothing_runs(make_context: MakeContext) -> None:
    found = gpu_checks.onnxruntime(make_context(onnxruntime={"error": "ImportError (no)"}))
    assert_is(found, "problem", "pip install")


def test_two_onnx_runtimes_in_one_folder_are_noted(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = make_context(onnxruntime={"version": "1.20.1", "providers": ["CPUExecutionProvider"]})
    monkeypatch.setattr(sys, "path", [*path_without("onnxruntime"), str(tmp_path)])
    (tmp_path / "onnxruntime_genai-0.9.dist-info").mkdir()
    (tmp_path / "onnxruntime-1.20.1.dist-info").mkdir()
    assert_is(gpu_checks.onnxruntime(there), "ok")
    (tmp_path / "onnxruntime_gpu-1.20.1.dist-info").mkdir()
    assert_is(gpu_checks.onnxruntime(there), "note", "onnxruntime and onnxruntime_gpu", "pip uninstall")


# GPU and driver


def test_no_driver_is_a_note_unless_there_is_a_gpu(make_context: MakeContext, tmp_path: Path) -> None:
    found = gpu_checks.gpu(make_context())
    assert_is(found, "note", "there is no NVIDIA driver here")
    assert found.remedy == "only for a GPU: install it"
    put(tmp_path, "root/dev/nvidia0")
    assert_is(gpu_checks.gpu(make_context()), "problem", "-> install it, or use --provider cpu")


def test_on_a_jetson_a_gpu_that_does_not_work_is_a_problem(make_context: MakeContext, tmp_path: Path) -> None:
    put(tmp_path, "root/etc/nv_tegra_release")
    assert_is(gpu_checks.gpu(make_context()), "problem")
    assert_is(gpu_checks.tensorrt(make_context()), "problem", "not installed -> install it")


def test_a_real_driver_is_asked_and_its_gpus_named(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a driver with")
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-DCOUNT=2", "-o", library, DRIVER], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = gpu_checks.gpu(make_context(gpu=None))
    assert_is(found, "ok", "Orin 0, compute capability 8.7, 40.0 GB, driver for CUDA 12.6, the first of 2")


# TensorRT and pycuda


def test_tensorrt_that_is_not_installed_is_a_note_away_from_a_jetson(make_context: MakeContext) -> None:
    assert_is(gpu_checks.tensorrt(make_context()), "note", "-> only for a GPU: install it")
    assert_is(gpu_checks.tensorrt(make_context(gpu=GPU)), "note", "not installed -> install it")


def test_one_tensorrt_is_named_with_its_file(make_context: MakeContext) -> None:
    assert_is(
        gpu_checks.tensorrt(make_context(gpu=GPU, tensorrt=TENSORRT)), "ok", "10.3.0, /usr/lib/python3.10"
    )


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A venv and a system's Python, both with TensorRT, as `import` finds them."""
    folders = ("venv", "system")
    for folder in folders:
        put(tmp_path, f"{folder}/tensorrt/__init__.py")
    others = path_without("tensorrt")
    monkeypatch.setattr(sys, "path", [*others, *(str(tmp_path / folder) for folder in folders)])
    (tmp_path / "venv" / "tensorrt_cu12_bindings-10.7.0.post1.dist-info").mkdir()
    return tmp_path


def test_two_tensorrts_are_listed(make_context: MakeContext, packages: Path) -> None:
    found = gpu_checks.tensorrt(make_context(gpu=GPU, tensorrt=TENSORRT))
    assert_is(found, "problem", "another copy", "pip uninstall the other")
    assert found.details == (
        str(packages / "venv" / "tensorrt"),
        str(packages / "system" / "tensorrt"),
        f"tensorrt_cu12_bindings 10.7.0.post1 in {packages / 'venv'}",
    )
    assert_is(gpu_checks.tensorrt(make_context(tensorrt=TENSORRT)), "note")


def test_two_versions_over_each_other_are_two_tensorrts(make_context: MakeContext, packages: Path) -> None:
    shutil.rmtree(packages / "system" / "tensorrt")
    (packages / "venv" / "tensorrt-10.7.0.dist-info").mkdir()
    (packages / "venv" / "tensorrt_llm-0.9.dist-info").mkdir()
    there = make_context(gpu=GPU, tensorrt=TENSORRT)
    assert_is(gpu_checks.tensorrt(there), "ok")
    (packages / "venv" / "tensorrt_cu12_libs-10.3.0.dist-info").mkdir()
    assert_is(gpu_checks.tensorrt(there), "problem", "another copy")


def test_tensorrt_that_is_there_and_does_not_load_is_a_problem_with_a_gpu(
    make_context: MakeContext, packages: Path
) -> None:
    broken = {"error": "the process crashed (Segmentation fault)"}
    assert_is(
        gpu_checks.tensorrt(make_context(gpu=GPU, tensorrt=broken)),
        "problem",
        "the process crashed",
        "reinstall it",
    )
    assert_is(gpu_checks.tensorrt(make_context(tensorrt=broken)), "note", "only for a GPU")


def test_on_a_jetson_only_jetpacks_own_tensorrt_will_do(make_context: MakeContext, tmp_path: Path) -> None:
    put(tmp_path, "root/etc/nv_tegra_release")
    pips = TENSORRT | {"file": "/opt/mmtl/venv/lib/python3.10/site-packages/tensorrt/__init__.py"}
    assert_is(
        gpu_checks.tensorrt(make_context(gpu=GPU, tensorrt=pips)), "problem", "not JetPack's", "pip uninstall"
    )
    own = TENSORRT | {"file": str(tmp_path / "root" / TENSORRT["file"].removeprefix("/"))}
    assert_is(gpu_checks.tensorrt(make_context(gpu=GPU, tensorrt=own)), "ok")


def test_pycuda_is_a_problem_only_where_tensorrt_waits_for_it(make_context: MakeContext) -> None:
    missing = {"error": "pycuda is not installed for this Python"}
    assert_is(
        gpu_checks.pycuda(make_context(gpu=GPU, tensorrt=TENSORRT, pycuda=missing)), "problem", "-> PATH="
    )
    assert_is(gpu_checks.pycuda(make_context(gpu=GPU, pycuda=missing)), "note", "only for TensorRT: PATH=")
    assert_is(gpu_checks.pycuda(make_context(pycuda=missing)), "note")
    there = {"version": "2024.1.2", "cuda": "12.6"}
    assert_is(gpu_checks.pycuda(make_context(pycuda=there)), "ok", "2024.1.2, built for CUDA 12.6")


# Engine and provider


def build(model: Bundle, **changed: Any) -> Path:
    """Put an engine in its place, as mmtl build-engine does."""
    made = Fingerprint(
        WINDOW, fingerprint_of_graph(model, WINDOW), "10.3.0", "Orin", "8.7", "fp32", "lstm", 0, 4
    )
    made = replace(made, frames=model.manifest.front_end.window_frames, **changed)
    return write_plan(plan_path(model), b"a plan", made, {}).path


def test_without_a_gpu_an_engine_is_not_missed_and_one_from_elsewhere_noted(
    make_context: MakeContext,
) -> None:
    assert_is(gpu_checks.engine(make_context()), "ok", "no engine has been built")
    path = build(load_bundle(CNN_LSTM))
    assert_is(gpu_checks.engine(make_context()), "note", str(path), "only TensorRT on a GPU")


def test_an_engine_is_none_fresh_or_stale_with_one_line(make_context: MakeContext) -> None:
    there, model = make_context(gpu=GPU, tensorrt=TENSORRT), load_bundle(CNN_LSTM)
    assert_is(gpu_checks.engine(there), "note", "no engine", f"build-engine {CNN_LSTM}")
    path = build(model)
    assert_is(gpu_checks.engine(there), "ok", "fresh: lstm, fp32, up to 4 windows at once", str(path))
    build(model, tensorrt="10.7.0", batch=1)
    stale = gpu_checks.engine(there)
    assert stale.found == "stale: the engine was built for TensorRT 10.7.0, this is 10.3.0"
    assert_is(stale, "problem", f"-> mmtl build-engine {CNN_LSTM}")
    path.write_bytes(b"a")
    assert_is(gpu_checks.engine(there), "problem", "stale: ", "truncated")


def test_of_a_model_that_cannot_be_used_neither_engine_nor_provider_is_looked_for(
    make_context: MakeContext, tmp_path: Path
) -> None:
    lost = make_context(tmp_path / "nowhere")
    for check in (gpu_checks.engine, gpu_checks.provider):
        assert_is(check(lost), "note", "the bundle cannot be used")


def test_auto_is_really_tried_and_says_why(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")  # nor is that of this machine taken
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert_is(gpu_checks.provider(make_context()), "ok", "auto selects cpu: there is no NVIDIA driver here")


def test_without_a_driver_nothing_of_tensorrt_is_made(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    build(load_bundle(CNN_LSTM))
    put(tmp_path, "packages/tensorrt/__init__.py")
    crash = "__version__ = '10.3.0'\ndef __getattr__(name):\n    import os\n    os.abort()\n"
    (tmp_path / "packages" / "tensorrt" / "__init__.py").write_text(crash)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    there = make_context(gpu=None, tensorrt=None)
    assert_is(gpu_checks.tensorrt(there), "ok", "10.3.0, ")
    assert_is(gpu_checks.provider(there), "ok", "auto selects cpu")


def test_the_cpu_beside_a_gpu_is_noted_and_a_failure_a_problem(make_context: MakeContext) -> None:
    slow = {"provider": "cpu", "reason": "no engine has been built for this model yet"}
    assert_is(gpu_checks.provider(make_context(gpu=GPU, provider=slow)), "note", "see above what prevents")
    fast = {"provider": "tensorrt", "reason": "an engine was built for Orin"}
    assert_is(
        gpu_checks.provider(make_context(gpu=GPU, provider=fast)), "ok", "auto selects tensorrt: an engine"
    )
    crash = {"error": "the process crashed (Segmentation fault)"}
    assert_is(gpu_checks.provider(make_context(gpu=GPU, provider=crash)), "problem", "--provider cpu")
