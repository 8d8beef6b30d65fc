"""A microphone without hardware: the monitor of a PulseAudio null sink, ALSA's default input.

What is played into the sink is what PortAudio records, through the same libraries as a real one.
PortAudio reads the environment when it loads, so the recording happens in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
SINK = "vmic"
PATIENCE_S = 60.0
"""How long the server may take to answer."""
STORED_MS = 2_000
"""Sound that a player keeps buffered in the server: a shorter delay of the player leaves no gap."""
PLAYER = f'while PULSE_LATENCY_MSEC={STORED_MS} paplay --device={SINK} "$0" && [ "$1" ]; do :; done'


@dataclass(frozen=True)
class VirtualMicrophone:
    """A running server."""

    environment: dict[str, str] = field(repr=False)
    """For processes that record from the microphone."""
    server: subprocess.Popen[bytes] = field(repr=False)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server inside the block."""
        self.server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.server.send_signal(signal.SIGCONT)

    def unplug(self, name: str = SINK) -> None:
        """Unplug a microphone, even while it is recorded from; do nothing if it is not there."""
        modules = self._pactl("list", "short", "modules").splitlines()
        for line in modules:
            if f"sink_name={name}" in line:
                self._pactl("unload-module", line.split()[0])

    def plug_in(self, rate: int = 44_100, channels: int = 2, name: str = SINK) -> None:
        """Plug in a microphone that is not there yet."""
        self._pactl(
            "load-module", "module-null-sink", f"sink_name={name}", f"rate={rate}", f"channels={channels}"
        )

    def _pactl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["pactl", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        return done.stdout

    def play(self, path: Path) -> None:
        """Play a sound file into the microphone."""
        subprocess.run(["sh", "-c", PLAYER, str(path)], env=self.environment, check=True, timeout=PATIENCE_S)

    @contextmanager
    def playing(self, path: Path) -> Iterator[None]:
        """Play a sound file into the microphone in a loop, inside the block or until it is unplugged."""
        command = ["sh", "-c", PLAYER, str(path), "again"]
        player = subprocess.Popen(command, env=self.environment, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(player.pid, signal.SIGTERM)
            player.wait()


@contextmanager
def virtual_microphone() -> Iterator[VirtualMicrophone]:
    """Run a PulseAudio server of our own, with nothing left behind; skip the test if it does not start."""
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="mmtl-pulse-") as folder:
        environment = _environment(Path(folder))
        server = _start_server(environment, Path(folder) / "server.log")
        try:
            _wait_for(server, environment, Path(folder) / "server.log")
            _require_portaudio(environment)
            yield VirtualMicrophone(environment, server)
        finally:
            _stop(server)


def _environment(home: Path) -> dict[str, str]:
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    (home / ".asoundrc").write_text(ASOUNDRC)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PULSE_", "ALSA_"))}
    ours = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(home / "config")}
    pulse = {"PULSE_SERVER": f"unix:{runtime}/pulse/native", "PULSE_SOURCE": f"{SINK}.monitor"}
    # A null sink is at rest for 2 s at a time unless its listeners ask for less.
    return {**inherited, **ours, **pulse, "PULSE_LATENCY_MSEC": "60"}


def _start_server(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"]
    modules = ["--load=module-native-protocol-unix", f"--load=module-null-sink sink_name={SINK}"]
    command = ["pulseaudio", *options, *modules]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def _wait_for(server: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        if _answers(environment):
            return
        time.sleep(0.05)
    said = " / ".join(log.read_text(errors="replace").split("\n")[-4:])
    pytest.skip(f"pulseaudio does not answer: {said}")


def _require_portaudio(environment: dict[str, str]) -> None:
    listed = "import sounddevice; print(len(sounddevice.query_devices()))"
    command = [sys.executable, "-c", listed]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "OSError" in done.stderr:
        pytest.skip("libportaudio2 is not installed")
    if done.stdout == "0\n":
        pytest.skip("ALSA does not find PulseAudio: libasound2-plugins is not installed")


def _answers(environment: dict[str, str]) -> bool:
    command = ["pactl", "list", "short", "sources"]
    try:
        listing = subprocess.run(command, env=environment, capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return f"{SINK}.monitor".encode() in listing.stdout


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
