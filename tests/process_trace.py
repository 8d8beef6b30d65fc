"""What a process and its children ask of the network and write to the disk, as strace sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WRITERS = ("creat", "mkdir", "mknod", "rename", "link", "symlink", "truncate", "unlink", "rmdir")
"""Calls whose last path is written, besides opening a file for writing."""
_AT = ("openat", "openat2", "mkdirat", "mknodat", "renameat", "renameat2", "linkat", "symlinkat", "unlinkat")
_CALLS = ",".join(["%network", *(f"?{name}" for name in ("open", *WRITERS, *_AT))])

_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_PATH = re.compile(r'(?:<(?P<folder>/[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_INTERNET = re.compile(r'sin6?_port=htons\((?P<port>\d+)\).*?(?:inet_addr\(|AF_INET6, )"(?P<host>[^"]+)"')
_UNIX = re.compile(r'sun_path=@?"(?P<path>[^"]+)"')

NAME_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""Read by whatever turns a host's name into an address."""
SOUND_SERVERS = re.compile(r"/(pulse|pipewire|jack)[^/]*(/|$)")
"""In the path of a local socket."""
TERMINALS = ("/dev/null", "/dev/tty", "/dev/pts", "/dev/ptmx")


@dataclass(frozen=True)
class Trace:
    """What was seen of a process and its children."""

    exit_code: int
    output: str
    lookups: list[str]
    """Attempts to turn a host's name into an address."""
    connections: list[str]
    """Addresses beyond the loopback interface, and local sockets that are no sound server's."""
    written: set[Path]


@cache
def _tracer() -> list[str]:
    """Return strace, in a network namespace of its own where that is allowed; skip without strace."""
    if not shutil.which("strace") or _fails(["strace", "-o", os.devnull, "true"]):
        pytest.skip("strace is not installed, or may not trace here")
    isolated = (["unshare", "--net"], ["unshare", "--map-root-user", "--net"])
    return [*next((way for way in isolated if not _fails([*way, "true"])), []), "strace"]


def _fails(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        return True


def trace(program: Sequence[str], folder: Path, interrupt_after_s: float | None = None) -> Trace:
    """Run a Python program, given as its arguments, with no `CI` in its environment.

    Args:
        program: what follows `python`.
        folder: where `home`, `tmp` and `work` are made; `work` is the working directory.
        interrupt_after_s: when Ctrl-C is pressed, counted from the first line that it prints, if at all.
    """
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LOGNAME": "anna", "PYTHONPATH": str(ROOT)}
    environment |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    for name in ("home", "tmp", "work", "trace"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = ["-ff", "-y", "-s", "4096", "-e", f"trace={_CALLS}", "-o", str(folder / "trace" / "of")]
    process = subprocess.Popen(
        [*_tracer(), *options, sys.executable, *program],
        cwd=folder / "work",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = ""
    if interrupt_after_s is not None:
        assert process.stdout
        output = process.stdout.readline()
        time.sleep(interrupt_after_s)
        os.killpg(process.pid, signal.SIGINT)
    output += process.communicate(timeout=300.0)[0]
    calls = list(_calls(folder / "trace"))
    return Trace(
        process.returncode,
        output,
        [call for call in calls if _looks_up(call)],
        [call for call in calls if _leaves(call)],
        {path for call in calls for path in _written(call, folder / "work")},
    )


def _calls(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        yield from (line for line in path.read_text("utf-8", "replace").splitlines() if _CALL.match(line))


def _looks_up(call: str) -> bool:
    found = _INTERNET.search(call)
    asked = call.startswith("open") and any(f'"{name}"' in call for name in NAME_FILES)
    return asked or "nscd/socket" in call or (found is not None and found["port"] == "53")


def _leaves(call: str) -> bool:
    if internet := _INTERNET.search(call):
        return not ip_address(internet["host"]).is_loopback
    local = _UNIX.search(call)
    return local is not None and not SOUND_SERVERS.search(local["path"])


def _written(call: str, work: Path) -> Iterator[Path]:
    """Yield what a call that succeeded has written; a relative path without its folder is of `work`."""
    found = _CALL.match(call)
    assert found
    name = found["name"]
    opens = name.startswith("open") and re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", found["arguments"])
    if found["result"].startswith("-") or not (opens or name.startswith(WRITERS)):
        return
    paths = [Path(path["folder"] or work, path["path"]) for path in _PATH.finditer(found["arguments"])]
    for path in paths if name.startswith("rename") else paths[-1:]:
        if not str(path).startswith(TERMINALS):
            yield Path(os.path.normpath(path))
