"""A microphone without hardware: the monitor of a PulseAudio null sink, ALSA's default input.

What is played into the sink is what PortAudio records, through the same libraries as a real one.
PortAudio reads the environment when it loads, so the recording happens in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
START_S = 10.0
"""How long the server may take to answer."""


class PulseUnavailableError(Exception):
    """PulseAudio cannot be started here; the message says why."""


@dataclass(frozen=True)
class VirtualMicrophone:
    """A running server."""

    environment: dict[str, str] = field(repr=False)
    """For processes that record from the microphone."""

    @contextmanager
    def playing(self, path: Path) -> Iterator[None]:
        """Play a sound file into the microphone meanwhile; it ends early if it must."""
        player = subprocess.Popen(["paplay", "--device=vmic", str(path)], env=self.environment)
        try:
            yield
        finally:
            _stop(player)


@contextmanager
def virtual_microphone() -> Iterator[VirtualMicrophone]:
    """Run a PulseAudio server of our own, with nothing left behind.

    Raises:
        PulseUnavailableError: it does not start.
    """
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            raise PulseUnavailableError(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="mmtl-pulse-") as folder:
        environment = _environment(Path(folder))
        server = _start_server(environment, Path(folder) / "server.log")
        try:
            _wait_for(server, environment, Path(folder) / "server.log")
            yield VirtualMicrophone(environment)
        finally:
            _stop(server)


def _environment(home: Path) -> dict[str, str]:
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    (home / ".asoundrc").write_text(ASOUNDRC)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PULSE_", "ALSA_"))}
    ours = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(home / "config")}
    pulse = {"PULSE_SERVER": f"unix:{runtime}/pulse/native", "PULSE_SOURCE": "vmic.monitor"}
    return {**inherited, **ours, **pulse}


def _start_server(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"]
    modules = ["--load=module-native-protocol-unix", "--load=module-null-sink sink_name=vmic"]
    command = ["pulseaudio", *options, *modules]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def _wait_for(server: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        if _answers(environment):
            return
        time.sleep(0.05)
    said = " / ".join(log.read_text(errors="replace").split("\n")[-4:])
    raise PulseUnavailableError(f"pulseaudio does not answer: {said}")


def _answers(environment: dict[str, str]) -> bool:
    command = ["pactl", "list", "short", "sources"]
    try:
        listing = subprocess.run(command, env=environment, capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"vmic.monitor" in listing.stdout


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
