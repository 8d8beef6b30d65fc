"""Whatever a library or a program does when it is asked, the answer is one line, and comes in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.diagnostics import probes
from edge.diagnostics.probes import SystemProbe, copies_of, explained, installed
from edge.errors import EngineError, MmtlError, UsageError

CRASH = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"


def library(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)


def program(probe: SystemProbe, name: str, text: str) -> None:
    folder = Path(probe.commands)
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


SOON_S = 60.0
"""No test waits for this long, unless it fails."""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemProbe:
    """A machine that has nothing yet, and takes its time to end a program."""
    monkeypatch.setattr(probes, "_REAP_S", SOON_S)
    return SystemProbe(tmp_path / "root", str(tmp_path / "bin"), timeout_s=SOON_S)


def hasty(probe: SystemProbe) -> SystemProbe:
    return SystemProbe(probe.root, probe.commands, timeout_s=0.5)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from, first of all."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


# Libraries


def test_a_library_is_asked_on_the_path_of_this_process(probe: SystemProbe, packages: Path) -> None:
    library(packages, "tensorrt", "__version__ = '10.3.0'")
    file = str(packages / "tensorrt" / "__init__.py")
    assert probe.ask("tensorrt") == {"version": "10.3.0", "file": file}
    assert "tensorrt" not in sys.modules


def test_what_a_library_prints_is_not_taken_for_the_answer(probe: SystemProbe, packages: Path) -> None:
    library(packages, "tensorrt", "__version__ = '10.3.0'\nprint('{}', end='')")
    assert probe.ask("tensorrt")["version"] == "10.3.0"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (CRASH, "the process crashed (Segmentation fault)"),
        ("import sys\nsys.exit('no licence')", "the process exited (no licence)"),
        ("import os\nos._exit(3)", "the process exited (exit code 3)"),
        ("import os\nprint(5, flush=True)\nos._exit(0)", "the process exited (exit code 0)"),
        ("raise KeyError('a\\nb')", r"KeyError ('a\nb')"),
    ],
)
def test_a_library_that_fails_is_one_line(probe: SystemProbe, packages: Path, code: str, said: str) -> None:
    library(packages, "tensorrt", code)
    assert probe.ask("tensorrt") == {"error": said}


def test_a_library_that_waits_for_ever_is_ended_with_all_that_it_started(
    probe: SystemProbe, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, communicate = tmp_path / "pid", subprocess.Popen.communicate

    def once_told(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
        until = time.monotonic() + SOON_S
        while not told.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return communicate(process, timeout=timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", once_told)
    start = f"child = subprocess.Popen(['sleep', '600'])\nopen({f'{told}.new'!r}, 'w').write(str(child.pid))"
    library(
        packages,
        "tensorrt",
        f"import os, subprocess\n{start}\nos.rename({f'{told}.new'!r}, {str(told)!r})\nchild.wait()",
    )
    assert hasty(probe).ask("tensorrt") == {"error": "no answer within 0.5 s"}
    assert has_ended(int(told.read_text()))


def has_ended(pid: int) -> bool:
    """Wait for the end of a process that is not ours to wait for."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_what_an_error_of_ours_says_to_do_is_kept_apart(probe: SystemProbe, packages: Path) -> None:
    library(packages, "tensorrt", "__version__ = '8.6.1'")
    answer = probe.ask("tensorrt")
    assert answer["error"].endswith("is too old")
    assert answer["remedy"] == "install 10.3 or newer (JetPack 6 has it)"


def test_nothing_of_the_current_folder_is_run(
    probe: SystemProbe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "edge", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert "version" in probe.ask("onnxruntime")
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    ("error", "happened", "remedy"),
    [
        (
            EngineError("no driver (libcuda.so.1: not found)", remedy="install it"),
            "no driver (libcuda.so.1: not found)",
            "install it",
        ),
        (UsageError("nobody knows: why"), "nobody knows: why", ""),
        (UsageError("a: b\n c", remedy="d:\n e"), "a: b c", "d: e"),
    ],
)
def test_an_answer_has_the_problem_and_the_remedy_of_an_error_on_a_line_each(
    error: MmtlError, happened: str, remedy: str
) -> None:
    assert explained(error) == {"error": happened} | ({"remedy": remedy} if remedy else {})


# Programs


def test_a_program_is_run_where_there_is_one(probe: SystemProbe) -> None:
    assert probe.run("nvpmodel", "-q") is None
    program(probe, "nvpmodel", '#!/bin/sh\necho "$1 out"; echo err >&2; exit 3\n')
    said = probe.run("nvpmodel", "-q")
    assert said
    assert (said.code, said.out, said.err) == (3, "-q out\n", "err\n")


def test_a_program_that_waits_for_ever_or_cannot_be_run_is_no_more_than_that(probe: SystemProbe) -> None:
    program(probe, "nvpmodel", "#!/bin/sh\nsleep 600 | cat\n")
    said = hasty(probe).run("nvpmodel")
    assert said
    assert said.code is None
    program(probe, "nvpmodel", "\x7fELF and no more")
    said = probe.run("nvpmodel")
    assert said
    assert said.code
    assert "cannot be run" in said.err


def test_an_interruption_ends_the_program(probe: SystemProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(process: subprocess.Popen[bytes], *_: object, **__: object) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    program(probe, "nvpmodel", "#!/bin/sh\nsleep 600\n")
    with pytest.raises(KeyboardInterrupt):
        probe.run("nvpmodel")
    assert [process.returncode for process in started] == [-9]


# Files


@pytest.mark.parametrize(
    ("release", "package", "found"),
    [
        ("# R36 (release), REVISION: 4.4, GCID: 41062509\n", "", "36.4.4"),
        ("# R36 (release), REVISION: 4.4, GCID: 1\n", "36.4.3-2025", "36.4.4"),
        ("something new\n", "38.2.0-20250901", "38.2.0"),
        ("something new\n", "", "unknown"),
        (None, "36.4.4-20250616085344", "36.4.4"),
        (None, "", ""),
    ],
)
def test_a_jetson_is_known_by_its_release_file_or_its_packages(
    probe: SystemProbe, release: str | None, package: str, found: str
) -> None:
    if release:
        (probe.root / "etc").mkdir(parents=True)
        (probe.root / "etc" / "nv_tegra_release").write_text(release)
    if package:
        program(probe, "dpkg-query", f"#!/bin/sh\nprintf {package}\n")
    assert probe.jetson_linux() == found


@pytest.mark.parametrize("name", ["nvidia0", "nvhost-gpu", "nvmap"])
def test_a_gpu_is_known_by_its_device_file(probe: SystemProbe, name: str) -> None:
    (probe.root / "dev").mkdir(parents=True)
    (probe.root / "dev" / "nvidiactl").touch()
    assert not probe.has_gpu_device()
    (probe.root / "dev" / name).touch()
    assert probe.has_gpu_device()


def test_copies_and_what_was_installed_are_listed_in_the_order_of_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "venv", tmp_path / "usr"
    for folder in (first, second):
        library(folder, "tensorrt", "")
    (tmp_path / "again").symlink_to(second)
    for name in (
        "tensorrt-10.3.0.dist-info",
        "tensorrt_cu12_libs-10.3.0-py3.10.egg-info",
        "torch-2.dist-info",
    ):
        (first / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(first), str(second), str(tmp_path / "again"), "/no/such/folder"])
    assert copies_of("tensorrt") == [first / "tensorrt", second / "tensorrt"]
    found = [("tensorrt", "10.3.0", first), ("tensorrt_cu12_libs", "10.3.0", first)]
    assert installed(r"tensorrt(?:_cu\d+_libs)?") == found
