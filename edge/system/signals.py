"""The signals that ask a program to end: Ctrl-C, SIGTERM, and SIGHUP when its terminal is closed."""

from __future__ import annotations

import atexit
import os
import signal
import sys
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
"""Signals within this time are one request."""
AGAIN_S: Final = 0.02
"""Delay until a deferred signal is raised again."""


def handled_signals() -> list[signal.Signals]:
    """List the ending signals to handle; under nohup, SIGHUP stays ignored."""
    return [
        number
        for number in ENDING
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]


def set_handlers(handler: Handler | signal.Handlers) -> dict[signal.Signals, Any]:
    """Set the handler of the ending signals; return the previous handlers."""
    return {number: signal.signal(number, handler) for number in handled_signals()}


@contextmanager
def signal_handlers(handler: Handler) -> Iterator[None]:
    """Handle the ending signals inside the block; restore the previous handlers after it."""
    before = set_handlers(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopRequest:
    """Whether the program was asked to end.

    `timeout` and a closing terminal send two signals at once; they count as one request.
    """

    def __init__(self) -> None:
        self._asked_s: float | None = None

    def __bool__(self) -> bool:
        return self._asked_s is not None

    def repeated(self) -> bool:
        """Record a signal; tell whether it belongs to the previous request."""
        now_s, before_s = time.monotonic(), self._asked_s
        if before_s is not None and now_s - before_s < TOGETHER_S:
            return True
        self._asked_s = now_s
        return False

    def forget(self) -> None:
        """Count the next signal as a new request."""
        self._asked_s = None


class Interrupt(KeyboardInterrupt):
    """A signal's KeyboardInterrupt, which is raised again if it is deleted before `mark_caught`.

    Python drops exceptions of a signal handler inside a finaliser or a callback from C, and a library with a
    bare `except` does so too.
    """

    def __init__(self, number: int, request: StopRequest, handler: Handler) -> None:
        super().__init__()
        self.number = number
        """The signal."""
        self.caught = False
        """Whether a handler has caught it; see `mark_caught`."""
        self._request = request
        self._handler = handler

    def __del__(self) -> None:
        if not self.caught and signal.getsignal(self.number) == self._handler:
            self._request.forget()
            _raise_again(self.number)


def mark_caught(interrupt: KeyboardInterrupt) -> None:
    """Do not raise an interrupt again: its handler ends the interrupted work."""
    if isinstance(interrupt, Interrupt):
        interrupt.caught = True


def hide_dropped_interrupts() -> None:
    """Print nothing when Python drops an `Interrupt`, which is raised again."""
    earlier = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Interrupt):
            earlier(dropped)

    sys.unraisablehook = hook


def interrupt_handler() -> Handler:
    """Return a handler that raises an `Interrupt`."""
    request = StopRequest()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not defer(number, frame) and not request.repeated():
            raise Interrupt(number, request, interrupt)

    return interrupt


def defer(number: int, frame: FrameType | None) -> bool:
    """Raise a signal again later if it arrived at a bad moment; tell whether it did.

    Bad moments are an import, where `importlib` and many modules catch the handler's exception, and the
    blocks of `interrupts_deferred`.
    """
    if _DEFERRING or _importing(frame):
        _raise_again(number)
        return True
    return False


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Raise an `Interrupt` that comes inside the block at its end.

    For short work that must be whole, and for functions in C that call Python back: they cannot pass an
    exception on, and libsndfile takes one for the end of its file. Signal handlers run in the main thread;
    in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    block = object()
    _DEFERRING.append(block)
    try:
        yield
    finally:
        _DEFERRING.remove(block)
        if not _DEFERRING:
            wait_for_deferred()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def wait_for_deferred() -> None:
    """Wait until every deferred signal was raised again; during an import, which defers them all, do not.

    Raises:
        KeyboardInterrupt: by the handler of such a signal.
    """
    while _TIMERS and not _importing(sys._getframe()):
        _TIMERS.pop().join()


_TIMERS: Final[list[threading.Timer]] = []
"""Each raises a signal again."""
_DEFERRING: Final[list[object]] = []
"""The blocks of `interrupts_deferred` that are running."""


def _raise_again(number: int) -> None:
    timer = threading.Timer(AGAIN_S, _interrupt_main_thread, [number])
    timer.daemon = True
    timer.start()
    _TIMERS[:] = [earlier for earlier in _TIMERS if earlier.is_alive()] + [timer]


def _interrupt_main_thread(number: int) -> None:
    """Send a signal to the main thread, where it ends a wait too: sent to another thread, it would not."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def exit_on_signal(code: int) -> None:
    """From here on, end the program at once on a signal; ignore signals while the interpreter shuts down."""
    set_handlers(lambda number, frame: os._exit(code))
    atexit.register(set_handlers, signal.SIG_IGN)
