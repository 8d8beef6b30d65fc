"""Recognise sound that arrives over TCP or WebSocket: one recogniser for each connection.

    bytes -> Channel -> Ear (in a Worker's thread: Intake -> Recognizer) -> events as JSON -> Channel

Raw s16le mono comes in, at 16 kHz unless the client first sends {"rate": HZ} on a line (TCP) or in a
text message or the query ?rate=HZ (WebSocket); events go out as they arise, the session at once.
Where the server allows it, {"profile": "NAME"} there applies a profile: the session is said again.
A client that is too fast is not read from until it is its turn: nothing is dropped, its own sending
waits. So the memory that a client can take is bounded, and none can starve another.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edge.audio import HIGHEST_RATE, LOWEST_RATE, SAMPLE_RATE
from edge.channels import HEADER, Channel, GoneError, TcpChannel, WebSocketChannel
from edge.ear import Ear
from edge.errors import MmtlError, SourceError, UsageError
from edge.events import Error, Event, to_json

if TYPE_CHECKING:
    from edge.profile import Profile
    from edge.recogniser import Recognizer

T = TypeVar("T")

HOST: Final = "127.0.0.1"
LARGEST_MESSAGE: Final = 2**18
"""Bytes of a WebSocket message: 8 s at 16 kHz."""
COMPLAINT_S: Final = 60.0
"""Between two lines about the same trouble."""
LOCAL_PAGES: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
"""Web pages that may connect; a stranger's page in the user's browser may not."""


@dataclass(frozen=True)
class Limits:
    """What the server allows."""

    connections: int = 16
    """At a time; one more is told so and closed."""
    speed: float = 10.0
    """Times real time that one client's sound is taken at."""
    idle_s: float = 30.0
    """Without sound, or without reading events, until a client is let go."""
    goodbye_s: float = 5.0
    """For the last words to all clients when the server stops."""


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read [HOST:]PORT; without a host, only programs on this machine can connect.

    Raises:
        UsageError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535 or (colon and not host):
        raise UsageError(f"{text!r} is no address, expected [HOST:]PORT: for example 8765 or 0.0.0.0:8765")
    return Address(host.strip("[]") or HOST, int(port))


class Worker:
    """A thread for some of the clients. A recogniser is made and used in one thread only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "recogniser")
        self.clients = 0

    async def do(self, work: Callable[[], T]) -> T:
        """Run something in the thread, after what was asked of it before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Let the work under way end, and no more begin."""
        self._thread.shutdown(wait=True, cancel_futures=True)


class Throttle:
    """Says how long to wait so that sound is not taken faster than a multiple of real time."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due_s = 0.0

    def wait_s(self, duration_s: float, now_s: float) -> float:
        """Account for a piece of sound; return the time until the next may be taken, >= 0."""
        self._due_s = max(self._due_s, now_s) + duration_s / self._speed
        return self._due_s - now_s


class Complaints:
    """Says what asyncio itself cannot cope with, such as too many open files, in a line.

    Remembers the line said last: it may come a hundred times a second, and is not repeated for a minute.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = ""
        self._quiet_until_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take a complaint, as the exception handler of a loop."""
        error = context.get("exception")
        line = f"trouble: {context['message']}" + (f" ({type(error).__name__}: {error})" if error else "")
        if line != self._last or loop.time() >= self._quiet_until_s:
            self._last, self._quiet_until_s = line, loop.time() + COMPLAINT_S
            self._say(line)


class Server:
    """Serves clients until it is told to stop. None of them can harm another."""

    def __init__(
        self,
        make: Callable[[], Recognizer],
        *,
        find: Callable[[str], Profile] | None = None,
        limits: Limits | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            make: gives a connection its recogniser; called in the thread that will use it.
            find: gives a client the profile it names, in that thread; None: clients may name none.
            limits: what is allowed.
            say: takes a line for whoever runs the server.
        """
        self._make = make
        self._find = find
        self._limits = limits or Limits()
        self._say = say
        self._clients: set[asyncio.Task[Any]] = set()
        self._workers = [Worker() for _ in range(os.cpu_count() or 1)]
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask the server, in its own loop, to say goodbye to all and end."""
        self._stopping.set()

    async def run(
        self,
        *,
        tcp: Address | None = None,
        websocket: Address | None = None,
        ready: Callable[[dict[str, int]], None] = lambda ports: None,
    ) -> None:
        """Serve until `stop`.

        Args:
            tcp: where to take raw TCP, if anywhere.
            websocket: where to take WebSockets, if anywhere.
            ready: learns the ports by "tcp" and "websocket": port 0 means any that is free.

        Raises:
            UsageError: an address cannot be listened on.
        """
        asyncio.get_running_loop().set_exception_handler(Complaints(self._say))
        listen = {"tcp": (tcp, self._listen_tcp), "websocket": (websocket, self._listen_websocket)}
        ports = {}
        try:
            async with contextlib.AsyncExitStack() as stack:
                for kind, (address, open_port) in listen.items():
                    if address:
                        server = await _opened(open_port, address)
                        stack.callback(server.close)
                        ports[kind] = server.sockets[0].getsockname()[1]
                        self._say(f"listening for {kind} on {address.host}:{ports[kind]}")
                ready(ports)
                await self._stopping.wait()
                await self._part()
        finally:
            for worker in self._workers:
                worker.close()

    async def _listen_tcp(self, address: Address) -> Any:
        async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._attend(TcpChannel(reader, writer))

        return await asyncio.start_server(attend, address.host, address.port)

    async def _listen_websocket(self, address: Address) -> Any:
        from websockets.asyncio.server import serve as serve_websocket

        async def attend(connection: Any) -> None:
            await self._attend(WebSocketChannel(connection))

        return await serve_websocket(
            attend,
            address.host,
            address.port,
            origins=[None, LOCAL_PAGES],
            compression=None,
            max_size=LARGEST_MESSAGE,
            max_queue=2,
            ping_timeout=self._limits.idle_s,
            close_timeout=1.0,
            logger=_silent_logger(),
        )

    async def _part(self) -> None:
        """Give the clients time for their last events, then hang up on those who take longer."""
        if self._clients:
            await asyncio.wait(self._clients, timeout=self._limits.goodbye_s)
        late = list(self._clients)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _attend(self, channel: Channel) -> None:
        """See one client through, whatever it does."""
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._clients) < self._limits.connections:
                self._clients.add(task)
                await self._converse(channel)
            else:
                self._say(f"{channel.name}: refused, there are {len(self._clients)} clients")
                await self._send(channel, [Error(f"there are {len(self._clients)} clients: try again later")])
        except (GoneError, asyncio.TimeoutError):
            self._say(f"{channel.name}: gone")
        except asyncio.CancelledError:  # asyncio's own callback would print where
            self._say(f"{channel.name}: cut off")
        except Exception as error:  # noqa: BLE001 - one client's trouble is not the others'
            self._say(f"{channel.name}: unexpected: {type(error).__name__}: {error}")
        finally:
            try:
                await channel.close()
            finally:
                self._clients.discard(task)

    async def _converse(self, channel: Channel) -> None:
        self._say(f"{channel.name}: connected")
        with self._least_busy() as worker:
            ear = await worker.do(lambda: Ear(self._make(), channel.name))
            await self._send(channel, ear.begin())
            try:
                await self._listen(channel, ear, worker)
            except MmtlError as error:
                self._say(f"{channel.name}: {error}")
                await self._send(channel, [Error(str(error))])
            await self._send(channel, await worker.do(ear.finish))
        self._say(f"{channel.name}: done")

    async def _listen(self, channel: Channel, ear: Ear, worker: Worker) -> None:
        """Hear a client's sound to its end."""
        throttle = Throttle(self._limits.speed)
        order, message = await self._header(channel)
        rate = checked_rate(order.get("rate", channel.rate))
        if "profile" in order:
            await self._send(channel, await worker.do(lambda: ear.use(self._profile(order["profile"]))))
        while isinstance(message, bytes):
            arrived_s = time.perf_counter()
            work = functools.partial(ear.hear, message, rate, arrived_s)
            await self._send(channel, await worker.do(work))
            await self._pause(throttle.wait_s(len(message) / 2.0 / rate, arrived_s))
            message = await self._next(channel)
        if isinstance(message, str) and _order(message) != {"end": True}:
            raise UsageError(f"{message[:80]!r} arrived amid the sound, expected {json.dumps({'end': True})}")

    async def _header(self, channel: Channel) -> tuple[dict[str, Any], bytes | str | None]:
        """Return what the client asks for before any sound, and what it sent next."""
        message = await self._next(channel)
        if isinstance(message, str) and {"rate", "profile"} & set(order := _order(message)):
            return order, await self._next(channel)
        return {}, message

    def _profile(self, name: object) -> Profile:
        if self._find is None:
            raise UsageError("a profile was asked for: leave it out, for this server lets clients name none")
        if not isinstance(name, str):
            raise UsageError(f"a profile of {str(name)[:80]} arrived, expected its name in quotes")
        return self._find(name)

    async def _next(self, channel: Channel) -> bytes | str | None:
        """Wait for a message; None at the end of the stream, and when the server is to stop."""
        receiving = asyncio.ensure_future(_received(channel))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                {receiving, stopping}, timeout=self._limits.idle_s, return_when="FIRST_COMPLETED"
            )
            if receiving.done():
                return receiving.result()
        finally:
            receiving.cancel()
            stopping.cancel()
        if self._stopping.is_set():
            return None
        raise SourceError(f"no sound came for {self._limits.idle_s:g} s: send silence, or connect again")

    async def _send(self, channel: Channel, events: Sequence[Event]) -> None:
        for event in events:
            await asyncio.wait_for(channel.send(to_json(event)), self._limits.idle_s)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    @contextlib.contextmanager
    def _least_busy(self) -> Iterator[Worker]:
        worker = min(self._workers, key=lambda worker: worker.clients)
        worker.clients += 1
        try:
            yield worker
        finally:
            worker.clients -= 1


def serve(
    make: Callable[[], Recognizer],
    *,
    tcp: Address | None = None,
    websocket: Address | None = None,
    find: Callable[[str], Profile] | None = None,
    limits: Limits | None = None,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[dict[str, int]], None] = lambda ports: None,
) -> None:
    """Serve until SIGINT or SIGTERM; see `Server`, and its `run`, for the arguments.

    Raises:
        UsageError: there is nowhere to listen, or an address cannot be listened on.
    """
    if tcp is None and websocket is None:
        raise UsageError("there is nowhere to listen: give --tcp PORT, --websocket PORT or both")

    async def run() -> None:
        server = Server(make, find=find, limits=limits, say=say)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        await server.run(tcp=tcp, websocket=websocket, ready=ready)

    asyncio.run(run())


def checked_rate(asked: object) -> int:
    """Return the Hz that a client means; None means 16 kHz.

    Raises:
        UsageError: nobody records speech at this rate, or it is no number.
    """
    if asked is None:
        return SAMPLE_RATE
    text = str(asked)
    if text.isascii() and text.isdigit() and len(text) < 9 and LOWEST_RATE <= int(text) <= HIGHEST_RATE:
        return int(text)
    raise UsageError(f"a rate of {text[:80]} arrived, expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")


def _order(text: str) -> dict[str, Any]:
    """Read a client's line of JSON."""
    try:
        order = json.loads(text)
    except (ValueError, RecursionError):
        order = None
    if not isinstance(order, dict) or set(order) - {"rate", "profile", "end"}:
        raise UsageError(f"{text[:80]!r} arrived, expected sound or {HEADER}")
    return order


async def _received(channel: Channel) -> bytes | str | None:
    """Return a client's next message. An empty one is no sound, so it keeps nobody's place."""
    while (message := await channel.receive()) == b"":
        await asyncio.sleep(0)  # the others' turn, for empty ones may come without end
    return message


async def _opened(open_port: Callable[[Address], Awaitable[Any]], address: Address) -> Any:
    try:
        return await open_port(address)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"cannot listen on {address.host}:{address.port} ({reason}): choose another address or port"
        ) from error


def _silent_logger() -> logging.Logger:
    """Return a logger that writes nothing: strangers' broken handshakes are no news."""
    logger = logging.getLogger("edge.server.websockets")
    logger.propagate = False
    logger.disabled = True
    return logger
