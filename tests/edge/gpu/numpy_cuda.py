"""A test double of `edge.gpu.cuda.Cuda` made of NumPy arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.errors import EngineError
from edge.gpu.cuda import Shape

_ALIGNMENT: Final = 256


class NumpyCuda:
    """A GPU made of NumPy arrays, strict where a real one would crash, or go on with rubbish.

    Work on the stream waits until `sync`, like that of a GPU which is slow: what is read too early is
    NaN, and what is overwritten too early spoils the result. Misuse is an AssertionError. Once `lost`
    is set, every call fails as a GPU's does that fell off its bus.
    """

    def __init__(self) -> None:
        self.lost = False
        self.closed = False
        self._owner = threading.get_ident()
        self._device: dict[int, Array] = {}
        self._host: list[Array] = []
        self._begun: list[Callable[[], None]] = []

    @property
    def stream(self) -> int:
        """A handle that is not that of CUDA's default stream."""
        self._use()
        return 1

    def alloc(self, nbytes: int) -> int:
        """Return an address where so many bytes of NaN are."""
        self._use()
        address = _ALIGNMENT * (1 + sum(len(memory) for memory in self._device.values()))
        self._device[address] = np.full(-(-nbytes // 4), np.nan, np.float32)
        return address

    def pinned(self, shape: Shape) -> Array:
        """Return an array of NaN that this GPU may copy from and to."""
        self._use()
        self._host.append(np.full(shape, np.nan, np.float32))
        return self._host[-1]

    def h2d(self, address: int, host: Array) -> None:
        """Note that an array is to be copied to the device."""
        device = self._copied(host, address)
        self.enqueue(lambda: np.copyto(device, host))

    def d2h(self, host: Array, address: int) -> None:
        """Note that an array is to be copied from the device."""
        device = self._copied(host, address)
        self.enqueue(lambda: np.copyto(host, device))

    def sync(self) -> None:
        """Do the work that waits, in order."""
        self._use()
        self._finish()

    def close(self) -> None:
        """Do what waits and make every array unusable."""
        assert threading.get_ident() == self._owner, "closed by a thread that does not own it"
        if not self.lost:
            self._finish()
        for host in self._host:
            if host.flags.writeable:
                host.fill(np.nan)
                host.flags.writeable = False
        self._device.clear()
        self.closed = True

    def enqueue(self, work: Callable[[], None]) -> None:
        """Put work on the stream, as a kernel is."""
        self._use()
        self._begun.append(work)

    def memory(self, address: int, shape: Shape) -> Array:
        """Return the device memory at an address, as a kernel sees it."""
        assert address in self._device, f"there is no memory at {address}"
        count = int(np.prod(shape))
        assert count <= len(self._device[address]), "beyond the end of the memory"
        return self._device[address][:count].reshape(shape)

    def _copied(self, host: Array, address: int) -> Array:
        """Check one side of a copy and return the other."""
        assert any(np.shares_memory(host, pinned) for pinned in self._host), "this host memory is not pinned"
        assert host.flags.c_contiguous, "the rows do not lie together"
        return self.memory(address, host.shape)

    def _finish(self) -> None:
        begun, self._begun = self._begun, []
        for work in begun:
            work()

    def _use(self) -> None:
        assert threading.get_ident() == self._owner, "used by a thread that does not own it"
        assert not self.closed, "used after it was closed"
        if self.lost:
            raise EngineError("the GPU failed while it computed (it is lost)", remedy="use --provider cpu")
