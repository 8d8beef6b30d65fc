"""Probe the NVIDIA driver through ctypes: which GPUs exist, and can TensorRT be loaded?

Without a driver TensorRT fails with errors that explain nothing, and its lean runtime with a segmentation
fault. So this probe comes first. It needs only the driver's own library.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

from edge.errors import EngineError

LIBRARY: Final = "libcuda.so.1"
OLDEST_CUDA: Final = (12, 0)
"""Oldest CUDA that the driver must support: TensorRT 10.3 and later need it."""

_NO_DEVICE: Final = 100
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_NAME_BYTES: Final = 256
_CPU_REMEDY: Final = "or use --provider cpu"


@dataclass(frozen=True)
class Gpu:
    """One device, as the driver describes it."""

    name: str
    compute_capability: str
    """Major and minor, as "8.7"."""
    memory_bytes: int
    driver_cuda_version: str
    """Newest CUDA that the driver supports, as "12.6"."""


def probe(library: str = LIBRARY) -> tuple[Gpu, ...]:
    """List the GPUs of this machine, in the driver's order; the first is used.

    Args:
        library: the driver's library, a name or a path.

    Raises:
        EngineError: the driver is missing, too old or fails, or there is no GPU.
    """
    driver = _Driver(library)
    version = driver.cuda_version()
    driver.start()
    return tuple(driver.describe(index, version) for index in range(driver.count()))


class _Driver:
    """Queries of the CUDA driver. Creates no context and takes no GPU memory."""

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise EngineError(
                f"there is no NVIDIA driver here ({error})",
                remedy=f"install it (a Jetson's comes with JetPack), {_CPU_REMEDY}",
            ) from error

    def cuda_version(self) -> str:
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        version = (number.value // 1000, number.value % 1000 // 10)
        if version < OLDEST_CUDA:
            raise EngineError(
                f"the NVIDIA driver is too old: it supports CUDA {_dotted(version)}, TensorRT needs "
                f"{_dotted(OLDEST_CUDA)} or newer",
                remedy=f"update the driver, {_CPU_REMEDY}",
            )
        return _dotted(version)

    def start(self) -> None:
        self._call("cuInit", 0)

    def count(self) -> int:
        number = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(number))
        if number.value < 1:
            raise _no_device()
        return number.value

    def describe(self, index: int, version: str) -> Gpu:
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDeviceGetName", name, _NAME_BYTES, device)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        capability = (self._attribute(_MAJOR, device), self._attribute(_MINOR, device))
        return Gpu(name.value.decode("utf-8", "replace"), _dotted(capability), memory.value, version)

    def _attribute(self, attribute: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        try:
            code = int(getattr(self._library, name)(*arguments))
        except AttributeError as error:
            raise EngineError(
                f"the NVIDIA driver has no {name}: it is too old or damaged",
                remedy=f"update it, {_CPU_REMEDY}",
            ) from error
        if code == _NO_DEVICE:
            raise _no_device()
        if code:
            raise EngineError(
                f"the NVIDIA driver fails ({name}: {self._explained(code)})",
                remedy="see the output of nvidia-smi, and restart after an update of the driver, "
                f"{_CPU_REMEDY}",
            )

    def _explained(self, code: int) -> str:
        """Return the driver's own text of an error, as "system not yet initialized, error 802"."""
        text = ctypes.c_char_p()
        explain = getattr(self._library, "cuGetErrorString", None)
        if explain is None or explain(code, ctypes.byref(text)) or not text.value:
            return f"error {code}"
        return f"{text.value.decode('utf-8', 'replace')}, error {code}"


def _no_device() -> EngineError:
    return EngineError(
        "the NVIDIA driver finds no GPU",
        remedy="check that it is plugged in, that this user may use it (groups video and render), and "
        f"CUDA_VISIBLE_DEVICES, {_CPU_REMEDY}",
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
