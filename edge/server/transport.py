"""The transport between the server and one client, and its TCP form: sound in, events out.

`edge.server.websocket_transport` holds the WebSocket form.
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
"""What a client may say beside sound."""
READ_AT_ONCE: Final = 2**15
"""Bytes read from TCP at once: 1 s at 16 kHz."""
LONGEST_HEADER: Final = 1_024
"""Bytes of a line of JSON with which a TCP client may begin."""
LINGER_S: Final = 1.0
"""After the last event, for a client that neither sends nor hangs up."""
HANDSHAKE_S: Final = 5.0
"""For TLS and WebSocket handshakes."""
HTTP_REQUESTS: Final = (
    *(b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"TRAC", b"PRI "),
)
"""How HTTP requests begin: any web page can make a browser send one to any port."""


class GoneError(Exception):
    """The client has left, or no longer reads: there is nobody to tell. The message says more, if known."""


class RefusedError(Exception):
    """The client is not served.

    Args:
        kind: names the trouble for `edge.server.rate_limits.QuietLog`.
        line: says it to whoever runs the server.
        answer: says it to the client.
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
    """Hz that the client asked for in connecting, if it did; not checked."""
    channels: str | None
    """How many the client said in connecting that its sound has, if it did; not checked."""
    token: str | None
    """What the client presented in connecting, if it did; not checked."""

    async def receive(self) -> bytes | str | None:
        """Return the next sound, or a line of JSON about it; None when the client has ended the stream.

        Raises:
            GoneError: the client has left.
            RefusedError: what came is not from a client of ours.
            MmtlError: what came cannot be used.
        """

    async def send(self, line: str) -> None:
        """Send an event, waiting for a client that is slow to read.

        Raises:
            GoneError: the client has left.
        """

    async def close(self, within_s: float) -> None:
        """Hang up once the client has what was sent, at the latest after some seconds; never fails."""


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
        """Return sound, or one of the lines of JSON that the stream may begin with."""
        try:
            if self._sound:
                return await self._reader.read(READ_AT_ONCE) or None
            return await self._first()
        except OSError as error:
            raise GoneError from error

    async def _first(self) -> bytes | str | None:
        """Return a line of the header, told from sound by its first two bytes, or else the first sound."""
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
            raise UsageError(f"the first line is not complete: {HEADER}") from error
        if len(rest) > LONGEST_HEADER:
            raise UsageError(f"the first line has {len(rest)} bytes: {HEADER}")
        return (start + rest).decode("utf-8", "replace")

    async def _start(self) -> bytes:
        """Return as many bytes as tell a header, a request or a sound file from sound."""
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
        """Hang up."""
        try:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._hang_up(), within_s)
        finally:
            self._writer.transport.abort()

    async def _hang_up(self) -> None:
        """End the stream of events, and read what still comes: unread bytes would become a reset.

        A reset destroys what the client has not read yet.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
            with contextlib.suppress(asyncio.TimeoutError):
                while await asyncio.wait_for(self._reader.read(READ_AT_ONCE), LINGER_S):
                    pass
        self._writer.close()
        await self._writer.wait_closed()


async def listen_tcp(
    address: Address, access: Access, attend: Callable[[Channel], Awaitable[None]]
) -> Listener:
    """Accept TCP clients.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await attend(TcpChannel(reader, writer))

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
    return f"{address[0]}:{address[1]}" if address else "a client that has left"
