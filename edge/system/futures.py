"""Waiting for another thread's result on the main thread, interruptible by Ctrl-C."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import Final, TypeVar

LOOK_UP_S: Final = 0.1
"""Longest delay until a signal is handled."""

Result = TypeVar("Result")


def interruptible_result(future: Future[Result]) -> Result:
    """Return what `future.result()` returns, or raise what it raises; Ctrl-C ends the wait at any time.

    A signal that arrives just before a wait for a lock does not interrupt it, and Python handles it only
    afterwards. So no single wait is longer than `LOOK_UP_S`.

    Raises:
        KeyboardInterrupt: Ctrl-C; the work behind the future goes on.
    """
    while not wait([future], LOOK_UP_S).done:
        pass
    return future.result()
