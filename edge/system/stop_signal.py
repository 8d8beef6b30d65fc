"""A signal that ends the work at its next safe place, not within it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

from edge.system import signals

Stop = TypeVar("Stop", bound="StopSignal")


class StopSignal:
    """Notes the first Ctrl-C, SIGTERM or SIGHUP; a second one interrupts what is being done then.

    Inside `waiting` the first one interrupts too.
    """

    def __init__(self) -> None:
        self.number = 0
        """The first signal; 0 before it."""
        self._request = signals.StopRequest()
        self._waiting = False

    @contextlib.contextmanager
    def listening(self: Stop) -> Iterator[Stop]:
        """Handle the signals inside; put the old handlers back after."""
        with signals.signal_handlers(self._handle):
            yield self

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal interrupt the code inside; one that came before does so at once."""
        try:
            self._waiting = True
            if self._request:
                raise signals.Interrupt(signal.SIGINT, self._request, self._handle)
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        interrupting = self._waiting or bool(self._request)  # before this signal is noted
        self.number = self.number or number
        if not interrupting:
            self._request.repeated()
        elif not signals.defer(number, frame) and not self._request.repeated():
            raise signals.Interrupt(number, self._request, self._handle)
