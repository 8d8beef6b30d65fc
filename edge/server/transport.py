"""The transport between the server and one client, and its TCP implementation: sound in, events out.

The WebSocket implementation is in `edge.server.websocket_transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edge.audio.pcm_decoder import EXPECTED, REMEDIES
from edge.errors import UsageError
from edge.file_formats.signatures import NETWORK
from edge.server.access import Access, Address

HEADER: Final = (
    '{"rate": HZ, "channels": N, "profile": "NAME"} or some of them before any sound, '
    'or {"end": true} after it'
)
"""JSON that a client may send besides sound, for messages."""
READ_AT_ONCE: Final = 2**15
"""Most bytes read from TCP at once: 1 s at 16 kHz."""
LONGEST_HEADER: Final = 1_024
"""Most bytes of a JSON line at the start of a TCP stream."""
LINGER_S: Final = 1.0
"""Time after the last event for a client that neither sends nor closes the connection."""
HANDSHAKE_S: Final = 5.0
"""Time-out of TLS and WebSocket handshakes."""
HTTP_REQUESTS: Final = (
    *(b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"TRAC", b"PRI "),
)
"""First bytes of HTTP requests: any web page can make a browser send one to any port."""


class GoneError(Exception):
    """The client has disconnected, or no longer reads. The message gives the reason, if known."""


class RefusedError(Exception):
    """The client is not served.

    Args:
        kind: the kind of event for `edge.server.rate_limits.QuietLog`.
        line: log line for the operator.
        answer: message for the client.
    """

    def __init__(self, kind: str, line: str, answer: str) -> None:
        super().__init__(line)
        self.kind = kind
        self.answer = answer


@dataclass(frozen=True)
class Listener:
    """An open port."""

    port: int
    close: Callable[[], None]
    """Accept no more clients; those that are connected stay."""


class Channel(Protocol):
    """The transport of one client."""

    name: str
    rate: str | None
    """Sample rate in Hz that the client gave on connecting; not checked."""
    channels: str | None
    """Number of channels that the client gave on connecting; not checked."""
    token: str | None
    """Token that the client presented on connecting; not checked."""

    async def receive(self) -> bytes | str | None:
        """Return the next sound, or a line of JSON; None when the client has ended the stream.

        Raises:
            GoneError: the client has disconnected.
            RefusedError: the data is of another protocol.
            MmtlError: the data is invalid.
        """

    async def send(self, line: str) -> None:
        """Send an event; wait for a client that reads slowly.

        Raises:
            GoneError: the client has disconnected.
        """

    async def close(self, within_s: float) -> None:
        """Close the connection once the client has read everything, at most after `within_s`; never fails."""


class TcpChannel:
    """Raw sound in, JSON Lines out. The client ends the stream by closing its sending side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._sound = False
        self.name = f"tcp {peer_name(writer.get_extra_info('peername'))}"
        self.rate: str | None = None
        self.channels: str | None = None
        self.token: str | None = None

    async def receive(self) -> bytes | str | None:
        """Return sound, or one of the JSON lines at the start of the stream."""
        try:
            if self._sound:
                return await self._reader.read(READ_AT_ONCE) or None
            return await self._first()
        except OSError as error:
            raise GoneError from error

    async def _first(self) -> bytes | str | None:
        """Return a JSON line, recognised by its first two bytes, or else the first sound."""
        start = await self._start()
        if start.startswith(HTTP_REQUESTS):
            line = f"{self.name}: an HTTP request was refused: a web page, or a wrong port?"
            answer = f"a network protocol arrived (HTTP), expected {EXPECTED}: {REMEDIES[NETWORK]}"
            raise RefusedError("http", line, answer)
        if not start.startswith(b'{"'):
            self._sound = True
            return start or None
        try:
            rest = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise UsageError(f"the first line is not complete, expected {HEADER}") from error
        if len(rest) > LONGEST_HEADER:
            raise UsageError(f"the first line has {len(rest)} bytes, expected {HEADER}")
        return (start + rest).decode("utf-8", "replace")

    async def _start(self) -> bytes:
        """Return the first four bytes, which tell a JSON line, a request or a sound file from raw sound."""
        try:
            return await self._reader.readexactly(4)
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def send(self, line: str) -> None:
        """Send a line."""
        try:
            self._writer.write(line.encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise GoneError from error

    async def close(self, within_s: float) -> None:
        """Close the connection."""
        try:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._hang_up(), within_s)
        finally:
            self._writer.transport.abort()

    async def _hang_up(self) -> None:
        """End the stream of events, and read what the client still sends.

        Closing with unread bytes would reset the connection, and discard what the client has not read yet.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
            with contextlib.suppress(asyncio.TimeoutError):
                while await asyncio.wait_for(self._reader.read(READ_AT_ONCE), LINGER_S):
                    pass
        self._writer.close()
        await self._writer.wait_closed()


async def listen_tcp(
    address: Address, access: Access, handle: Callable[[Channel], Awaitable[None]]
) -> Listener:
    """Accept TCP clients.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handle(TcpChannel(reader, writer))

    server = await asyncio.start_server(
        accepted,
        address.host,
        address.port,
        ssl=access.tls,
        ssl_handshake_timeout=HANDSHAKE_S if access.tls else None,
    )
    return Listener(server.sockets[0].getsockname()[1], server.close)


def peer_name(address: Any) -> str:
    """Return the address of a client as text."""
    return f"{address[0]}:{address[1]}" if address else "a disconnected client"
