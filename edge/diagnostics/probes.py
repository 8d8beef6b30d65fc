"""System probes, each in a subprocess with a time-out.

A third-party library (sound, GPU, ...) may crash or hang when it is loaded. In a subprocess that is an answer
like any other. TensorRT is imported only; its objects are created only after the driver has named a GPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.errors import MmtlError

Answer = dict[str, Any]
"""The fields of an answer; or "error" and, if one is known, "remedy"."""

_REAP_S: Final = 1.0
_LONGEST: Final = 400
_SETTLING_S: Final = 0.5
"""Start of a recording that is ignored: the driver starts up, and resampling a constant gives a step."""
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge.diagnostics.probes import answer; answer(*sys.argv[2:])"
)


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended, and its output."""

    code: int | None
    """Exit code, or minus the number of the signal that ended it; None after a time-out."""
    out: str = ""
    err: str = ""


@dataclass(frozen=True)
class SystemProbe:
    """Questions to a machine: its files, its programs, and the libraries of this Python."""

    root: Path = Path("/")
    """Root of its file system; tests name another."""
    commands: str = field(default_factory=lambda: f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    """Folders of its programs, as in PATH."""
    timeout_s: float = 30.0
    """Longest time for one answer, in seconds."""

    def run(self, program: str, *arguments: str) -> ProgramResult | None:
        """Run a program; None if it is not installed."""
        found = shutil.which(program, path=self.commands)
        return _run((found, *arguments), self.timeout_s) if found else None

    def ask(self, question: str, *arguments: str) -> Answer:
        """Answer one of `QUESTIONS` in a subprocess."""
        path = json.dumps([str(entry) for entry in sys.path])
        said = _run((sys.executable, "-I", "-B", "-c", _CHILD, path, question, *arguments), self.timeout_s)
        return _understood(said, self.timeout_s)

    def package_version(self, package: str) -> str:
        """Return the version of an installed Debian package; "" if it is not installed."""
        said = self.run("dpkg-query", "--show", "--showformat=${Version}", package)
        return said.out.strip() if said and said.code == 0 else ""

    def jetson_linux(self) -> str:
        """Return the version of Jetson Linux, such as "36.4.3", or "unknown"; "" if this is not a Jetson."""
        told = self.root / "etc" / "nv_tegra_release"
        text = told.read_text("utf-8", "replace") if told.is_file() else ""
        if numbers := re.search(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", text):
            return ".".join(numbers.groups())
        installed = self.package_version("nvidia-l4t-core").partition("-")[0]
        return installed or ("unknown" if told.is_file() else "")

    def has_gpu_device(self) -> bool:
        """Tell whether NVIDIA's kernel driver has found a GPU; its libraries are not asked."""
        files = ("nvidia[0-9]*", "nvhost-gpu", "nvgpu", "nvmap")
        return any(any((self.root / "dev").glob(pattern)) for pattern in files)


def answer(question: str, *arguments: str) -> None:
    """Answer a question on stdout and exit at once: a library that crashes at exit changes no answer."""
    try:
        found = QUESTIONS[question](*arguments)
    except MmtlError as error:
        found = explained(error)
    except Exception as error:  # noqa: BLE001 - any error is an answer
        found = {"error": shortened(f"{type(error).__name__} ({error})")}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)


def copies_of(package: str) -> list[Path]:
    """List the folders on the path that hold a package; `import` takes the first."""
    folders = (Path(entry or ".") / package for entry in sys.path)
    return list(dict.fromkeys(folder.resolve() for folder in folders if (folder / "__init__.py").is_file()))


def installed(pattern: str) -> list[tuple[str, str, Path]]:
    """List installed distributions whose name matches a pattern: name, version and folder."""
    folders = dict.fromkeys(Path(entry or ".").resolve() for entry in sys.path)
    known = re.compile(rf"({pattern})-([^-]+?)(-py\d[\d.]*)?\.(?:dist|egg)-info", re.IGNORECASE)
    found = [(known.fullmatch(item.name), folder) for folder in folders for item in folder.glob("*-info")]
    return sorted((match[1], match[2], folder) for match, folder in found if match)


def explained(error: MmtlError) -> Answer:
    """Describe an error as an answer, each part on one line."""
    answer = {"error": one_line(error.problem), "remedy": one_line(error.remedy)}
    return {key: text for key, text in answer.items() if text}


def one_line(text: object) -> str:
    """Join the lines of a message."""
    return " ".join(str(text).split())


def shortened(text: object) -> str:
    """Write another program's message on one line of bounded length."""
    return one_line(text)[:_LONGEST]


def _sound() -> Answer:
    from edge.audio.devices import input_devices, load_portaudio

    portaudio = load_portaudio()
    return {
        "version": portaudio.get_portaudio_version()[1],
        "library": str(getattr(portaudio, "_libname", "")),
        "inputs": [asdict(item) for item in input_devices(portaudio)],
    }


def _recording() -> Answer:
    """Record from the default microphone until sound arrives or it is found silent; discard the recording."""
    import numpy as np

    from edge.arrays import SAMPLE_RATE
    from edge.audio.dead_input import CONSTANT_TOLERANCE
    from edge.audio.microphone import Microphone

    heard_s = 0.0
    with Microphone(reconnect=False) as microphone:
        for block in microphone:
            if block.device_change:
                change = block.device_change
                return {"name": microphone.name, "silent": change.reason, "remedy": change.remedy}
            heard_s += len(block.samples) / SAMPLE_RATE
            if heard_s > _SETTLING_S and np.abs(block.samples - block.samples[0]).max() > CONSTANT_TOLERANCE:
                break
    return {"name": microphone.name, "silent": ""}


def _voice() -> Answer:
    import numpy as np

    from edge.features.silero_vad import PIECE, SileroVad

    return {"silence": SileroVad()(np.zeros(PIECE, np.float32))}


def _onnxruntime() -> Answer:
    import onnxruntime

    return {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}


def _gpu() -> Answer:
    from edge.gpu.probe import probe

    return {"gpus": [asdict(gpu) for gpu in probe()]}


def _tensorrt() -> Answer:
    from edge.gpu.errors import tensorrt_module

    trt = tensorrt_module()
    return {"version": str(trt.__version__), "file": str(trt.__file__)}


def _pycuda() -> Answer:
    if importlib.util.find_spec("pycuda") is None:
        return {"error": "pycuda is not installed for this Python"}
    import pycuda
    import pycuda.driver

    return {"version": pycuda.VERSION_TEXT, "cuda": ".".join(map(str, pycuda.driver.get_version()[:2]))}


def _provider(folder: str) -> Answer:
    from edge.inference.provider import open_engine
    from edge.model.bundle import load_bundle

    engine = open_engine(load_bundle(Path(folder)))
    return {"provider": engine.provider, "reason": engine.reason}


QUESTIONS: Final[dict[str, Callable[..., Answer]]] = {
    "sound": _sound,
    "recording": _recording,
    "voice": _voice,
    "onnxruntime": _onnxruntime,
    "gpu": _gpu,
    "tensorrt": _tensorrt,
    "pycuda": _pycuda,
    "provider": _provider,
}


def _understood(said: ProgramResult, timeout_s: float) -> Answer:
    """Return the answer of a subprocess, or how it failed."""
    if said.code is None:
        return {"error": f"no answer within {timeout_s:g} s"}
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(said.out.splitlines()[-1])
        if isinstance(found, dict):
            return found
    if said.code < 0:
        return {"error": f"the process crashed ({signal.strsignal(-said.code)})"}
    last = said.err.strip().splitlines()[-1:] or [f"exit code {said.code}"]
    return {"error": shortened(f"the process exited ({last[0]})")}


def _run(command: Sequence[str], timeout_s: float) -> ProgramResult:
    """Run a program until it ends or the time is up."""
    pipe = subprocess.PIPE
    try:  # in its own session, so that its children end with it
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        return ProgramResult(127, err=f"{command[0]} cannot be run: {error.strerror}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return ProgramResult(None)
    finally:
        _end(process)
    return ProgramResult(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program that still runs, and its children; one that a driver blocks is left running."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
