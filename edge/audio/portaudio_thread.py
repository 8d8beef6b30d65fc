"""PortAudio's calls, made one after the other on a daemon thread of their own.

A call never returns while the sound server is frozen, and no signal handler runs while the main thread
is inside one. Here the caller waits with a time-out, and a signal interrupts the wait.
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
"""Longest call: a small machine takes seconds to list its devices, a Bluetooth headset to open."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Longest call once the program is to end."""


class FrozenServerError(DeviceError):
    """The sound server, or a driver, does not answer."""


def call(work: Callable[[], T], answer_s: float | None = None) -> T:
    """Call PortAudio, and return or raise what comes of it.

    Args:
        work: makes the call.
        answer_s: longest wait, > 0; `CALL_TIMEOUT_S` by default.

    Raises:
        FrozenServerError: there was no answer in time, or none within `CLOSE_TIMEOUT_S` of a signal.
        KeyboardInterrupt: a signal came, and the call has been answered.
    """
    if threading.current_thread() is _thread():  # part of a call that is under way
        return work()
    future = submit(work)
    try:
        wait([future], CALL_TIMEOUT_S if answer_s is None else answer_s)
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
    """Have PortAudio called after the calls before it, without waiting."""
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
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
            future.set_exception(error)


def _frozen(future: Future[Any]) -> FrozenServerError:
    """Give up a call, and what sounddevice would call at the program's end, which would wait for ever."""
    future.cancel()
    atexit.unregister(getattr(sys.modules.get("sounddevice"), "_exit_handler", call))
    return FrozenServerError(
        "the sound server does not answer",
        remedy="restart it (systemctl --user restart pipewire-pulse, or pulseaudio -k), then start again",
    )
