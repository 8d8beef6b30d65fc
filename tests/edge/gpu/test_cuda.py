from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.arrays import Array
from edge.errors import EngineError
from edge.gpu.cuda import Cuda, PycudaCuda
from tests.edge.gpu.numpy_cuda import NumpyCuda


def rows(count: int, first: float = 1.0) -> Array:
    return np.arange(first, first + 3 * count, dtype=np.float32).reshape(count, 3)


def round_trip(cuda: Cuda) -> tuple[Array, Array]:
    """Send rows to the device and back: what was sent, and what came back."""
    source, target = cuda.pinned((4, 3)), cuda.pinned((4, 3))
    address = cuda.alloc(source.nbytes)
    source[:] = rows(4)
    target.fill(0.0)
    cuda.h2d(address, source[:2])
    cuda.d2h(target[:2], address)
    cuda.sync()
    return source.copy(), target.copy()


# The GPU made of arrays


@pytest.fixture
def cuda() -> NumpyCuda:
    return NumpyCuda()


def test_what_was_sent_comes_back_and_no_more(cuda: NumpyCuda) -> None:
    sent, came = round_trip(cuda)
    np.testing.assert_array_equal(came[:2], sent[:2])
    assert (came[2:] == 0.0).all()


def test_what_is_read_before_the_sync_is_not_a_number(cuda: NumpyCuda) -> None:
    source, target = cuda.pinned((2, 3)), cuda.pinned((2, 3))
    address = cuda.alloc(source.nbytes)
    source[:] = rows(2)
    cuda.h2d(address, source)
    cuda.d2h(target, address)
    assert np.isnan(target).all()
    cuda.sync()
    np.testing.assert_array_equal(target, rows(2))


def test_what_is_overwritten_before_the_sync_spoils_the_copy(cuda: NumpyCuda) -> None:
    source = cuda.pinned((2, 3))
    address = cuda.alloc(source.nbytes)
    source[:] = rows(2)
    cuda.h2d(address, source)
    source[:] = 7.0
    cuda.sync()
    assert (cuda.memory(address, (2, 3)) == 7.0).all()


def test_pieces_of_memory_do_not_overlap(cuda: NumpyCuda) -> None:
    addresses = [cuda.alloc(nbytes) for nbytes in (4, 4_000, 12, 1)]
    assert len(set(addresses)) == 4
    for value, address in enumerate(addresses):
        cuda.memory(address, (1,))[:] = value
    assert [cuda.memory(address, (1,))[0] for address in addresses] == [0, 1, 2, 3]


def free_standing(cuda: NumpyCuda) -> None:
    cuda.h2d(cuda.alloc(24), rows(2))


def beyond_the_end(cuda: NumpyCuda) -> None:
    cuda.h2d(cuda.alloc(20), cuda.pinned((2, 3)))


def nowhere(cuda: NumpyCuda) -> None:
    cuda.d2h(cuda.pinned((2, 3)), 12_345)


def with_gaps(cuda: NumpyCuda) -> None:
    cuda.h2d(cuda.alloc(24), cuda.pinned((2, 6))[:, :3])


def after_the_end(cuda: NumpyCuda) -> None:
    cuda.close()
    cuda.alloc(4)


def writing_after_the_end(cuda: NumpyCuda) -> None:
    host = cuda.pinned((2, 3))
    cuda.close()
    host[:] = 0.0


@pytest.mark.parametrize(
    "misuse", [free_standing, beyond_the_end, nowhere, with_gaps, after_the_end, writing_after_the_end]
)
def test_misuse_is_found(cuda: NumpyCuda, misuse: Callable[[NumpyCuda], None]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        misuse(cuda)


@pytest.mark.parametrize("use", ["sync", "close", "alloc"])
def test_another_thread_may_not_touch_it(cuda: NumpyCuda, use: str) -> None:
    raised: list[BaseException] = []

    def stray() -> None:
        try:
            getattr(cuda, use)(*([4] if use == "alloc" else []))
        except AssertionError as error:
            raised.append(error)

    thread = threading.Thread(target=stray)
    thread.start()
    thread.join()
    assert "does not own" in str(raised[0])


def test_a_lost_gpu_fails_in_every_call_and_can_be_closed(cuda: NumpyCuda) -> None:
    host, address = cuda.pinned((2, 3)), cuda.alloc(24)
    cuda.h2d(address, host)
    cuda.lost = True
    for use in (cuda.sync, lambda: cuda.h2d(address, host), lambda: cuda.alloc(4)):
        with pytest.raises(EngineError, match="--provider cpu"):
            use()
    cuda.close()
    cuda.close()


# pycuda, which cannot run without a driver: the order of its calls


class DriverError(Exception):
    """What stands in for pycuda.driver.Error."""


class FakeDriver:
    """What stands in for pycuda.driver: notes the calls, and fails where it is told to."""

    Error = DriverError

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[str] = []
        self.memory: dict[int, bytes] = {}
        self.Context = SimpleNamespace(pop=lambda: self.note("pop"))

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.failing:
            raise DriverError(f"cu{call} failed:\nan illegal instruction was encountered")

    def init(self) -> None:
        self.note("init")

    def Device(self, number: int) -> Any:  # noqa: N802 - pycuda's name
        self.note(f"device {number}")
        context = SimpleNamespace(push=lambda: self.note("push"), detach=lambda: self.note("detach"))
        return SimpleNamespace(retain_primary_context=lambda: context)

    def Stream(self) -> Any:  # noqa: N802
        self.note("stream")
        return SimpleNamespace(handle=99, synchronize=lambda: self.note("synchronize"))

    def mem_alloc(self, nbytes: int) -> Any:
        self.note("mem_alloc")
        return Allocation(self, 4096 * (1 + len(self.memory)), nbytes)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.note("pagelocked_empty")
        array = np.zeros(shape, dtype).view(Pagelocked)
        array.allocation = SimpleNamespace(free=lambda: self.note("free host"))
        return array

    def memcpy_htod_async(self, address: int, host: Array, stream: Any) -> None:
        self.note("htod")
        self.memory[address] = host.tobytes()

    def memcpy_dtoh_async(self, host: Array, address: int, stream: Any) -> None:
        self.note("dtoh")
        host[:] = np.frombuffer(self.memory[address], np.float32).reshape(host.shape)


class Allocation:
    def __init__(self, driver: FakeDriver, address: int, nbytes: int) -> None:
        driver.memory[address] = bytes(nbytes)
        self.driver, self.address = driver, address

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self.driver.note("free device")


class Pagelocked(np.ndarray[Any, Any]):
    """An array whose base can be freed."""

    allocation: Any

    @property
    def base(self) -> Any:
        return self.allocation


def used(driver: FakeDriver) -> PycudaCuda:
    cuda = PycudaCuda(driver=driver)
    round_trip(cuda)
    return cuda


def test_pycuda_copies_there_and_back_on_its_stream() -> None:
    driver = FakeDriver()
    cuda = PycudaCuda(1, driver)
    sent, came = round_trip(cuda)
    np.testing.assert_array_equal(came[:2], sent[:2])
    assert driver.calls[:4] == ["init", "device 1", "push", "stream"]
    assert driver.calls[-3:] == ["htod", "dtoh", "synchronize"]
    assert cuda.stream == 99
    cuda.close()


def test_everything_is_freed_before_the_context_is_popped() -> None:
    driver = FakeDriver()
    cuda = used(driver)
    before = len(driver.calls)
    cuda.close()
    assert driver.calls[before:] == [
        *("synchronize", "free device", "free host", "free host", "pop", "detach"),
    ]
    cuda.close()
    assert driver.calls.count("pop") == 1


@pytest.mark.parametrize("failing", ["synchronize", "free device", "free host"])
def test_the_context_is_popped_whatever_fails_on_the_way(failing: str) -> None:
    driver = FakeDriver()
    cuda = used(driver)
    driver.failing = failing
    cuda.close()
    assert driver.calls[-2:] == ["pop", "detach"]


@pytest.mark.parametrize(
    ("failing", "undone"),
    [("init", []), ("push", ["detach"]), ("stream", ["pop", "detach"])],
)
def test_opening_that_fails_half_way_is_undone(failing: str, undone: list[str]) -> None:
    driver = FakeDriver(failing)
    with pytest.raises(EngineError, match="while it was being opened"):
        PycudaCuda(driver=driver)
    assert driver.calls[driver.calls.index(failing) + 1 :] == undone


@pytest.mark.parametrize("failing", ["mem_alloc", "pagelocked_empty", "htod", "dtoh", "synchronize"])
def test_what_pycuda_raises_is_one_line_with_a_remedy(failing: str) -> None:
    with pytest.raises(EngineError, match=r"illegal instruction.*--provider cpu") as caught:
        used(FakeDriver(failing))
    assert "\n" not in str(caught.value)


def test_without_pycuda_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EngineError, match="pip install pycuda"):
        PycudaCuda()


@pytest.fixture
def real() -> Iterator[PycudaCuda]:
    try:
        cuda = PycudaCuda()
    except EngineError as error:
        pytest.skip(str(error))
    yield cuda
    cuda.close()


@pytest.mark.gpu
def test_a_real_gpu_gives_back_what_was_sent(real: PycudaCuda) -> None:
    sent, came = round_trip(real)
    np.testing.assert_array_equal(came[:2], sent[:2])
    assert (came[2:] == 0.0).all()
    assert real.stream != 0
