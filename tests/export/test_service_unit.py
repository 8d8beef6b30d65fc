"""The hardening of the service's unit, and that sound and the model still work under it.

No service manager runs here: its parts are tried one by one, with the kernel's own means.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.edge.audio.pulse import VirtualMicrophone

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "export" / "device_files" / "mmtl.service"
MOST_EXPOSURE = 2.5
"""Of 10, as systemd-analyze rates it."""
OFFLINE_SINCE = 250
"""The version of systemd that rates a unit's file alone."""
RUN = (sys.executable, "-c", "from edge.cli.main import main; main()", "run")
NEW_USERS = ("unshare", "--user", "--map-current-user")
"""What PrivateUsers= does to the service's own user."""


def output(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def require_systemd(version: int) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    found = re.search(r"systemd (\d+)", output("systemd-analyze", "--version"))
    if not found or int(found[1]) < version:
        pytest.skip(f"systemd {version} is not installed")


def test_the_unit_is_exposed_as_little_as_promised(tmp_path: Path) -> None:
    require_systemd(OFFLINE_SINCE)
    unit = tmp_path / "mmtl.service"
    unit.write_text(UNIT.read_text().replace("@PREFIX@", "/opt/mmtl"))
    rated = output("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for mmtl.service: ([\d.]+)", rated)
    assert exposure
    assert float(exposure[1]) <= MOST_EXPOSURE


def filtered_calls() -> set[str]:
    """Return the system calls that the unit's filter lets through."""
    allowed: set[str] = set()
    for filtered in re.findall(r"^SystemCallFilter=(.+)$", UNIT.read_text(), re.MULTILINE):
        named = calls_of(filtered.removeprefix("~").split())
        allowed = allowed - named if filtered.startswith("~") else allowed | named
    return allowed


def calls_of(names: Sequence[str]) -> set[str]:
    """Return the system calls in groups, which may hold groups."""
    found: set[str] = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        lines = [line.strip() for line in output("systemd-analyze", "syscall-filter", name).splitlines()[1:]]
        found |= calls_of([line for line in lines if line and not line.startswith("#")])
    return found


def traced_calls(command: Sequence[str], folder: Path) -> set[str]:
    """Run a command and return the system calls that it and its children make."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = folder / "calls"
    done = subprocess.run(["strace", "-f", "-o", str(log), *command], capture_output=True, check=False)
    if not log.is_file():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", log.read_text(), re.MULTILINE))


@pytest.mark.slow
def test_the_filter_lets_through_what_a_run_needs(tmp_path: Path) -> None:
    require_systemd(OFFLINE_SINCE)
    allowed = filtered_calls()
    assert {"read", "mmap", "sched_setaffinity"} <= allowed
    assert not {"ptrace", "mount", "clock_settime", "reboot", "setuid", "init_module"} & allowed
    events = tmp_path / "events.jsonl"
    assert traced_calls([*RUN, "demo", "--jsonl", str(events), "--provider", "cpu"], tmp_path) <= allowed
    assert json.loads(events.read_text().splitlines()[-1])["type"] == "summary"


@pytest.mark.mic
@pytest.mark.slow
def test_sound_comes_through_a_sound_server_in_a_user_namespace_of_its_own(pulse: VirtualMicrophone) -> None:
    if shutil.which("unshare") is None or subprocess.run([*NEW_USERS, "true"], check=False).returncode != 0:
        pytest.skip("user namespaces cannot be made here")
    command = [*NEW_USERS, *RUN, "mic", "--jsonl", "-", "--provider", "cpu"]
    with subprocess.Popen(command, cwd=ROOT, env=pulse.environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        types = [json.loads(run.stdout.readline())["type"]]
        while "window" not in types:
            types.append(json.loads(run.stdout.readline())["type"])
        run.terminate()
        types += [json.loads(line)["type"] for line in run.stdout]
    assert (types[0], types[-1], run.returncode) == ("session", "summary", 0)


IN_A_NAMESPACE = """
import ctypes, os, sys
path, group, user = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([group]); os.setgid(user); os.setuid(user)
open(path, "r+").close()
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit(77)
assert os.getgroups() == [65534], "the group has no name in the namespace"
open(path, "r+").close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on a group")
def test_devices_of_a_group_stay_open_in_a_user_namespace_of_its_own() -> None:
    group, user = 29, 12_345
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        device = Path(folder) / "pcmC0D0c"
        device.touch()
        os.chown(device, 0, group)
        device.chmod(0o660)
        command = [sys.executable, "-c", IN_A_NAMESPACE, str(device), str(group), str(user)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("user namespaces cannot be made here")
    assert (done.returncode, done.stderr) == (0, "")
