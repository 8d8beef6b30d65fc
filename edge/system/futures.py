"""Waiting for a thread's result on the main thread, so that Ctrl-C is heard."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import Final, TypeVar

LOOK_UP_S: Final = 0.1
"""Longest time until a signal is noticed."""

Result = TypeVar("Result")


def interruptible_result(future: Future[Result]) -> Result:
    """Return what `future.result()` returns, or raise what it raises; Ctrl-C ends the wait at any time.

    A signal that arrives just before a lock is waited for does not interrupt that wait, and Python
    handles it only afterwards: so no wait is longer than `LOOK_UP_S`.

    Raises:
        KeyboardInterrupt: Ctrl-C; what the future stands for goes on.
    """
    while not wait([future], LOOK_UP_S).done:
        pass
    return future.result()
