"""CUDA for a runner: memory, copies and one stream, behind a small protocol.

Three rules hold for each implementation. All calls come from the thread that made the object, the owner
thread. Copies, and whatever else is put on the stream, only begin when they are asked for: until `sync`,
neither side of a copy may be touched. `close` frees everything, and after it nothing may be used.

`PycudaCuda` is the real one; no TensorRT engine has run on it for this project yet. The tests have another,
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
    """One GPU's memory and one of its streams, made, used and closed in one thread."""

    @property
    def stream(self) -> int:
        """The stream's handle."""

    def alloc(self, nbytes: int) -> int:
        """Return the address of so many bytes of device memory."""

    def pinned(self, shape: Shape) -> Array:
        """Return a float32 array in host memory that copies can use directly."""

    def h2d(self, address: int, host: Array) -> None:
        """Begin to copy a pinned array, or the first rows of one, to the device."""

    def d2h(self, host: Array, address: int) -> None:
        """Begin to copy from the device to a pinned array, or to the first rows of one."""

    def sync(self) -> None:
        """Wait for everything that was begun."""

    def close(self) -> None:
        """Wait, free what `alloc` and `pinned` gave, and let go of the GPU; twice does no harm."""


class PycudaCuda:
    """CUDA through pycuda, in the device's primary context: the one that ONNX Runtime and torch use too.

    Everything that must be undone lies on one stack, so that it is undone in the reverse order even if
    a step fails: pycuda ends the process when a thread ends whose context was not popped.
    """

    def __init__(self, gpu: int = 0, driver: Any = None) -> None:
        """Take hold of a GPU.

        Args:
            gpu: its number, in the driver's order.
            driver: the module `pycuda.driver`, or what stands in for it.

        Raises:
            EngineError: pycuda is not installed, or the GPU cannot be used.
        """
        self._driver = pycuda_driver() if driver is None else driver
        self._stream: Any = None
        self._owned = contextlib.ExitStack()
        try:
            with self._explained("was opened"):
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
        """Return the address of so many bytes of device memory."""
        with self._explained("was asked for memory"):
            memory = self._driver.mem_alloc(nbytes)
        self._owned.callback(memory.free)
        return int(memory)

    def pinned(self, shape: Shape) -> Array:
        """Return a page-locked float32 array."""
        with self._explained("was given host memory"):
            host: Array = self._driver.pagelocked_empty(shape, np.float32)
        self._owned.callback(host.base.free)  # type: ignore[union-attr]
        return host

    def h2d(self, address: int, host: Array) -> None:
        """Begin to copy to the device."""
        with self._explained("copied"):
            self._driver.memcpy_htod_async(address, host, self._stream)

    def d2h(self, host: Array, address: int) -> None:
        """Begin to copy from the device."""
        with self._explained("copied"):
            self._driver.memcpy_dtoh_async(host, address, self._stream)

    def sync(self) -> None:
        """Wait for the stream."""
        with self._explained("computed"):
            self._stream.synchronize()

    def close(self) -> None:
        """Wait, free all memory, then the stream, then the context. Failures are of no use to anybody now."""
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
                remedy="see what nvidia-smi or dmesg says, or use --provider cpu",
            ) from error


def pycuda_driver() -> Any:
    """Import pycuda. Ask `edge.gpu.probe.probe` first: it is linked with the driver.

    Raises:
        EngineError: it is not installed, or cannot be loaded.
    """
    try:
        import pycuda.driver
    except ImportError as error:  # also where the driver's library is missing, which pycuda is linked with
        raise EngineError(
            f"pycuda cannot be used here ({error})", remedy="pip install pycuda, or use --provider cpu"
        ) from error
    return pycuda.driver
