"""The signals that ask a program to end: Ctrl-C, SIGTERM, and SIGHUP when its terminal is closed."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

Handler = Callable[[int, "FrameType | None"], Any] | signal.Handlers

ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
AGAIN_S: Final = 0.02
"""From one attempt to interrupt an import to the next."""


def handle(handler: Handler) -> dict[signal.Signals, Any]:
    """Handle the ending signals; return the handlers before. SIGHUP stays ignored under nohup."""
    return {
        number: signal.signal(number, handler)
        for number in ENDING
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    }


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Handle the ending signals inside; put the handlers from before back after."""
    before = handle(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as a signal handler; not amid an import, but as soon as that is over.

    Inside an import it would be lost: `importlib` and many modules catch what is raised there.
    """
    if _importing(frame):
        threading.Timer(AGAIN_S, signal.raise_signal, [number]).start()
    else:
        raise KeyboardInterrupt


def leave_with(code: int) -> None:
    """Let a signal end the program at once from here on, or not at all while Python itself is ending."""
    handle(lambda number, frame: os._exit(code))
    atexit.register(handle, signal.SIG_IGN)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
