"""The driver is asked first and says what is missing: checked against a library of its shape."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import EngineError
from edge.gpu.probe import Gpu, probe

SOURCE = Path(__file__).with_name("fake_libcuda.c")

MakeLibrary = Callable[..., str]


@pytest.fixture
def driver(tmp_path: Path) -> MakeLibrary:
    """Compile a driver that says what the macros given tell it to."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a driver with")

    def make(**macros: int) -> str:
        library = tmp_path / "libcuda.so.1"
        defines = [f"-D{name}={value}" for name, value in macros.items()]
        subprocess.run([compiler, "-shared", "-fPIC", *defines, "-o", library, SOURCE], check=True)
        return str(library)

    return make


def complaint(library: str) -> str:
    with pytest.raises(EngineError) as caught:
        probe(library)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_gpu_is_described_as_the_driver_describes_it(driver: MakeLibrary) -> None:
    assert probe(driver()) == (Gpu("Orin 0", "8.7", 40 << 30, "12.6"),)


def test_every_gpu_is_named_in_the_drivers_order(driver: MakeLibrary) -> None:
    found = probe(driver(COUNT=2, VERSION=13020))
    assert [(gpu.name, gpu.compute_capability) for gpu in found] == [("Orin 0", "8.7"), ("Orin 1", "8.8")]
    assert {gpu.driver_cuda_version for gpu in found} == {"13.2"}


def test_no_driver_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    assert complaint(str(tmp_path / "libcuda.so.1")).startswith("there is no NVIDIA driver here")


def test_a_driver_library_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"not a library")
    assert str(tmp_path) in complaint(str(tmp_path / "libcuda.so.1"))


def test_a_driver_that_is_too_old_is_told_from_one_that_is_missing(driver: MakeLibrary) -> None:
    assert "too old: it supports CUDA 11.4, TensorRT needs 12.0" in complaint(driver(VERSION=11040))


def test_a_driver_of_just_the_oldest_version_will_do(driver: MakeLibrary) -> None:
    assert probe(driver(VERSION=12000))[0].driver_cuda_version == "12.0"


@pytest.mark.parametrize("macros", [{"COUNT": 0}, {"INIT": 100}])
def test_a_driver_without_a_gpu_says_so_either_way(driver: MakeLibrary, macros: dict[str, int]) -> None:
    assert "finds no GPU" in complaint(driver(**macros))


def test_what_the_driver_says_of_its_own_failure_is_passed_on(driver: MakeLibrary) -> None:
    assert "cuInit: system not yet initialized, error 802" in complaint(driver(INIT=802))


@pytest.mark.parametrize("macros", [{"INIT": 999}, {"INIT": 802, "NO_EXPLANATION": 1}])
def test_a_failure_that_nobody_can_explain_keeps_its_number(
    driver: MakeLibrary, macros: dict[str, int]
) -> None:
    assert f"error {macros['INIT']}" in complaint(driver(**macros))


def test_a_driver_that_lacks_a_call_is_too_old_or_damaged(driver: MakeLibrary) -> None:
    assert "cuDeviceTotalMem_v2" in complaint(driver(NO_MEMORY_CALL=1))
