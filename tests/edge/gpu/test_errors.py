"""What TensorRT says becomes one line that names the cause and the remedy."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import EngineError
from edge.gpu.errors import engine_error, error_log, tensorrt_module
from tests.edge.gpu.fake_tensorrt import FakeTensorrt, Severity

DESERIALISATION = "[runtime.cpp::deserializeCudaEngine::65] Error Code 4: (Engine deserialization failed.)"

KNOWN = [
    (
        "The engine plan file is not compatible with this version of TensorRT, expecting library version "
        "10.3.0.30 got 10.13.3.9, please rebuild.",
        "two versions of TensorRT are installed",
    ),
    (
        "Error Code 1: Serialization (Serialization assertion stdVersionRead == serializationVersion "
        "failed.Version tag does not match. Note: Current Version: 236, Serialized Engine Version: 237)",
        "built by another TensorRT than 10.3.0 (/usr/lib/",
    ),
    (
        "Error Code 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed."
        "Magic tag does not match)",
        "truncated or not an engine",
    ),
    (
        "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, "
        "expecting compute 8.9 got compute 8.6, please rebuild.)",
        "built for another GPU",
    ),
    ("pybind11::init(): factory function returned nullptr", "there is no NVIDIA driver"),
    (
        "Error Code 9: API Usage Error (Target GPU SM 87 is not supported by this TensorRT release.)",
        "never pip's",
    ),
    ("CUDA initialization failure with error: 35. Please check your CUDA installation", "driver is too old"),
    ("Error Code 2: OutOfMemory (no further information)", "too little free memory"),
    ("Error Code 10: (Could not find any implementation for node {ForeignNode[lstm]}.)", "a smaller --batch"),
]


@pytest.mark.parametrize(("said", "part"), KNOWN)
def test_a_known_message_becomes_a_line_with_a_remedy(said: str, part: str) -> None:
    line = str(engine_error(FakeTensorrt(), [said]))
    assert part in line
    assert "\n" not in line
    assert "{" not in line


@pytest.mark.parametrize(("said", "part"), KNOWN)
def test_the_cause_is_found_among_less_telling_lines(said: str, part: str) -> None:
    assert part in str(engine_error(FakeTensorrt(), ["could not open timing cache", said, DESERIALISATION]))


def test_a_driver_too_old_is_told_from_none_at_all() -> None:
    said = ["CUDA initialization failure with error: 35.", "factory function returned nullptr"]
    assert "too old" in str(engine_error(FakeTensorrt(), said))


def test_an_unknown_message_is_quoted_in_one_line_of_bearable_length() -> None:
    line = str(engine_error(FakeTensorrt(), ["first", "Something\n  new " + "x" * 10_000]))
    assert line.startswith("TensorRT 10.3.0 failed (Something new xxx")
    assert line.endswith("): set MMTL_DEBUG=1 to see its whole log, or use --provider cpu")
    assert len(line) < 400


def test_silence_says_how_to_hear_more() -> None:
    assert "MMTL_DEBUG=1" in str(engine_error(FakeTensorrt(), []))


def test_the_log_keeps_errors_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    log = error_log(FakeTensorrt())
    for severity in Severity:
        log.log(severity, severity.name)
    assert list(log.errors) == ["INTERNAL_ERROR", "ERROR"]
    assert capsys.readouterr().err == ""


def test_one_logger_serves_the_whole_process() -> None:
    trt = FakeTensorrt()
    assert error_log(trt) is error_log(trt)
    assert error_log(trt) is not error_log(FakeTensorrt())


def test_everything_is_shown_when_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMTL_DEBUG", "1")
    error_log(FakeTensorrt()).log(Severity.VERBOSE, "a tactic")
    assert capsys.readouterr().err == "TensorRT: a tactic\n"


def test_a_tensorrt_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"not installed for this Python.*--system-site-packages"):
        tensorrt_module()


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0.post1", "unknown"])
def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version, __file__="/old.py"))
    with pytest.raises(EngineError, match=r"/old\.py.*too old: install 10\.3"):
        tensorrt_module()


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9.post1", "11.4.0.106"])
def test_each_supported_tensorrt_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module: Any = SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert tensorrt_module() is module
