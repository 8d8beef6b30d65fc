"""The device's events on their way to the viewers. All of it runs in the server's event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

HISTORY_S: Final = 600.0
"""Time for which events are remembered, for viewers that come later."""
MOST_REMEMBERED: Final = 10_000
"""Most events that are remembered: ten minutes at a step of 80 ms."""
CHUNK: Final = 100
"""Remembered events in one message."""
MOST_QUEUED: Final = 256
"""Messages that may wait for a viewer before it is dropped: about half a minute."""


class Viewer:
    """The messages that wait for one viewer."""

    def __init__(self, drop: Callable[[], None]) -> None:
        """Begin without messages.

        Args:
            drop: breaks the connection; called once, if the viewer reads too slowly.
        """
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._drop = drop
        self._dropped = False

    def put(self, message: str) -> None:
        """Queue a message; never waits. A viewer for which too many wait is dropped."""
        if self._queue.qsize() < MOST_QUEUED:
            self._queue.put_nowait(message)
        elif not self._dropped:
            self._dropped = True
            self._drop()

    def end(self) -> None:
        """Queue the end."""
        self._queue.put_nowait(None)

    async def get(self) -> str | None:
        """Wait for the next message; None is the end."""
        return await self._queue.get()


class Hub:
    """Passes messages to all viewers, and what they missed to those that come later.

    Remembers the events of the last ten minutes, in memory only; `begin` forgets them. A viewer that does not
    read is dropped: the others never wait for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._session = ""
        self._remembered: deque[tuple[float, str]] = deque(maxlen=MOST_REMEMBERED)
        self.viewers: set[Viewer] = set()

    def begin(self) -> None:
        """Forget the stream before."""
        self._session = ""
        self._remembered.clear()

    def publish(self, events: Sequence[str], *, session: bool = False) -> None:
        """Pass on events, each a line of JSON, and remember them.

        Args:
            events: the lines.
            session: whether the last of them describes the stream: it is remembered for as long as the
                stream lasts.
        """
        now_s = self._clock()
        if session:
            self._session = events[-1]
        self._remembered += [(now_s, event) for event in events]
        while self._remembered and self._remembered[0][0] < now_s - HISTORY_S:
            self._remembered.popleft()
        for event in events:
            self.pass_on(event)

    def pass_on(self, message: str) -> None:
        """Pass on a message that nobody needs later."""
        for viewer in self.viewers:
            viewer.put(message)

    def history(self) -> Iterator[str]:
        """Yield what a new viewer has missed: JSON arrays of events, oldest first."""
        events = [event for _, event in self._remembered]
        if self._session and self._session not in events:
            events.insert(0, self._session)
        for start in range(0, len(events), CHUNK):
            yield f"[{','.join(events[start : start + CHUNK])}]"
