"""Ctrl-C is handled while the main thread waits for another, even just before the wait."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from edge.system.futures import interruptible_result


def test_it_is_the_result() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert interruptible_result(pool.submit(_slow)) == 7


def test_a_failure_is_raised_even_a_time_out_of_its_own() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(TimeoutError, match="own"):
        interruptible_result(pool.submit(_fail))


def test_a_signal_that_interrupts_no_system_call_ends_the_wait() -> None:
    def interrupt() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    never: Future[None] = Future()
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible_result(never)
    thread.join()


def _slow() -> int:
    time.sleep(0.25)
    return 7


def _fail() -> None:
    raise TimeoutError("its own")
