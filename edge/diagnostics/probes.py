"""What a machine says of itself, asked so that no answer takes long and none can take us down.

Whatever loads somebody else's library (of sound, of the GPU, ...) runs in a process of its own: one that
crashes or waits for ever is then an answer like any other. TensorRT is only imported, and none of its
objects made, unless the driver has named a GPU first.
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
"""What a question brings to light; or, where nothing, "error" and, if it is known, "remedy"."""

_REAP_S: Final = 1.0
_LONGEST: Final = 400
_SETTLING_S: Final = 0.5
"""Of a recording, in which a driver begins and a resampler makes a step of what is constant."""
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge.diagnostics.probes import answer; answer(*sys.argv[2:])"
)


@dataclass(frozen=True)
class Said:
    """What a program left behind."""

    code: int | None
    """Exit code, or minus the signal that ended it; None if it did not end in time."""
    out: str = ""
    err: str = ""


@dataclass(frozen=True)
class SystemProbe:
    """The machine that is looked at. Tests look at another one."""

    root: Path = Path("/")
    """Where its files are."""
    commands: str = field(default_factory=lambda: f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    """Where its programs are, as in PATH."""
    patience_s: float = 30.0
    """How long one answer may take."""

    def run(self, program: str, *arguments: str) -> Said | None:
        """Run one of its programs; None where there is none of that name."""
        found = shutil.which(program, path=self.commands)
        return _run((found, *arguments), self.patience_s) if found else None

    def ask(self, question: str, *arguments: str) -> Answer:
        """Put one of `QUESTIONS` to it, in a process of its own."""
        path = json.dumps([str(entry) for entry in sys.path])
        said = _run((sys.executable, "-I", "-B", "-c", _CHILD, path, question, *arguments), self.patience_s)
        return _understood(said, self.patience_s)

    def package_version(self, package: str) -> str:
        """Return the version of a Debian package that is installed, else ""."""
        said = self.run("dpkg-query", "--show", "--showformat=${Version}", package)
        return said.out.strip() if said and said.code == 0 else ""

    def jetson_linux(self) -> str:
        """Return a Jetson's Linux, as "36.4.3", or "unknown"; "" where this is no Jetson."""
        told = self.root / "etc" / "nv_tegra_release"
        text = told.read_text("utf-8", "replace") if told.is_file() else ""
        if numbers := re.search(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", text):
            return ".".join(numbers.groups())
        installed = self.package_version("nvidia-l4t-core").partition("-")[0]
        return installed or ("unknown" if told.is_file() else "")

    def has_gpu_device(self) -> bool:
        """Tell whether NVIDIA's kernel driver has found a GPU, whatever its libraries make of that."""
        files = ("nvidia[0-9]*", "nvhost-gpu", "nvgpu", "nvmap")
        return any(any((self.root / "dev").glob(pattern)) for pattern in files)


def answer(question: str, *arguments: str) -> None:
    """Answer a question on stdout and end this process at once: how libraries end is not asked."""
    try:
        found = QUESTIONS[question](*arguments)
    except MmtlError as error:
        found = explained(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        found = {"error": shortened(f"{type(error).__name__} ({error})")}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)


def copies_of(package: str) -> list[Path]:
    """List the folders that `import` could take a package from; it takes the first."""
    folders = (Path(entry or ".") / package for entry in sys.path)
    return list(dict.fromkeys(folder.resolve() for folder in folders if (folder / "__init__.py").is_file()))


def installed(pattern: str) -> list[tuple[str, str, Path]]:
    """List what pip or apt has installed whose name fits a pattern: name, version and where."""
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
    """Record from the default microphone until sound comes, or is known not to come; keep nothing of it."""
    import numpy as np

    from edge.arrays import SAMPLE_RATE
    from edge.audio.dead_input import CONSTANT_TOLERANCE
    from edge.audio.microphone import Microphone

    heard_s = 0.0
    with Microphone(reconnect=False) as microphone:
        for block in microphone:
            if block.device_change:
                return {"name": microphone.name, "silent": block.device_change.reason}
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


def _understood(said: Said, patience_s: float) -> Answer:
    """Read what a child answered, or say what became of it."""
    if said.code is None:
        return {"error": f"no answer within {patience_s:g} s"}
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(said.out.splitlines()[-1])
        if isinstance(found, dict):
            return found
    if said.code < 0:
        return {"error": f"it crashes ({signal.strsignal(-said.code)})"}
    last = said.err.strip().splitlines()[-1:] or [f"exit code {said.code}"]
    return {"error": shortened(f"it ends the process ({last[0]})")}


def _run(command: Sequence[str], patience_s: float) -> Said:
    """Run a program to its end, or to that of our patience."""
    pipe = subprocess.PIPE
    try:  # in a session of its own, so that whatever it starts ends with it
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        return Said(127, err=f"{command[0]} cannot be run: {error.strerror}")
    try:
        out, err = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        return Said(None)
    finally:
        _end(process)
    return Said(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs, and what it started; one that a driver holds is left behind."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
