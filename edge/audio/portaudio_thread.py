"""Calls to PortAudio, made one after the other on a daemon thread of their own.

A call does not return while the sound server is frozen, and Python runs no signal handler while the main
thread is inside it. Here the caller waits with a time-out, and a signal interrupts the wait.
"""

from __future__ import annotations

import atexit
import functools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from edge.errors import DeviceError
from edge.system import signals

T = TypeVar("T")

CALL_TIMEOUT_S: Final = 10.0
"""Longest call: listing devices on a small machine, or opening a Bluetooth headset, takes seconds."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Longest call once the program is ending."""


class FrozenServerError(DeviceError):
    """The sound server, or a driver, does not answer."""


def call(work: Callable[[], T], timeout_s: float | None = None) -> T:
    """Run a call on PortAudio's thread; return its result or raise its error.

    Args:
        work: makes the call.
        timeout_s: longest wait, > 0; `CALL_TIMEOUT_S` by default.

    Raises:
        FrozenServerError: the call did not return in time, or within `CLOSE_TIMEOUT_S` of a signal.
        KeyboardInterrupt: a signal came, and the call has returned.
    """
    if threading.current_thread() is _thread():  # nested in another call
        return work()
    future = submit(work)
    try:
        wait([future], CALL_TIMEOUT_S if timeout_s is None else timeout_s)
    except KeyboardInterrupt as interrupt:
        wait([future], CLOSE_TIMEOUT_S)
        if not future.done():
            signals.mark_caught(interrupt)
            raise _frozen(future) from interrupt
        raise
    if not future.done():
        raise _frozen(future)
    return future.result()


def submit(work: Callable[[], T]) -> Future[T]:
    """Queue a call behind the earlier ones, without waiting."""
    future: Future[T] = Future()
    _thread()
    _CALLS.put((future, work))
    return future


_CALLS: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()


@functools.cache
def _thread() -> threading.Thread:
    thread = threading.Thread(target=_answer_calls, name="portaudio", daemon=True)
    thread.start()
    return thread


def _answer_calls() -> None:
    while True:
        future, work = _CALLS.get()
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is read
            future.set_exception(error)


def _frozen(future: Future[Any]) -> FrozenServerError:
    """Cancel a call, and sounddevice's call at the program's end, which would wait for ever."""
    future.cancel()
    atexit.unregister(getattr(sys.modules.get("sounddevice"), "_exit_handler", call))
    return FrozenServerError(
        "the sound server does not answer",
        remedy="restart it (systemctl --user restart pipewire-pulse, or pulseaudio -k), then start again",
    )
