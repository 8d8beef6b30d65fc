"""TensorRT's own Python API, without a GPU: has each TensorRT the names we use, and do we fail in our words?

The bindings are the real ones; the libraries below them are stubs of stub.c. So this checks names, not what
they do. No TensorRT builder or engine has run for this project yet. The bindings come from fetch_bindings.sh.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edge.model.manifest import WINDOW
from tests.cnn_lstm import CNN_LSTM
from tests.edge.gpu import fake_tensorrt
from tests.tensorrt.names import unlisted_files, uses_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BINDINGS = [
    line.strip() for line in (HERE / "bindings.txt").read_text().splitlines() if not line.startswith("#")
]
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
USES = uses_of(ROOT, "edge", "export")
FAKES = {
    name: getattr(fake_tensorrt, name)
    for name in (
        *(
            "Builder",
            "BuilderFlag",
            "IBuilderConfig",
            "ILogger",
            "INetworkDefinition",
            "IOptimizationProfile",
        ),
        *("IProgressMonitor", "ITensor", "ITimingCache", "MemoryPoolType", "NetworkDefinitionCreationFlag"),
        *("OnnxParser", "ParserError"),
    )
}


def wheel_of(pinned: str) -> Path:
    """Find a wheel of the bindings.

    Where the folder was named, its wheels must be there; where it was not, the test is skipped.
    """
    folder = os.environ.get("MMTL_TENSORRT_BINDINGS")
    found = list(Path(folder).glob(f"{pinned.replace('==', '-')}-*.whl")) if folder else []
    if not folder:
        pytest.skip("MMTL_TENSORRT_BINDINGS names no folder that tests/tensorrt/fetch_bindings.sh has filled")
    assert found, f"{folder} has no wheel of {pinned}: run tests/tensorrt/fetch_bindings.sh"
    return found[0]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of libraries that TensorRT's bindings are linked with, all of them the stub."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make stubs of TensorRT's libraries with")
    folder = tmp_path_factory.mktemp("stubs")
    for name in (f"lib{library}.so.{major}" for library in LIBRARIES for major in (10, 11)):
        library, source = str(folder / name), str(HERE / "stub.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", library, source], check=True
        )
    return folder


class Genuine:
    """One TensorRT's bindings over the stubs."""

    def __init__(self, folder: Path, stubs: Path) -> None:
        self._folder = folder
        self._environment = {
            **{key: value for key, value in os.environ.items() if key != "MMTL_DEBUG"},
            "LD_LIBRARY_PATH": str(stubs),
            "PYTHONPATH": str(ROOT),
        }

    def report(self, *names: str) -> dict[str, Any]:
        """Look names up, and see how our code fails without a driver."""
        graph = CNN_LSTM / WINDOW
        done = subprocess.run(
            [sys.executable, HERE / "genuine.py", self._folder, graph],
            input=json.dumps(names),
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report


@pytest.fixture(scope="module", params=BINDINGS)
def genuine(request: pytest.FixtureRequest, stubs: Path, tmp_path_factory: pytest.TempPathFactory) -> Genuine:
    """Each TensorRT in turn."""
    folder = tmp_path_factory.mktemp("bindings")
    with zipfile.ZipFile(wheel_of(request.param)) as wheel:
        wheel.extractall(folder)
    return Genuine(folder, stubs)


def test_tensorrt_has_every_name_that_we_use(genuine: Genuine) -> None:
    assert genuine.report(*sorted(USES.needed))["lacking"] == []


def test_a_name_that_tensorrt_never_had_is_found(genuine: Genuine) -> None:
    wrong = ["Builder.build_engine_quickly", "BuilderFlag.TF31", "IMotor"]
    assert genuine.report("Builder", *wrong)["lacking"] == wrong


def test_a_name_that_tensorrt_11_removed_is_found_there_only(genuine: Genuine, tmp_path: Path) -> None:
    write(tmp_path, "export/plan.py", "config.set_flag(trt.BuilderFlag.FP16)")
    report = genuine.report(*uses_of(tmp_path, "export").needed)
    removed = report["version"].startswith("11.")
    assert report["lacking"] == (["BuilderFlag.FP16"] if removed else [])


def test_without_a_driver_the_error_is_ours(genuine: Genuine) -> None:
    report = genuine.report()
    assert report["theirs"].startswith("TypeError: pybind11::init()")
    assert report["build"].startswith(f"EngineError: TensorRT {report['version']} (")
    assert report["run"].startswith(f"EngineError: TensorRT {report['version']} (")
    assert "there is no NVIDIA driver" in report["build"]
    assert "there is no NVIDIA driver" in report["run"]


def test_our_log_tells_tensorrts_errors_from_its_remarks(genuine: Genuine) -> None:
    assert genuine.report()["kept"] == ["an error"]


def test_the_command_asks_the_driver_before_tensorrt(genuine: Genuine) -> None:
    if not genuine.report()["command"].startswith("EngineError: there is no NVIDIA driver here"):
        pytest.skip("there is a driver here")


def test_our_stand_in_has_no_name_that_tensorrt_lacks(genuine: Genuine) -> None:
    names = [
        f"{name}.{attribute}"
        for name, fake in FAKES.items()
        for attribute in vars(fake)
        if not attribute.startswith("_")
    ]
    assert "Builder.create_network" in names
    assert genuine.report(*FAKES, *names)["lacking"] == []


def test_what_only_some_tensorrts_have_is_asked_for_first() -> None:
    assert {"BuilderFlag.TF32", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"} <= USES.guarded
    assert not USES.guarded & USES.needed


def test_the_names_are_really_read_from_the_source() -> None:
    assert {
        *("Builder.build_serialized_network", "IBuilderConfig.progress_monitor", "ITensor.name"),
        *("ParserError.desc", "Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3"),
        *("ILogger.log", "ILogger.Severity.ERROR", "MemoryPoolType.WORKSPACE"),
    } <= USES.needed


def test_every_file_that_makes_tensorrts_objects_is_read() -> None:
    assert unlisted_files(ROOT, "edge", "export") == []


def write(root: Path, path: str, code: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(code, encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
        ("self._trt.Logger", "Logger"),
        ("builder.build_cuda_engine(network)", "Builder.build_cuda_engine"),
        ("self.builder_config.int8_calibrator", "IBuilderConfig.int8_calibrator"),
        ("network.get_input(0).dynamic_range", "ITensor.dynamic_range"),
        ("class M(trt.IProgressMonitor):\n    def step_done(self): ...", "IProgressMonitor.step_done"),
    ],
)
def test_each_way_to_use_a_name_is_seen(tmp_path: Path, code: str, name: str) -> None:
    write(tmp_path, "edge/engine_builder/build.py", code)
    assert name in uses_of(tmp_path, "edge").needed


def test_a_guarded_name_and_what_is_below_it_may_be_missing(tmp_path: Path) -> None:
    write(tmp_path, "edge/a.py", "if hasattr(trt, 'Refitter'):\n    trt.Refitter.refit\ntrt.Builder")
    found = uses_of(tmp_path, "edge")
    assert set(found.needed) == {"Builder"}
    assert set(found.guarded) == {"Refitter", "Refitter.refit"}


def test_what_is_not_tensorrts_is_left_alone(tmp_path: Path) -> None:
    lines = [
        "import x",
        "config.depth",
        "self.engine.reason",
        "self.trt",
        "hasattr(x, 'y')",
        "trt.__version__",
    ]
    write(tmp_path, "edge/inference/provider.py", "\n".join(lines))
    assert uses_of(tmp_path, "edge").needed == set()


def test_a_new_file_that_makes_objects_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, "edge/other.py", "runtime = trt.Runtime(log)")
    assert unlisted_files(tmp_path, "edge") == ["edge/other.py"]
