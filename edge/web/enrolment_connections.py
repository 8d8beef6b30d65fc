"""Browsers that make a profile: their messages to an `Enrolment`, in a thread for each."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from edge.server.client_session import Worker
from edge.server.rate_limits import QuietLog
from edge.server.websocket_transport import LimitedConnection
from edge.web.enrolment import Enrolment, EnrolmentService

MOST_SESSIONS: Final = 2
"""Most browsers at a time; each records or fits in a thread of its own."""
IDLE_S: Final = 600.0
"""Time without a request after which a browser is disconnected: the tab was left open."""
UNREAD_S: Final = 10.0
"""Time that a browser may take to read an answer."""


class EnrolmentConnections:
    """Serves the browsers that make profiles. All of it runs in the event loop but for their work."""

    def __init__(
        self,
        service: EnrolmentService,
        saved: Callable[[], None],
        log: QuietLog,
        idle_s: float = IDLE_S,
    ) -> None:
        """Prepare.

        Args:
            service: makes the profiles.
            saved: called once a profile was written, in the thread of its session.
            log: takes errors that were not expected.
            idle_s: time without a request after which a browser is disconnected.
        """
        self._service, self._saved, self._log, self._idle_s = service, saved, log, idle_s
        self._open = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask all sessions to end."""
        self._stopping.set()

    async def serve(self, connection: LimitedConnection) -> None:
        """Serve a browser that was admitted, until it leaves, is idle, or the server stops."""
        if self._open >= MOST_SESSIONS:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many sessions: try again later")
            return
        self._open += 1
        worker, enrolment = Worker(), self._service.open(self._saved)
        try:
            with contextlib.suppress(ConnectionClosed, asyncio.TimeoutError):
                async for message in self._messages(connection):
                    await _answer(connection, worker, enrolment, message)
                await connection.close(CloseCode.GOING_AWAY, "the session ended")
        except Exception as error:  # noqa: BLE001 - an error of one session must not stop the server
            self._log.note("enrol", f"enrolment failed: {type(error).__name__}: {error}")
            await connection.close(CloseCode.INTERNAL_ERROR, "the device failed")
        finally:
            try:
                await asyncio.shield(worker.do(enrolment.close))
            finally:
                worker.close()
                self._open -= 1

    async def _messages(self, connection: LimitedConnection) -> AsyncIterator[str | bytes]:
        """Yield what the browser sends, until it is idle or the server stops."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        requested_s = time.monotonic()
        try:
            while (left_s := requested_s + self._idle_s - time.monotonic()) > 0.0:
                receiving = asyncio.ensure_future(connection.recv())
                await asyncio.wait({receiving, stopping}, timeout=left_s, return_when="FIRST_COMPLETED")
                if not receiving.done() or stopping.done():
                    receiving.cancel()
                    with contextlib.suppress(ConnectionClosed, asyncio.CancelledError):
                        await receiving
                    return
                message = receiving.result()
                if isinstance(message, str):
                    requested_s = time.monotonic()
                yield message
        finally:
            stopping.cancel()


async def _answer(
    connection: LimitedConnection, worker: Worker, enrolment: Enrolment, message: str | bytes
) -> None:
    replies = enrolment.take(message)
    while (reply := await worker.do(functools.partial(next, replies, None))) is not None:
        await asyncio.wait_for(connection.send(reply), UNREAD_S)
