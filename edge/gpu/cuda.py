"""CUDA for a runner: memory, copies and one stream, behind a small protocol.

Rules for each implementation: all calls come from the thread that made the object, the owner thread. Copies
and other work on the stream are asynchronous: until `sync`, neither side of a copy may be touched. `close`
frees everything, and nothing may be used after it.

`PycudaCuda` is the real one; no TensorRT engine has run on it for this project yet. The tests have a double
made of NumPy arrays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from edge.arrays import Array
from edge.errors import EngineError

Shape = tuple[int, ...]


class Cuda(Protocol):
    """Memory and one stream of a GPU, created, used and closed in one thread."""

    @property
    def stream(self) -> int:
        """The stream's handle."""

    def alloc(self, nbytes: int) -> int:
        """Allocate device memory of `nbytes` bytes and return its address."""

    def pinned(self, shape: Shape) -> Array:
        """Return a float32 array in page-locked host memory."""

    def h2d(self, address: int, host: Array) -> None:
        """Start to copy a pinned array, or its first rows, to the device."""

    def d2h(self, host: Array, address: int) -> None:
        """Start to copy from the device to a pinned array, or to its first rows."""

    def sync(self) -> None:
        """Wait until the stream is idle."""

    def close(self) -> None:
        """Wait, free all memory and release the GPU; may be called twice."""


class PycudaCuda:
    """CUDA through pycuda, in the device's primary context, which ONNX Runtime and torch use too.

    One stack holds every clean-up, so that they run in reverse order even if a step fails: pycuda aborts the
    process when a thread ends whose context was not popped.
    """

    def __init__(self, gpu: int = 0, driver: Any = None) -> None:
        """Open a GPU.

        Args:
            gpu: its index, in the driver's order.
            driver: the module `pycuda.driver`, or a test double.

        Raises:
            EngineError: pycuda is not installed, or the GPU cannot be used.
        """
        self._driver = pycuda_driver() if driver is None else driver
        self._stream: Any = None
        self._owned = contextlib.ExitStack()
        try:
            with self._explained("was being opened"):
                self._open(gpu)
        except BaseException:
            self.close()
            raise

    def _open(self, gpu: int) -> None:
        self._driver.init()
        context = self._driver.Device(gpu).retain_primary_context()
        self._owned.callback(context.detach)
        context.push()
        self._owned.callback(self._driver.Context.pop)
        self._stream = self._driver.Stream()
        self._owned.callback(self._drop_stream)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.handle)

    def alloc(self, nbytes: int) -> int:
        """Allocate device memory of `nbytes` bytes and return its address."""
        with self._explained("allocated memory"):
            memory = self._driver.mem_alloc(nbytes)
        self._owned.callback(memory.free)
        return int(memory)

    def pinned(self, shape: Shape) -> Array:
        """Return a float32 array in page-locked host memory."""
        with self._explained("allocated host memory"):
            host: Array = self._driver.pagelocked_empty(shape, np.float32)
        self._owned.callback(host.base.free)  # type: ignore[union-attr]
        return host

    def h2d(self, address: int, host: Array) -> None:
        """Start to copy to the device."""
        with self._explained("copied"):
            self._driver.memcpy_htod_async(address, host, self._stream)

    def d2h(self, host: Array, address: int) -> None:
        """Start to copy from the device."""
        with self._explained("copied"):
            self._driver.memcpy_dtoh_async(host, address, self._stream)

    def sync(self) -> None:
        """Wait until the stream is idle."""
        with self._explained("computed"):
            self._stream.synchronize()

    def close(self) -> None:
        """Wait, free all memory, then the stream, then the context; errors are ignored."""
        with contextlib.suppress(self._driver.Error), self._owned:
            if self._stream is not None:
                self._stream.synchronize()

    def _drop_stream(self) -> None:
        self._stream = None

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            reason = " ".join(str(error).split())
            raise EngineError(
                f"the GPU failed while it {what} ({reason})",
                remedy="see the output of nvidia-smi and dmesg, or use --provider cpu",
            ) from error


def pycuda_driver() -> Any:
    """Import pycuda. Call `edge.gpu.probe.probe` first: pycuda is linked with the driver.

    Raises:
        EngineError: pycuda is not installed, or cannot be loaded.
    """
    try:
        import pycuda.driver
    except ImportError as error:  # also raised if the driver's library is missing
        raise EngineError(
            f"pycuda cannot be used here ({error})", remedy="pip install pycuda, or use --provider cpu"
        ) from error
    return pycuda.driver
