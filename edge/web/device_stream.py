"""The device's own microphone through one recogniser, started and stopped by the viewers."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

from edge.audio.block import Source
from edge.audio.microphone import Microphone
from edge.errors import MmtlError
from edge.events import Error, Event
from edge.recognition.stream_session import StreamSession

if TYPE_CHECKING:
    from edge.model.profile import Profile
    from edge.recognition.recognizer import Recognizer

LEVEL_S: Final = 0.1
"""Shortest time between two levels."""

State = Literal["off", "starting", "on", "stopping"]


class Listener(Protocol):
    """Takes what the stream says; called in its thread."""

    def began(self) -> None:
        """Take the beginning of a new stream."""

    def said(self, events: Sequence[Event]) -> None:
        """Take events."""

    def level(self, heard_s: float, level_dbfs: float) -> None:
        """Take the duration heard so far, and the level of the newest block in dBFS."""

    def changed(self) -> None:
        """Take a change of the state or the profile."""

    def refused(self, message: str) -> None:
        """Take the reason why a request could not be met; the stream goes on."""


class DeviceStream:
    """Recognises the device's source while it is on.

    `run` is called in one thread only; the other methods in the event loop. Remembers the state, and the
    profile that was chosen last.
    """

    def __init__(
        self,
        make: Callable[[], Recognizer],
        open_source: Callable[[], Source],
        find: Callable[[str], Profile],
    ) -> None:
        """Prepare; the source is opened by `run`.

        Args:
            make: makes a recogniser, with the profile that the operator chose.
            open_source: makes the source.
            find: loads a profile by its name.
        """
        self._make = make
        self._open_source = open_source
        self._find = find
        self._source: Source | None = None
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self.state: State = "off"
        self.profile: str | None = None
        """Name that a viewer chose; None: as the server was started."""

    def request_start(self) -> bool:
        """Reserve the stream; return whether `run` is to be called."""
        if self.state != "off":
            return False
        self.state = "starting"
        self._ending.clear()
        return True

    def request_stop(self) -> None:
        """Ask the stream to end; it does so after the current block."""
        if self.state == "off":
            return
        opened = self.state == "on"
        self._ending.set()
        self.state = "stopping"
        if opened and isinstance(self._source, Microphone):  # which may wait for an unplugged device
            threading.Thread(target=self._close_microphone, args=(self._source,), daemon=True).start()

    @staticmethod
    def _close_microphone(source: Microphone) -> None:
        with contextlib.suppress(MmtlError):
            source.__exit__()

    def request_profile(self, name: str | None) -> None:
        """Choose a profile for the stream, from the next block on, and for those after it."""
        if self.state == "off":
            self.profile = name
        else:
            self._wanted.put(name)

    def run(self, listener: Listener) -> None:
        """Recognise the source until it ends or `request_stop`. Errors become events."""
        try:
            listener.began()
            listener.changed()
            self._recognise(listener)
        except MmtlError as error:
            listener.said([Error(str(error))])
        except Exception as error:  # noqa: BLE001 - the server goes on
            listener.said([Error(f"unexpected: {type(error).__name__}: {error}")])
        finally:
            self._source = None
            self.state = "off"
            listener.changed()

    def _recognise(self, listener: Listener) -> None:
        recognizer = self._make()
        if self.profile is not None and self._wanted.empty():
            self._wanted.put(self.profile)
        own = recognizer.profile
        with self._open_source() as source:
            self._source = source
            session = StreamSession(recognizer, source.name, live=source.live)
            self._switch(session, own, listener)
            listener.said([session.begin()])
            if not self._ending.is_set():
                self.state = "on"
            listener.changed()
            try:
                self._feed(session, source, functools.partial(self._switch, session, own), listener)
            finally:
                events, summary = session.finish()
                listener.said([*events, summary])

    def _feed(
        self,
        session: StreamSession,
        source: Source,
        switch: Callable[[Listener], bool],
        listener: Listener,
    ) -> None:
        recognizer, shown_s = session.recognizer, 0.0
        for block in source:
            if self._ending.is_set():
                return
            if switch(listener):
                listener.said([session.begin()])
                listener.changed()
            if events := session.feed(block):
                listener.said(events)
            now_s = time.monotonic()
            if now_s - shown_s >= LEVEL_S:
                shown_s = now_s
                listener.level(recognizer.heard_s, recognizer.level_dbfs)

    def _switch(self, session: StreamSession, own: Profile | None, listener: Listener) -> bool:
        """Apply the profile that was asked for last; return whether there was one. A bad one is an event."""
        name, asked = None, False
        with contextlib.suppress(queue.Empty):
            while True:
                name, asked = self._wanted.get_nowait(), True
        if not asked:
            return False
        try:
            profile = own if name is None else self._find(name)
            events = session.recognizer.switch_profile(profile)
        except MmtlError as error:
            listener.refused(str(error))
            if session.recognizer.profile is own:
                self.profile = None
            return False
        self.profile = name
        if session.recognizer.heard_s > 0:
            listener.said(events)
        return True
