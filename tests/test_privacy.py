"""Nothing leaves the device, whatever a dependency would send by default."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Imports the module named as the argument, then prints ORT_DISABLE_TELEMETRY as ONNX Runtime found it.
IMPORT = """
import importlib, importlib.abc, os, sys

class Watch(importlib.abc.MetaPathFinder):
    found = []
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            self.found.append(os.environ.get("ORT_DISABLE_TELEMETRY"))

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import onnxruntime
print(*Watch.found)
"""


def importers() -> list[str]:
    """Name our modules that import ONNX Runtime as soon as they are imported."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("edge", "calibrate", "train", "export", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "\nimport onnxruntime\n" in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("setting", [None, "", "0"])
@pytest.mark.parametrize("module", ["edge", "calibrate", "train", *importers()])
def test_telemetry_is_off_before_onnx_runtime_is_imported(module: str, setting: str | None) -> None:
    if module.split(".", maxsplit=1)[0] in {"export", "benchmarks"}:
        pytest.importorskip("torch")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    if setting is not None:
        environment["ORT_DISABLE_TELEMETRY"] = setting
    program = [sys.executable, "-c", IMPORT, module]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
