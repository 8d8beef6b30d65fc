"""One client's line: TCP or WebSocket, sound in and events out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from edge.errors import UsageError

HEADER: Final = (
    '{"rate": HZ, "profile": "NAME"} or one of the two before any sound, or {"end": true} after it'
)
"""What a client may say beside sound."""
READ_AT_ONCE: Final = 2**15
"""Bytes read from TCP at once: 1 s at 16 kHz."""
LONGEST_HEADER: Final = 1_024
"""Bytes of the line of JSON with which a TCP client may begin."""


class GoneError(Exception):
    """The client has left, or no longer reads: there is nobody to tell."""


class Channel(Protocol):
    """One client's line."""

    name: str
    rate: str | None
    """Hz that the client asked for in connecting, if it did; not checked."""

    async def receive(self) -> bytes | str | None:
        """Return the next sound, or a line of JSON about it; None when the client has ended the stream.

        Raises:
            GoneError: the client has left.
            MmtlError: what came cannot be meant.
        """

    async def send(self, line: str) -> None:
        """Send an event, waiting for a client that is slow to read.

        Raises:
            GoneError: the client has left.
        """

    async def close(self) -> None:
        """Hang up; never fails."""


class TcpChannel:
    """Raw sound in, JSON Lines out. The client ends the stream by closing its sending side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._begun = False
        self.name = f"tcp {_peer(writer.get_extra_info('peername'))}"
        self.rate: str | None = None

    async def receive(self) -> bytes | str | None:
        """Return sound, or the line of JSON that the stream may begin with."""
        try:
            if self._begun:
                return await self._reader.read(READ_AT_ONCE) or None
            return await self._first()
        except OSError as error:
            raise GoneError from error

    async def _first(self) -> bytes | str | None:
        """Return the header, told from sound by its first two bytes, or else the first sound."""
        start = await self._start()
        self._begun = True
        if not start.startswith(b'{"'):
            return start or None
        try:
            rest = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise UsageError(f"the first line is not complete: {HEADER}") from error
        if len(rest) > LONGEST_HEADER:
            raise UsageError(f"the first line has {len(rest)} bytes: {HEADER}")
        return (start + rest).decode("utf-8", "replace")

    async def _start(self) -> bytes:
        """Return as many bytes as tell a header or a sound file from sound."""
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

    async def close(self) -> None:
        """Hang up; what is written but not yet taken has a moment to leave."""
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            self._writer.close()
            await asyncio.wait_for(self._writer.wait_closed(), 1.0)
        self._writer.transport.abort()


class WebSocketChannel:
    """Binary messages of raw sound in, an event a message out. `{"end": true}` ends the stream."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.name = f"websocket {_peer(connection.remote_address)}"
        query = parse_qs(urlsplit(connection.request.path).query)
        self.rate = query["rate"][-1] if "rate" in query else None

    async def receive(self) -> bytes | str | None:
        """Return a message."""
        from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

        try:
            message: bytes | str = await self._connection.recv()
        except ConnectionClosedOK:
            return None
        except ConnectionClosed as error:
            raise GoneError from error
        return message

    async def send(self, line: str) -> None:
        """Send a message."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(line)
        except ConnectionClosed as error:
            raise GoneError from error

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()


def _peer(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if address else "somebody who has left"
