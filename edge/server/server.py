"""The server: recognises sound from TCP and WebSocket clients, with one recogniser for each connection.

    bytes -> Channel -> ClientSession -> Ear (in a Worker's thread: Intake -> Recognizer) -> events as JSON

A client sends raw s16le mono at 16 kHz, unless it first sends {"rate": HZ} as a line (TCP), a text message
or the query ?rate=HZ (WebSocket). It receives the session event at once, and other events as they arise.
If the server allows it, {"profile": "NAME"} applies a profile, and the session event is sent again.
If a token is required, {"token": "..."} comes first, or the query ?token=... or the header
"Authorization: Bearer ..."; before that nothing is sent or computed.
A client that sends too fast is not read from until its turn: nothing is dropped, its own sending blocks.
So the memory of a client is bounded, and no client can starve another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Protocol

from edge.errors import MmtlError, UsageError
from edge.events import Error, to_json
from edge.output.text import printable
from edge.server.access import Address
from edge.server.client_session import ClientSession, Service, Worker
from edge.server.client_stream import warm_up
from edge.server.rate_limits import MOST_WAITING, QuietLog, require_descriptors
from edge.server.transport import Channel, GoneError, Listener, RefusedError, listen_tcp
from edge.system import signals

REFUSAL_S: Final = 0.25
"""Time to send a refused client the reason, and for it to stop sending."""


class Site(Protocol):
    """A port of another protocol, whose clients are served in the same threads."""

    address: Address

    async def listen(self, handle: Callable[[Channel], Awaitable[None]], log: QuietLog) -> Listener:
        """Accept clients; `handle` serves one of them to its end.

        Raises:
            OSError: the address cannot be listened on.
        """

    async def close_connections(self, within_s: float) -> None:
        """Let the clients' connections end, and disconnect those that take longer."""


class Server:
    """Serves clients until `stop`. A client's errors do not affect the others."""

    def __init__(self, service: Service, say: Callable[[str], None] = lambda line: None) -> None:
        """Prepare; nothing listens yet.

        Args:
            service: what clients are served with, and the rules.
            say: takes a log line for the operator.
        """
        self._service = service
        self._say: Callable[[str], None] = lambda line: say(printable(line))
        self._log = QuietLog(self._say, time.monotonic)
        self._connected: set[asyncio.Task[Any]] = set()
        self._clients: set[asyncio.Task[Any]] = set()
        self._waiting = 0
        self._workers = [Worker() for _ in range(os.cpu_count() or 1)]
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask the server, in its event loop, to end all sessions and stop."""
        self._stopping.set()

    async def run(
        self,
        *,
        tcp: Address | None = None,
        websocket: Address | None = None,
        web: Site | None = None,
        ready: Callable[[dict[str, int]], None] = lambda ports: None,
    ) -> None:
        """Serve until `stop`.

        Args:
            tcp: address for raw TCP; None: no TCP.
            websocket: address for WebSockets; None: no WebSockets.
            web: the web page; None: no page.
            ready: takes the ports by "tcp", "websocket" and "web", once they are open; port 0 is a free one.

        Raises:
            UsageError: an address cannot be listened on, or the limit on open files is too low.
            MmtlError: the recogniser cannot be created or run.
        """
        asyncio.get_running_loop().set_exception_handler(self._log_loop_error)
        listen: dict[str, tuple[Address | None, Callable[[Address], Awaitable[Listener]]]] = {
            "tcp": (tcp, self._listen_tcp),
            "websocket": (websocket, self._listen_websocket),
        }
        if web:
            listen["web"] = web.address, lambda address: web.listen(self._handle, self._log)
        ports = {}
        try:
            if tcp or websocket or web:
                await self._warm_up()
            with contextlib.ExitStack() as open_ports:
                for kind, (address, open_port) in listen.items():
                    if address:
                        listener = await _open(open_port, address)
                        open_ports.callback(listener.close)
                        ports[kind] = listener.port
                        self._say(f"listening for {kind} on {Address(address.host, listener.port)}")
                ready(ports)
                await self._stopping.wait()
            await self._close_clients()
            if web:
                await web.close_connections(self._service.limits.goodbye_s)
        finally:
            for worker in self._workers:
                worker.close()

    async def _warm_up(self) -> None:
        """Load and run a recogniser in each thread, so that no client waits for that."""
        require_descriptors(self._service.limits.connections)
        await asyncio.gather(*(worker.do(lambda: warm_up(self._service.make)) for worker in self._workers))

    async def _listen_tcp(self, address: Address) -> Listener:
        return await listen_tcp(address, self._service.access, self._handle)

    async def _listen_websocket(self, address: Address) -> Listener:
        from edge.server.websocket_transport import listen_websocket

        return await listen_websocket(
            address, self._service.access, self._handle, self._service.limits, self._log
        )

    def _log_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log errors of asyncio itself, such as too many open files, as its exception handler."""
        error = context.get("exception")
        reason = f" ({type(error).__name__}: {error})" if error else ""
        self._log.note(context["message"], f"server error: {context['message']}{reason}")

    async def _close_clients(self) -> None:
        """Send the clients their last events, then disconnect those that take too long."""
        if self._connected:
            await asyncio.wait(self._connected, timeout=self._service.limits.goodbye_s)
        late = list(self._connected)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, channel: Channel) -> None:
        """Serve one client to its end, and close its connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        try:
            await channel.close(await self._serve_or_refuse(channel, task))
        finally:
            self._connected.discard(task)
            self._clients.discard(task)

    async def _serve_or_refuse(self, channel: Channel, task: asyncio.Task[Any]) -> float:
        """Serve a client; return the time in seconds that it has to read what was sent."""
        try:
            await self._serve(channel, task)
        except RefusedError as refusal:
            self._log.note(refusal.kind, str(refusal))
            return await self._send_error(channel, refusal.answer)
        except (GoneError, asyncio.TimeoutError) as error:
            self._say(f"{channel.name}: {str(error) or 'disconnected'}")
            return 0.0
        except asyncio.CancelledError:  # asyncio's own callback would print a traceback
            self._say(f"{channel.name}: disconnected by the server")
            return 0.0
        except MmtlError as error:
            self._say(f"{channel.name}: {error}")
            return await self._send_error(channel, str(error))
        except Exception as error:  # noqa: BLE001 - an error of one client must not stop the server
            name = type(error).__name__
            self._say(f"{channel.name}: unexpected: {name}: {error}")
            return await self._send_error(
                channel, f"the server failed ({name}): connect again, or ask its operator"
            )
        return self._service.limits.goodbye_s

    async def _serve(self, channel: Channel, task: asyncio.Task[Any]) -> None:
        """Admit a client and run its session."""
        session = ClientSession(channel, self._service, self._stopping)
        if not self._service.access.admits(channel.token):
            await self._receive_token(channel, session)
        if len(self._clients) >= self._service.limits.connections:
            line = f"there are {len(self._clients)} clients"
            raise RefusedError("full", f"{channel.name}: refused, {line}", f"{line}: try again later")
        self._clients.add(task)
        self._say(f"{channel.name}: connected")
        with self._least_busy() as worker:
            await session.run(worker, lambda line: self._say(f"{channel.name}: {line}"))
        self._say(f"{channel.name}: done")

    async def _receive_token(self, channel: Channel, session: ClientSession) -> None:
        """Wait for a client's token. Waiting connections are limited, and do not count as clients."""
        if self._waiting >= MOST_WAITING:
            line = f"refused, {MOST_WAITING} connections have not presented their token yet"
            raise RefusedError("waiting", f"{channel.name}: {line}", "too many connections: try again later")
        self._waiting += 1
        try:
            await session.receive_token()
        finally:
            self._waiting -= 1

    async def _send_error(self, channel: Channel, message: str) -> float:
        """Tell a client why it is not served; return the time in seconds that it has to read that."""
        with contextlib.suppress(GoneError, asyncio.TimeoutError):
            await asyncio.wait_for(channel.send(to_json(Error(message))), REFUSAL_S)
        return REFUSAL_S

    @contextlib.contextmanager
    def _least_busy(self) -> Iterator[Worker]:
        worker = min(self._workers, key=lambda worker: worker.clients)
        worker.clients += 1
        try:
            yield worker
        finally:
            worker.clients -= 1


def serve(
    service: Service,
    *,
    tcp: Address | None = None,
    websocket: Address | None = None,
    web: Site | None = None,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[dict[str, int]], None] = lambda ports: None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; see `Server`, and its `run`, for the arguments.

    Raises:
        UsageError: no address is given, an address cannot be listened on, or the limit on open files is
            too low.
    """
    if tcp is None and websocket is None and web is None:
        raise UsageError(
            "no address to listen on", remedy="give --tcp PORT, --websocket PORT or --web PORT, or several"
        )

    async def run() -> None:
        server = Server(service, say)
        for number in signals.handled_signals():
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        await server.run(tcp=tcp, websocket=websocket, web=web, ready=ready)

    asyncio.run(run())


async def _open(open_port: Callable[[Address], Awaitable[Listener]], address: Address) -> Listener:
    try:
        return await open_port(address)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"cannot listen on {address} ({reason})", remedy="choose another address or port"
        ) from error
