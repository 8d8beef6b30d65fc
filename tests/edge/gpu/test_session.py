from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge.arrays import Array
from edge.errors import EngineError
from edge.gpu.runner import EngineOutput
from edge.gpu.session import TensorrtSession
from tests.edge.gpu.numpy_cuda import NumpyCuda
from tests.edge.inference.fake_runtime import FakeTensorrt

ROOT = Path(__file__).parents[3]

FRAMES, BINS = 5, 3
SOON_S = 60.0
"""No test waits for this long, unless it fails."""


def graph(frames: Array) -> EngineOutput:
    """Stand in for the network: what a row gives depends on that row only."""
    total = frames.sum(axis=(1, 2))
    return np.stack([total, total**2], axis=1), np.stack([total + c for c in range(4)], axis=1)


@pytest.fixture
def machine() -> FakeTensorrt:
    return FakeTensorrt(graph, FRAMES, BINS)


@pytest.fixture
def session(machine: FakeTensorrt) -> Iterator[TensorrtSession]:
    with opened(machine) as session:
        yield session
        machine.go.set()


def opened(machine: FakeTensorrt, plan: bytes | None = None, slice_s: float = SOON_S) -> TensorrtSession:
    plan = machine.plan() if plan is None else plan
    return TensorrtSession(plan, tensorrt=machine, open_cuda=machine.open_cuda, slice_s=slice_s)


def windows(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, FRAMES, BINS)).astype(np.float32)


def assert_right(answer: EngineOutput, frames: Array) -> None:
    for found, expected in zip(answer, graph(frames), strict=True):
        np.testing.assert_array_equal(found, expected)


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON_S
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.001)


def waiting(session: TensorrtSession) -> int:
    return len(session._requests._waiting)


def owners() -> int:
    return sum(thread.name == "tensorrt" for thread in threading.enumerate())


def asked(pool: ThreadPoolExecutor, session: TensorrtSession, sizes: list[int]) -> list[Future[EngineOutput]]:
    """Ask from a thread each, in this order, while the GPU is busy."""
    futures = []
    for index, size in enumerate(sizes):
        before = waiting(session)
        futures.append(pool.submit(session, windows(size, seed=index)))
        wait_for(lambda before=before: waiting(session) > before)  # type: ignore[misc]
    return futures


# What it answers


@given(sizes=st.lists(st.integers(1, 11), min_size=1, max_size=4))
@examples(max_examples=25, deadline=None)
def test_any_number_of_windows_gives_what_the_graph_gives(sizes: list[int]) -> None:
    with opened(FakeTensorrt(graph, FRAMES, BINS)) as session:
        for size in sizes:
            assert_right(session(windows(size)), windows(size))


def test_what_it_takes_is_read_from_the_plan(machine: FakeTensorrt) -> None:
    with opened(machine, machine.plan(batch=7)) as session:
        assert (session.largest_batch, session.frames, session.bins) == (7, FRAMES, BINS)


def test_answers_stay_as_they_are_when_others_are_computed(session: TensorrtSession) -> None:
    answer = session(windows(4))
    session(windows(4, seed=1))
    assert_right(answer, windows(4))


def test_it_has_run_once_before_the_first_question(machine: FakeTensorrt, session: TensorrtSession) -> None:
    assert machine.batches == [1]


def test_windows_of_another_length_are_our_mistake_and_harm_nobody(session: TensorrtSession) -> None:
    with pytest.raises(AssertionError, match="no full window"):
        session(np.zeros((1, FRAMES - 1, BINS), np.float32))
    assert_right(session(windows(1)), windows(1))


# Many threads


def test_several_threads_at_once_get_what_each_gets_alone(session: TensorrtSession) -> None:
    def client(seed: int) -> None:
        for turn in range(20):
            frames = windows(1 + (seed + turn) % 6, seed=100 * seed + turn)
            assert_right(session(frames), frames)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(client, seed) for seed in range(8)]:
            done.result(SOON_S)


def test_who_waits_while_the_gpu_is_busy_is_served_together(
    machine: FakeTensorrt, session: TensorrtSession
) -> None:
    machine.go.clear()
    with ThreadPoolExecutor(8) as pool:
        busy = pool.submit(session, windows(1, seed=99))
        wait_for(lambda: machine.batches == [1, 1])
        futures = asked(pool, session, [1, 2, 1, 3, 2, 1])
        machine.go.set()
        for seed, (size, future) in enumerate(zip([1, 2, 1, 3, 2, 1], futures, strict=True)):
            assert_right(future.result(SOON_S), windows(size, seed))
        assert_right(busy.result(SOON_S), windows(1, seed=99))
    # In order, and as many as fit into 4: 1 + 2 + 1, then 3, which 2 does not fit beside, then 2 + 1.
    assert machine.batches == [1, 1, 4, 3, 3]


def test_who_finds_the_gpu_idle_does_not_wait_for_company(
    machine: FakeTensorrt, session: TensorrtSession
) -> None:
    for seed in range(3):
        session(windows(1, seed))
    assert machine.batches == [1, 1, 1, 1]


def test_more_windows_than_fit_are_run_in_pieces(machine: FakeTensorrt, session: TensorrtSession) -> None:
    assert_right(session(windows(10)), windows(10))
    assert machine.batches == [1, 4, 4, 2]


# Its end


def test_closing_ends_the_thread_and_twice_does_no_harm(machine: FakeTensorrt) -> None:
    before = owners()
    session = opened(machine)
    assert owners() == before + 1
    session.close()
    assert owners() == before
    assert machine.cuda.closed
    session.close()


def test_a_closed_session_says_so(machine: FakeTensorrt) -> None:
    with opened(machine) as session:
        pass
    with pytest.raises(EngineError, match="is closed"):
        session(windows(1))


def test_tensorrt_is_gone_before_cuda_is(machine: FakeTensorrt) -> None:
    opened(machine).close()
    assert machine.gone == [("FakeContext", True), ("FakeEngine", True), ("FakeRuntime", True)]


@pytest.mark.parametrize("wrong", ["names", "kind", "memory"])
def test_tensorrt_is_gone_before_cuda_is_also_where_starting_failed(
    machine: FakeTensorrt, wrong: str
) -> None:
    with pytest.raises(EngineError):
        opened(machine, machine.plan(wrong=wrong))
    assert machine.cuda.closed
    assert {open_then for _, open_then in machine.gone} == {True}
    assert ("FakeEngine", True) in machine.gone


def test_tensorrt_is_gone_before_cuda_is_also_where_a_run_failed(machine: FakeTensorrt) -> None:
    with opened(machine) as session:
        machine.refuse_runs = True
        with pytest.raises(EngineError):
            session(windows(1))
    assert machine.gone == [("FakeContext", True), ("FakeEngine", True), ("FakeRuntime", True)]


def test_those_who_wait_are_served_before_it_ends(machine: FakeTensorrt) -> None:
    session = opened(machine)
    machine.go.clear()
    with ThreadPoolExecutor(4) as pool:
        busy = pool.submit(session, windows(1))
        wait_for(lambda: len(machine.batches) == 2)
        (last,) = asked(pool, session, [2])
        closing = pool.submit(session.close)
        wait_for(lambda: session._requests._refusal is not None)
        with pytest.raises(EngineError, match="is closed"):
            session(windows(1))
        machine.go.set()
        assert_right(busy.result(SOON_S), windows(1))
        assert_right(last.result(SOON_S), windows(2))
        closing.result(SOON_S)
    assert machine.cuda.closed


def test_a_session_that_nobody_refers_to_ends_by_itself(machine: FakeTensorrt) -> None:
    before = owners()
    session = opened(machine)
    gone = weakref.ref(session)
    cycle = [session]
    cycle.append(cycle)  # type: ignore[arg-type]
    del session, cycle
    gc.collect()
    assert gone() is None
    assert owners() == before
    assert machine.cuda.closed


def test_a_program_that_forgets_to_close_ends_well() -> None:
    program = """
from tests.edge.gpu.test_session import BINS, FRAMES, FakeTensorrt, graph, opened, windows
machine = FakeTensorrt(graph, FRAMES, BINS)
session = opened(machine)
session(windows(3))
import atexit
atexit._run_exitfuncs()
assert machine.cuda.closed
print("closed")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


# Failures


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (b"not a plan", "truncated or not an engine"),
        (b"", "truncated or not an engine"),
        (b'{"batch": 4, "wrong": "memory"}', "too little free memory"),
        (b'{"batch": 4, "wrong": "names"}', "embedding, frames, output_0.*mmtl build-engine"),
        (b'{"batch": 4, "wrong": "kind"}', "expected float32"),
    ],
)
def test_a_plan_that_cannot_be_used_is_one_line_and_leaves_no_thread(
    machine: FakeTensorrt, plan: bytes, said: str
) -> None:
    before = owners()
    with pytest.raises(EngineError, match=said) as caught:
        opened(machine, plan)
    assert "\n" not in str(caught.value)
    assert owners() == before


def test_a_runtime_that_does_not_start_is_explained(
    machine: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def null(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(machine, "Runtime", null)
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        opened(machine)
    assert machine.cuda.closed


def test_a_gpu_that_cannot_be_opened_is_an_engine_error(machine: FakeTensorrt) -> None:
    def no_gpu() -> NumpyCuda:
        raise EngineError("pycuda cannot be used here")

    with pytest.raises(EngineError, match="pycuda cannot be used here"):
        TensorrtSession(machine.plan(), tensorrt=machine, open_cuda=no_gpu)


def test_without_tensorrt_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="TensorRT"):
        TensorrtSession(b"", open_cuda=NumpyCuda)


def test_what_nobody_foresaw_is_an_engine_error_too(machine: FakeTensorrt) -> None:
    def fail(frames: Array) -> EngineOutput:
        if frames.any():
            raise RuntimeError("CUDA error 700:\nan illegal memory access")
        return graph(frames)

    machine.graph = fail
    with opened(machine) as session, pytest.raises(EngineError, match="error 700: an illegal memory"):
        session(windows(1))


@pytest.mark.parametrize("how", ["lost", "refuse_runs"])
def test_after_a_failure_every_call_fails_at_once(machine: FakeTensorrt, how: str) -> None:
    with opened(machine) as session:
        session(windows(1))
        setattr(machine.cuda if how == "lost" else machine, how, True)
        for _ in range(3):
            with pytest.raises(EngineError):
                session(windows(9))
        assert len(machine.batches) == 2


def test_a_failure_reaches_everybody_who_waits(machine: FakeTensorrt) -> None:
    with opened(machine) as session, ThreadPoolExecutor(8) as pool:
        machine.go.clear()
        busy = pool.submit(session, windows(1))
        wait_for(lambda: len(machine.batches) == 2)
        futures = [busy, *asked(pool, session, [4, 1, 2, 4])]
        machine.cuda.lost = True
        machine.go.set()
        errors = [future.exception(SOON_S) for future in futures[1:]]
        assert [type(error) for error in errors] == [EngineError] * 4
        assert len({id(error) for error in errors}) == 4, "a shared error would collect everybody's traceback"


def test_a_gpu_that_hangs_is_given_up_and_asked_no_more(machine: FakeTensorrt) -> None:
    session = opened(machine, slice_s=0.02)
    machine.go.clear()
    with pytest.raises(EngineError, match=r"has not answered for 0\.06 s"):
        session(windows(1))
    with pytest.raises(EngineError, match="has not answered"):
        session(windows(1))
    machine.go.set()
    session.close()
    assert machine.cuda.closed


def test_threads_that_ask_while_the_gpu_is_lost_all_learn_of_it(machine: FakeTensorrt) -> None:
    with opened(machine) as session:

        def client(seed: int) -> int:
            for turn in range(10_000):
                frames = windows(1 + seed % 3, seed=turn)
                try:
                    assert_right(session(frames), frames)
                except EngineError:
                    return turn
            raise AssertionError("the GPU was never lost")

        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(client, seed) for seed in range(6)]
            wait_for(lambda: len(machine.batches) > 20)
            machine.cuda.lost = True
            for done in clients:
                assert done.result(SOON_S) >= 0
