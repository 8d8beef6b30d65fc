"""The session of one client, from its first message to its summary: token, header, sound, last events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edge.arrays import SAMPLE_RATE
from edge.audio.downmix import MOST_CHANNELS
from edge.audio.resampler import HIGHEST_RATE, LOWEST_RATE
from edge.errors import MmtlError, SourceError, UsageError
from edge.events import Error, Event, to_json
from edge.output.sinks import Sink
from edge.server.access import Access
from edge.server.client_stream import ClientStream
from edge.server.rate_limits import MESSAGE_S, IdleAllowance, Limits, Throttle
from edge.server.transport import HEADER, Channel, RefusedError

if TYPE_CHECKING:
    from edge.model.profile import Profile
    from edge.recognition.recognizer import Recognizer

T = TypeVar("T")

BLOCK_S: Final = 0.5
"""Longest sound recognised at once; then other clients have their turn, and a stop takes effect."""
HEADER_KEYS: Final = frozenset({"token", "rate", "channels", "profile"})
_WHOLE_HZ: Final = re.compile(r"(\d{1,8})(\.0+)?", re.ASCII)


class StoppingError(SourceError):
    """The server stops before the client's sound has ended."""

    def __init__(self) -> None:
        super().__init__(
            "the server stops: the summary has the duration that was recognised, send the rest again later"
        )


class Worker:
    """A thread for some of the clients. A recogniser is made and used in one thread only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "recogniser")
        self.clients = 0

    async def do(self, work: Callable[[], T]) -> T:
        """Run a function in the thread, after those queued before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Finish the current work, and cancel what is queued."""
        self._thread.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Service:
    """What the server offers its clients, and its limits."""

    make: Callable[[], Recognizer]
    """Makes a client's recogniser; called in the thread that uses it."""
    find: Callable[[str], Profile] | None = None
    """Loads the profile that a client names, in that thread; None: clients cannot name profiles."""
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    observe: Callable[[], Sink] = Sink
    """Makes what follows the events of one client, in the server's event loop."""


class ClientSession:
    """Serves one client. Remembers its header and how long it has kept the server waiting."""

    def __init__(self, channel: Channel, service: Service, stopping: asyncio.Event) -> None:
        """Prepare.

        Args:
            channel: the connection.
            service: what the client is offered.
            stopping: set when the server is to stop.
        """
        self._channel = channel
        self._service = service
        self._stopping = stopping
        self._header: dict[str, Any] = {}
        self._allowance = IdleAllowance(service.limits.idle_s)
        self._observer = service.observe()

    async def receive_token(self) -> None:
        """Wait for the token in the first line or message.

        Raises:
            RefusedError: it is missing, wrong or too late.
            StoppingError: the server stops.
            GoneError: the client has left.
        """
        try:
            message = await self._message(self._service.limits.token_s)
            self._header = _read_json(message) if isinstance(message, str) else {}
        except (asyncio.TimeoutError, UsageError) as error:
            raise self._without_token() from error
        if not self._service.access.admits(_text(self._header.get("token"))):
            raise self._without_token()

    def _without_token(self) -> RefusedError:
        return RefusedError(
            "token",
            f"{self._channel.name}: refused, it presented no valid token",
            'this server requires a token: send {"token": "..."} first, before any sound',
        )

    async def run(self, worker: Worker, report: Callable[[str], None]) -> None:
        """Serve the client to the end of its sound, or until the server stops.

        Args:
            worker: computes the events.
            report: is called with the reason if the stream ends early.

        Raises:
            GoneError: the client has left.
            RefusedError: it does not speak the protocol.
            MmtlError: its recogniser cannot be made.
            asyncio.TimeoutError: it does not read its events.
        """
        stream = await worker.do(lambda: ClientStream(self._service.make(), self._channel.name))
        with self._observer:
            await self._send(stream.begin())
            try:
                await self._recognise(stream, worker)
            except MmtlError as error:
                if not isinstance(error, StoppingError):
                    report(str(error))
                await self._send_last([Error(str(error))])
            await self._send_last(await worker.do(stream.finish))

    async def _recognise(self, stream: ClientStream, worker: Worker) -> None:
        """Recognise the client's sound to its end."""
        message = await self._read_header()
        rate = checked_rate(self._header.get("rate", self._channel.rate))
        channels = checked_channels(self._header.get("channels", self._channel.channels))
        stream.set_channels(channels)
        if "profile" in self._header:
            name = self._header["profile"]
            await self._send(await worker.do(lambda: stream.switch_profile(self._profile(name))))
        throttle = Throttle(self._service.limits.speed)
        while isinstance(message, bytes):
            arrived_s = time.perf_counter()
            for block in _blocks(message, rate * channels):
                duration_s, began_s = len(block) / 2.0 / channels / rate, time.perf_counter()
                events = await worker.do(functools.partial(stream.feed, block, rate, arrived_s))
                self._allowance.earn(duration_s, time.perf_counter() - began_s)
                await self._send(events)
                await self._pause(max(MESSAGE_S, throttle.wait_s(duration_s, time.perf_counter())))
            message = await self._next()
        if isinstance(message, str) and _read_json(message) != {"end": True}:
            raise UsageError(
                f"{message[:80]!r} arrived within the sound, expected {json.dumps({'end': True})}"
            )

    async def _read_header(self) -> bytes | str | None:
        """Read the header messages before any sound; return the message after them."""
        message = await self._next()
        while isinstance(message, str) and (order := _read_json(message)) and HEADER_KEYS.issuperset(order):
            if repeated := order.keys() & self._header.keys():
                raise UsageError(
                    f"{message[:80]!r} arrived, but {', '.join(repeated)} was sent before",
                    remedy="send each key once",
                )
            self._header |= order
            message = await self._next()
        return message

    def _profile(self, name: object) -> Profile:
        if self._service.find is None:
            raise UsageError(
                "clients of this server cannot name a profile", remedy="leave it out of the header"
            )
        if not isinstance(name, str):
            raise UsageError(f"a profile of {str(name)[:80]} arrived, expected its name in quotes")
        return self._service.find(name)

    async def _next(self) -> bytes | str | None:
        """Wait for a message for as long as the client may keep the server waiting; None at the end.

        Raises:
            StoppingError: the server stops.
            SourceError: too little sound has arrived for too long.
        """
        began_s = time.perf_counter()
        try:
            if self._allowance.left_s > 0.0:
                return await self._message(self._allowance.left_s)
        except asyncio.TimeoutError:
            pass
        finally:
            self._allowance.spend(time.perf_counter() - began_s)
        raise SourceError(
            f"no sound came for {self._service.limits.idle_s:g} s, or less than half of real time",
            remedy="send silence, or connect again",
        )

    async def _message(self, within_s: float) -> bytes | str | None:
        """Wait for a message; None at the end of the stream.

        Raises:
            StoppingError: the server stops; messages that have arrived are dropped.
            asyncio.TimeoutError: none has arrived in time.
        """
        receiving = asyncio.ensure_future(_received(self._channel))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({receiving, stopping}, timeout=within_s, return_when="FIRST_COMPLETED")
        finally:
            receiving.cancel()
            stopping.cancel()
        message = receiving.result() if receiving.done() else b""
        if message is not None:
            self._require_time()
        if message == b"":
            raise asyncio.TimeoutError
        return message

    def _require_time(self) -> None:
        if self._stopping.is_set():
            raise StoppingError

    async def _send(self, events: Sequence[Event]) -> None:
        """Send events for as long as the client may keep the server waiting."""
        for event in events:
            self._observer.emit(event)
            began_s = time.perf_counter()
            await asyncio.wait_for(self._channel.send(to_json(event)), self._allowance.left_s)
            self._allowance.spend(time.perf_counter() - began_s)

    async def _send_last(self, events: Sequence[Event]) -> None:
        """Send events that end the stream, even if the client has used up its waiting time."""
        for event in events:
            self._observer.emit(event)
            await asyncio.wait_for(self._channel.send(to_json(event)), self._service.limits.goodbye_s)

    async def _pause(self, seconds: float) -> None:
        """Wait while other clients have their turn.

        Raises:
            StoppingError: the server stops.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        self._require_time()
        self._allowance.spend(seconds)


def checked_rate(asked: object) -> int:
    """Return the sample rate that a client states, in Hz; None means 16 kHz.

    Raises:
        UsageError: it is out of range, or no whole number.
    """
    if asked is None:
        return SAMPLE_RATE
    text = "" if isinstance(asked, bool) else str(asked)
    whole = _WHOLE_HZ.fullmatch(text)
    if whole and LOWEST_RATE <= int(whole[1]) <= HIGHEST_RATE:
        return int(whole[1])
    raise UsageError(f"a rate of {str(asked)[:80]} arrived, expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")


def checked_channels(asked: object) -> int:
    """Return the number of channels that a client states; None means one.

    Raises:
        UsageError: it is out of range, or no whole number.
    """
    if asked is None:
        return 1
    text = "" if isinstance(asked, bool) else str(asked)
    if text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_CHANNELS:
        return int(text)
    raise UsageError(f"{str(asked)[:80]} channels were stated, expected 1 to {MOST_CHANNELS}")


def _blocks(data: bytes, rate: int) -> Iterator[bytes]:
    size = 2 * round(BLOCK_S * rate)
    return (data[start : start + size] for start in range(0, len(data), size))


def _read_json(text: str) -> dict[str, Any]:
    """Read a client's line of JSON."""
    try:
        order = json.loads(text)
    except (ValueError, RecursionError):
        order = None
    if not isinstance(order, dict) or set(order) - HEADER_KEYS - {"end"}:
        raise UsageError(f"{text[:80]!r} arrived, expected sound or {HEADER}")
    return order


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


async def _received(channel: Channel) -> bytes | str | None:
    """Return a client's next message, skipping empty ones."""
    while (message := await channel.receive()) == b"":
        await asyncio.sleep(0)  # let others run: empty messages may arrive without end
    return message
