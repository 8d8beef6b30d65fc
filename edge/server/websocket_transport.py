"""The WebSocket transport of the server: checks in the handshake, and limits on what a client sends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response

from edge.output.text import printable
from edge.server.access import Access, Address
from edge.server.rate_limits import MOST_UNSENT, FrameBudget, Limits, QuietLog
from edge.server.transport import HANDSHAKE_S, Channel, GoneError, Listener, peer_name

LARGEST_MESSAGE: Final = 2**18
"""Most bytes of a message: 8 s at 16 kHz."""
SLICE: Final = 4_096
"""Bytes parsed at once: at most about 700 frames, each of which may need an answer."""
ABORT_S: Final = 1.0
"""Time for a client that broke a limit to read why and to close the connection."""
MOST_DISCARDED: Final = 2**20
"""Most bytes that it may send in this time; they are read and discarded."""
WITHOUT_SOUND: Final = {Opcode.PING, Opcode.PONG, Opcode.CONT}


class LimitedConnection(ServerConnection):
    """A connection that is closed if the client sends too many frames without sound, or does not read.

    The library answers each ping at once, whether or not the client reads the answers.
    """

    broken_rule = ""
    """Reason for which the connection was closed; empty if it was not."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Create the frame budget."""
        super().connection_made(transport)
        self._budget = FrameBudget()
        self._discarded = 0

    def data_received(self, data: bytes) -> None:
        """Parse bytes a few frames at a time, until a limit is broken."""
        for start in range(0, len(data), SLICE):
            if self.broken_rule:
                self._discard(len(data) - start)
                return
            super().data_received(data[start : start + SLICE])
            if self.transport.get_write_buffer_size() > MOST_UNSENT:
                self._refuse(f"does not read: {MOST_UNSENT} bytes wait for it")

    def process_event(self, event: Any) -> None:
        """Process a request or a frame."""
        if isinstance(event, Frame) and (event.opcode in WITHOUT_SOUND or not event.data):
            if self.broken_rule:
                return
            if not self._budget.spend(self.loop.time()):
                self._refuse("sends too many pings, empty messages or fragments")
                return
        super().process_event(event)

    def _refuse(self, rule: str) -> None:
        self.broken_rule = rule
        self.protocol.fail(CloseCode.POLICY_VIOLATION, rule)
        self.send_data()
        # Closing with unread bytes would reset the connection, and the client would not learn why.
        self.transport.resume_reading()
        self.loop.call_later(ABORT_S, self.transport.abort)

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > MOST_DISCARDED:
            self.transport.abort()


class WebSocketChannel:
    """Binary messages of raw sound in, one message per event out. `{"end": true}` ends the stream."""

    def __init__(self, connection: LimitedConnection) -> None:
        self._connection = connection
        self.name = f"websocket {peer_name(connection.remote_address)}"
        assert connection.request is not None
        self.rate = _query(connection.request, "rate")
        self.channels = _query(connection.request, "channels")
        self.token = _offered_token(connection.request)

    async def receive(self) -> bytes | str | None:
        """Return a message."""
        try:
            return await self._connection.recv()
        except ConnectionClosedOK:
            return None
        except ConnectionClosed as error:
            raise GoneError(self._connection.broken_rule) from error

    async def send(self, line: str) -> None:
        """Send a message."""
        try:
            await self._connection.send(line)
        except ConnectionClosed as error:
            raise GoneError(self._connection.broken_rule) from error

    async def close(self, within_s: float) -> None:
        """Close the connection; read on, since the client's close frame follows its data."""
        reading = asyncio.ensure_future(self._discard())
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._connection.close(), within_s)
        finally:
            reading.cancel()
            self._connection.transport.abort()

    async def _discard(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._connection.recv()


async def listen_websocket(
    address: Address,
    access: Access,
    handle: Callable[[Channel], Awaitable[None]],
    limits: Limits,
    log: QuietLog,
) -> Listener:
    """Accept WebSocket clients.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def accepted(connection: ServerConnection) -> None:
        assert isinstance(connection, LimitedConnection)
        await handle(WebSocketChannel(connection))

    def screen(connection: ServerConnection, request: Request) -> Response | None:
        return _screened(connection, request, access, log)

    server = await open_websocket(address, access, accepted, screen, limits)
    port = next(iter(server.sockets)).getsockname()[1]
    return Listener(port, functools.partial(server.close, close_connections=False))


async def open_websocket(
    address: Address,
    access: Access,
    accepted: Callable[[ServerConnection], Awaitable[None]],
    screen: Callable[[ServerConnection, Request], Response | None],
    limits: Limits,
) -> Server:
    """Open a port for WebSockets with the limits on what a client sends.

    Args:
        address: to listen on.
        access: its certificate and key.
        accepted: serves a connection; its connections are `LimitedConnection`s.
        screen: answers a request that is refused, or that is no WebSocket's; None lets it through.
        limits: time-outs.

    Raises:
        OSError: the address cannot be listened on.
    """
    return await serve(
        accepted,
        address.host,
        address.port,
        process_request=screen,
        create_connection=LimitedConnection,
        compression=None,
        max_size=LARGEST_MESSAGE,
        max_queue=2,
        open_timeout=HANDSHAKE_S,
        ping_timeout=limits.idle_s,
        close_timeout=limits.goodbye_s,
        logger=_silent_logger(),
        ssl=access.tls,
        ssl_handshake_timeout=HANDSHAKE_S if access.tls else None,
    )


def _screened(
    connection: ServerConnection, request: Request, access: Access, log: QuietLog
) -> Response | None:
    """Refuse web pages of other origins, and a wrong token."""
    origins = request.headers.get_all("Origin")
    if not access.admits_page(origins):
        page = printable(" and ".join(origins)[:80])
        log.note("origin", f"a web page from {page} was refused: --origin {page} would allow it")
        return connection.respond(403, "The server does not accept web pages of this origin.\n")
    return refusal(connection, request, access, log)


def refusal(connection: ServerConnection, request: Request, access: Access, log: QuietLog) -> Response | None:
    """Refuse a wrong token; a token may also follow in the first message."""
    token = _offered_token(request)
    if token is not None and not access.admits(token):
        log.note("token", f"websocket {peer_name(connection.remote_address)}: refused, its token is wrong")
        return connection.respond(401, "The token is wrong.\n")
    return None


def _offered_token(request: Request) -> str | None:
    """Return the token from the header "Authorization: Bearer TOKEN", or else from the query."""
    for value in request.headers.get_all("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
    return _query(request, "token")


def _query(request: Request, name: str) -> str | None:
    return parse_qs(request.path.partition("?")[2], keep_blank_values=True).get(name, [None])[-1]


def _silent_logger() -> logging.Logger:
    """Return a disabled logger: failed handshakes are not worth a log line."""
    logger = logging.getLogger("edge.server.server.websockets")
    logger.propagate = False
    logger.disabled = True
    return logger
