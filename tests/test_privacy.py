"""Nothing leaves the device and no unnamed file is written, whatever a dependency would do by itself.

Each command is watched from outside, with strace: the process counts, not its source.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process_trace import ROOT, Trace, trace

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

MMTL = "from edge.cli.main import main; main()"
AT_A_TERMINAL = (
    "import os, pty, sys; os.environ['TERM'] = 'xterm'; "
    f"sys.exit(pty.spawn([sys.executable, '-c', {MMTL!r}, *sys.argv[1:]]))"
)
LIBRARY = """
import time
import numpy
import edge
from edge import Recognizer
with Recognizer.load() as recognizer:
    print(len(recognizer.feed(numpy.zeros(64_000, numpy.float32))))
time.sleep(12.0)
"""

QUIET_S = 12.0
"""How long a process that waits is watched: ONNX Runtime's telemetry looks its host up after 9 s."""

PROFILES = Path("home/.local/share/mmtl/profiles")
SOUND = (Path("home/.config/pulse"), Path("/dev/shm"), Path("/dev/snd"))  # noqa: S108
"""What the system's sound libraries keep, and open."""


def importers() -> list[str]:
    """Name our modules that import ONNX Runtime as soon as they are imported."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("edge", "calibrate", "train", "export", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "\nimport onnxruntime\n" in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize(
    ("module", "setting"),
    [("edge", None), ("edge", ""), *((name, "0") for name in ("edge", "calibrate", "train", *importers()))],
)
def test_telemetry_is_off_before_onnx_runtime_is_imported(module: str, setting: str | None) -> None:
    if module.split(".", maxsplit=1)[0] in {"export", "benchmarks"}:
        pytest.importorskip("torch")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    if setting is not None:
        environment["ORT_DISABLE_TELEMETRY"] = setting
    program = [sys.executable, "-c", IMPORT, module]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def stray(seen: Trace, folder: Path, *named: Path) -> list[Path]:
    """List what was written outside the named folders, and files left among temporary ones."""
    places = [folder / "tmp", *(folder / path for path in named)]
    outside = [
        path
        for path in seen.written
        if not any(path.is_relative_to(place) or place.is_relative_to(path) for place in places)
    ]
    return [*outside, *(path for path in (folder / "tmp").rglob("*") if path.is_file())]


def assert_private(seen: Trace, folder: Path, *named: Path) -> None:
    assert seen.lookups == []
    assert seen.connections == []
    assert stray(seen, folder, *named) == []


def test_the_trace_sees_a_look_up_a_connection_and_a_file(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "traced", tmp_path / "elsewhere"
    program = f"""
import contextlib, os, socket, subprocess, sys, tempfile
for address in (("mmtl.invalid", 443), ("192.0.2.1", 443), ("127.0.0.1", 9)):
    with contextlib.suppress(OSError):
        socket.create_connection(address, timeout=0.1)
child = "import os; os.mkdir({str(elsewhere)!r}); open({str(elsewhere / "file")!r}, 'w')"
subprocess.run([sys.executable, "-c", child], check=True)
os.mkdir("named")
os.rename("named", "renamed")
os.close(tempfile.mkstemp(prefix="left")[0])
"""
    seen = trace(["-c", program], folder)
    assert seen.exit_code == 0, seen.output
    assert any("resolv.conf" in call for call in seen.lookups)
    assert any("192.0.2.1" in call for call in seen.connections)
    assert not any("127.0.0.1" in call and "htons(9)" in call for call in seen.connections)
    *outside, left = stray(seen, folder, Path("work"))
    assert sorted(outside) == [elsewhere, elsewhere / "file"]
    assert left.name.startswith("left")
    assert set(stray(seen, folder)) > {folder / "work" / "named", folder / "work" / "renamed"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named", "exit_codes"),
    [
        ("run demo --paced --jsonl out/events.jsonl --csv out/table.csv", [Path("work/out")], {0}),
        ("run demo --jsonl -", [], {0}),
        ("verify default demo", [], {0}),
        ("profile list", [], {0}),
        ("devices", SOUND, {0, 3}),
        ("doctor", SOUND, {0, 3}),
    ],
)
def test_a_command_keeps_to_itself(
    arguments: str, named: list[Path], exit_codes: set[int], tmp_path: Path
) -> None:
    (tmp_path / "work" / "out").mkdir(parents=True)
    seen = trace(["-c", MMTL, *arguments.split()], tmp_path)
    assert seen.exit_code in exit_codes, seen.output
    assert_private(seen, tmp_path, *named)


@pytest.mark.slow
def test_the_monitor_keeps_to_itself(tmp_path: Path) -> None:
    seen = trace(["-c", AT_A_TERMINAL, "monitor", "demo"], tmp_path)
    assert seen.exit_code == 0, seen.output
    assert "\x1b[" in seen.output
    assert_private(seen, tmp_path)


@pytest.mark.slow
def test_a_server_that_waits_keeps_to_itself(tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    seen = trace(["-c", MMTL, "serve", "--tcp", "0", "--websocket", "0", "--web", "0"], tmp_path, QUIET_S)
    assert "listening" in seen.output
    assert_private(seen, tmp_path)


@pytest.mark.slow
def test_a_program_that_uses_the_library_keeps_to_itself(tmp_path: Path) -> None:
    seen = trace(["-c", LIBRARY], tmp_path)
    assert seen.exit_code == 0, seen.output
    assert int(seen.output) > 0
    assert_private(seen, tmp_path)


@pytest.mark.slow
def test_calibration_writes_the_profile_and_the_picture_only(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    manifest = takes(tmp_path / "takes")
    picture = ["--picture", "out/anna.png"]
    (tmp_path / "work" / "out").mkdir(parents=True)
    seen = trace(["-c", MMTL, "calibrate", "anna", "--from", str(manifest), *picture], tmp_path)
    assert seen.exit_code == 0, seen.output
    assert {path.name for path in (tmp_path / PROFILES).iterdir()} == {"anna.safetensors"}
    assert_private(seen, tmp_path, PROFILES, Path("work/out"))


@pytest.mark.slow
def test_training_scoring_and_export_write_their_folder_only(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.train.synthetic import write_corpus

    corpus = str(write_corpus(tmp_path / "corpus"))
    run, bundle = tmp_path / "training/work/out/run", tmp_path / "export/work/out/bundle"
    small = ["--epochs", "1", "--speakers", "2", "--samples", "4"]
    for step, arguments in {
        "training": ["train", corpus, "--out", str(run), *small],
        "export": ["export", str(run / "best.safetensors"), "--out", str(bundle)],
        "scoring": ["evaluate", str(bundle), corpus],
    }.items():
        folder = tmp_path / step
        (folder / "work" / "out").mkdir(parents=True)
        seen = trace(["-c", MMTL, *arguments], folder)
        assert seen.exit_code == 0, seen.output
        assert_private(seen, folder, Path("work/out"))
    assert (run / "curves.png").is_file()
    assert (bundle / "model.json").is_file()


def takes(folder: Path) -> Path:
    """Write a manifest of four takes of each emotion by one speaker."""
    import soundfile

    from edge.labels import EMOTIONS
    from tests.calibrate.labelled_takes import voice

    folder.mkdir()
    with (folder / "takes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "emotion"])
        for take in range(16):
            soundfile.write(folder / f"{take}.wav", voice(take % 4, take), 16_000)
            table.writerow([f"{take}.wav", EMOTIONS[take % 4]])
    return folder / "takes.csv"
