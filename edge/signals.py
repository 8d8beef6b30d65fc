"""The signals that ask a program to end: Ctrl-C, SIGTERM, and SIGHUP when its terminal is closed."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

Handler = Callable[[int, "FrameType | None"], Any]

ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
TOGETHER_S: Final = 0.5
"""Signals that are not further apart are one request."""
AGAIN_S: Final = 0.02
"""From a signal that was put off to the next attempt."""


def taken() -> list[signal.Signals]:
    """List the ending signals to handle: under nohup SIGHUP stays ignored."""
    return [
        number
        for number in ENDING
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]


def handle(handler: Handler | signal.Handlers) -> dict[signal.Signals, Any]:
    """Handle the ending signals; return the handlers before."""
    return {number: signal.signal(number, handler) for number in taken()}


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Handle the ending signals inside; put the handlers from before back after."""
    before = handle(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class Request:
    """Whether the program was asked to end.

    `timeout` and a closing terminal send two signals at once: that is one request.
    """

    def __init__(self) -> None:
        self._asked_s: float | None = None

    def __bool__(self) -> bool:
        return self._asked_s is not None

    def repeated(self) -> bool:
        """Note a signal; tell whether it repeats one that was sent at the same time."""
        now_s, before_s = time.monotonic(), self._asked_s
        if before_s is not None and now_s - before_s < TOGETHER_S:
            return True
        self._asked_s = now_s
        return False


def interrupter() -> Handler:
    """Return a handler that raises KeyboardInterrupt."""
    request = Request()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not put_off(number, frame) and not request.repeated():
            raise KeyboardInterrupt

    return interrupt


def put_off(number: int, frame: FrameType | None) -> bool:
    """Let a signal come again if it came amid an import; tell whether it did.

    What a handler raises there would be lost: `importlib` and many modules catch it.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            threading.Timer(AGAIN_S, signal.raise_signal, [number]).start()
            return True
        frame = frame.f_back
    return False


def leave_with(code: int) -> None:
    """Let a signal end the program at once from here on, or not at all while Python itself is ending."""
    handle(lambda number, frame: os._exit(code))
    atexit.register(handle, signal.SIG_IGN)
