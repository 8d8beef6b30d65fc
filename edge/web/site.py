"""The web page's port: its files over HTTP, the device's stream and the browser's own over WebSocket.

    GET /, /app.js, ...   the page
    /watch                events of the device's microphone to every viewer; JSON requests from them
    /stream               sound of a browser in, its events out: the protocol of `edge.server`
    /enrol                sound and requests of a person who makes a profile: `edge.web.enrolment`

Messages of /watch are events as in docs/events.md, arrays of earlier events, and objects with the key `page`:
`hello`, `status`, `level`, `profiles` and `refused`. Requests are {"do": "start"}, {"do": "stop"} and
{"do": "profile", "name": NAME or null}.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from edge.events import Event, Session, to_json
from edge.labels import EMOTIONS, derived_ratings
from edge.output.anonymous import without_paths
from edge.output.sinks import Sink
from edge.output.text import printable
from edge.server.access import Address
from edge.server.client_session import Service, Worker
from edge.server.rate_limits import MOST_WAITING, QuietLog, require_descriptors
from edge.server.transport import Channel, Listener
from edge.server.websocket_transport import LimitedConnection, WebSocketChannel, open_websocket, refusal
from edge.web.admission import Admission
from edge.web.device_stream import DeviceStream
from edge.web.enrolment import EnrolmentService
from edge.web.enrolment_connections import EnrolmentConnections
from edge.web.hub import Hub, Viewer
from edge.web.page_files import HEADERS, PageFile, load_page

if TYPE_CHECKING:
    from edge.audio.block import Source
    from edge.model.profile import Profile

MOST_VIEWERS: Final = 64
"""Most viewers at a time."""
LONGEST_REQUEST: Final = 1_024
"""Characters of a viewer's request."""
TOKEN_REFUSED: Final = 4401
"""Close code for a missing or wrong token: the page asks for it."""


@dataclass(frozen=True)
class Profiles:
    """The profiles that can be chosen on the page, and how new ones are made."""

    find: Callable[[str], Profile]
    """Loads a profile by its name."""
    names: Callable[[], list[str]] = list
    """Lists those that can be chosen."""
    started: str | None = None
    """Name of the one that the server applies by itself."""
    enrolment: EnrolmentService | None = None
    """Makes profiles from the sound of browsers; None: the page offers none."""


class Site:
    """The page and its two streams. Remembers the viewers, and the stream of the device."""

    def __init__(
        self,
        address: Address,
        service: Service,
        open_source: Callable[[], Source],
        *,
        source: str,
        profiles: Profiles,
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            address: to listen on.
            service: what clients are offered, and the rules of access.
            open_source: makes the device's source.
            source: its name, for people.
            profiles: those that can be chosen, and how new ones are made.
        """
        self.address = address
        self._service = service
        self._source = source
        self._profiles = profiles
        self._device = DeviceStream(service.make, open_source, profiles.find)
        self._hub = Hub()
        self._worker = Worker()
        self._page = load_page()
        self._admission = Admission.of(address, service.access)
        self._waiting = 0
        self._enrolling: EnrolmentConnections | None = None
        self._running: asyncio.Future[None] | None = None
        self._connections: dict[asyncio.Task[Any], LimitedConnection] = {}

    async def listen(self, handle: Callable[[Channel], Awaitable[None]], log: QuietLog) -> Listener:
        """Accept browsers.

        Args:
            handle: serves a browser that sends sound.
            log: takes refusals.

        Raises:
            OSError: the address cannot be listened on.
            UsageError: the limit on open files is too low.
        """
        require_descriptors(self._service.limits.connections + MOST_VIEWERS)
        self._loop = asyncio.get_running_loop()
        if self._profiles.enrolment:
            self._enrolling = EnrolmentConnections(self._profiles.enrolment, self._tell_profiles, log)

        async def accepted(connection: ServerConnection) -> None:
            assert isinstance(connection, LimitedConnection)
            assert connection.request is not None
            task = asyncio.current_task()
            assert task
            self._connections[task] = connection
            task.add_done_callback(self._connections.pop)
            match _path(connection.request):
                case "/stream":
                    await handle(WebSocketChannel(connection))
                case "/enrol":
                    await self._enrol(connection)
                case _:
                    await self._watch(connection)

        server = await open_websocket(
            self.address,
            self._service.access,
            accepted,
            functools.partial(self._answer, log),
            self._service.limits,
        )
        port = next(iter(server.sockets)).getsockname()[1]

        def close() -> None:
            server.close(close_connections=False)
            self._device.request_stop()
            if self._enrolling:
                self._enrolling.stop()
            for viewer in self._hub.viewers:
                viewer.end()

        return Listener(port, close)

    async def close_connections(self, within_s: float) -> None:
        """Let the browsers' connections end, disconnect those that take longer, and wait for their work."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=within_s)
        for task, connection in self._connections.items():
            connection.transport.abort()
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def close(self) -> None:
        """Wait until the device's stream has ended."""
        self._device.request_stop()
        self._worker.close()

    def _answer(self, log: QuietLog, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a request for a file, or one that is refused; None lets a WebSocket through."""
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        if not self._admission.admits_host(hosts):
            asked = printable(" and ".join(hosts)[:80])
            page = f"{self._admission.scheme}://{asked}"
            log.note("host", f"a request for the host {asked} was refused: --origin {page} would allow it")
            return _response(HTTPStatus.FORBIDDEN, "The server does not answer to this name.\n")
        path = _path(request)
        if path in {"/watch", "/stream"} or (path == "/enrol" and self._enrolling):
            if not self._admission.admits_origin(origins, hosts[0]):
                page = printable(" and ".join(origins)[:80])
                log.note("origin", f"a web page from {page} was refused: --origin {page} would allow it")
                return _response(
                    HTTPStatus.FORBIDDEN, "The server does not accept web pages of this origin.\n"
                )
            return refusal(connection, request, self._service.access, log)
        file = self._page.get(path)
        if file is None:
            return _response(HTTPStatus.NOT_FOUND, "There is no such page.\n")
        return _response(HTTPStatus.OK, file)

    async def _watch(self, connection: LimitedConnection) -> None:
        """Serve one viewer."""
        if len(self._hub.viewers) >= MOST_VIEWERS or self._waiting >= MOST_WAITING:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many viewers")
            return
        with contextlib.suppress(ConnectionClosed):
            if not await self._admitted(connection):
                await connection.close(TOKEN_REFUSED, "the token is missing or wrong")
                return
            viewer = Viewer(connection.transport.abort)
            hello = await self._hello()
            missed = [hello, *self._hub.history()]
            self._hub.viewers.add(viewer)  # without a wait in between: nothing is missed, or sent twice
            self._hub.pass_on(self._status())
            sending = asyncio.ensure_future(_send(connection, missed, viewer))
            try:
                async for request in connection:
                    self._obey(request, viewer)
            finally:
                self._hub.viewers.discard(viewer)
                self._hub.pass_on(self._status())
                sending.cancel()
                await asyncio.wait([sending])

    async def _enrol(self, connection: LimitedConnection) -> None:
        """Serve one browser that makes a profile."""
        assert self._enrolling
        if self._waiting >= MOST_WAITING:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many connections")
            return
        with contextlib.suppress(ConnectionClosed):
            if await self._admitted(connection):
                await self._enrolling.serve(connection)
            else:
                await connection.close(TOKEN_REFUSED, "the token is missing or wrong")

    def _tell_profiles(self) -> None:
        """Tell the viewers which profiles there are now; called in any thread."""
        names = json.dumps({"page": "profiles", "profiles": self._profiles.names()})
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._hub.pass_on, names)

    async def _admitted(self, connection: LimitedConnection) -> bool:
        """Check the token in the first message, {"token": TOKEN}; the page sends one always."""
        self._waiting += 1
        try:
            message = await asyncio.wait_for(connection.recv(), self._service.limits.token_s)
        except asyncio.TimeoutError:
            return False
        finally:
            self._waiting -= 1
        offered = _request(message).get("token")
        return self._service.access.admits(offered if isinstance(offered, str) else None)

    async def _hello(self) -> str:
        names = await asyncio.get_running_loop().run_in_executor(None, self._profiles.names)
        enrolment = self._profiles.enrolment
        return json.dumps(
            {
                "page": "hello",
                "source": printable(self._source),
                "profile": self._profiles.started,
                "emotions": EMOTIONS,
                "profiles": names,
                "enrolment": dict(enrolment.describe()) if enrolment else None,
                "plane": {emotion: derived_ratings(emotion) for emotion in EMOTIONS},
            }
        )

    def _status(self) -> str:
        device = self._device
        return json.dumps(
            {
                "page": "status",
                "state": device.state,
                "profile": device.profile,
                "viewers": len(self._hub.viewers),
            }
        )

    def _obey(self, message: str | bytes, viewer: Viewer) -> None:
        """Meet a viewer's request, or tell this viewer why not."""
        match _request(message):
            case {"do": "start", **rest} if not rest:
                if self._device.request_start():
                    self._running = asyncio.ensure_future(self._worker.do(self._run_device))
            case {"do": "stop", **rest} if not rest:
                self._device.request_stop()
            case {"do": "profile", "name": None | str() as name, **rest} if not rest:
                self._device.request_profile(name)
            case _:
                viewer.put(_refused('expected {"do": "start"}, "stop" or "profile"'))
                return
        self._hub.pass_on(self._status())

    def _run_device(self) -> None:
        listener = _DeviceListener(self._loop, self._hub, self._service.observe(), self._status)
        with contextlib.closing(listener):
            self._device.run(listener)


class _DeviceListener:
    """Carries what the device's stream says from its thread to the hub and to the observer, in the loop's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, hub: Hub, observer: Sink, status: Callable[[], str]
    ) -> None:
        self._loop, self._hub, self._observer, self._status = loop, hub, observer, status

    def began(self) -> None:
        self._call(self._hub.begin)

    def said(self, events: Sequence[Event]) -> None:
        lines = [to_json(without_paths(event)) for event in events]
        described = bool(events) and isinstance(events[-1], Session)
        self._call(functools.partial(self._hub.publish, lines, session=described))
        for event in events:
            self._call(functools.partial(self._observer.emit, event))

    def level(self, heard_s: float, level_dbfs: float) -> None:
        level = {"page": "level", "heard_s": round(heard_s, 3), "level_dbfs": round(level_dbfs, 1)}
        self._call(functools.partial(self._hub.pass_on, json.dumps(level)))

    def changed(self) -> None:
        self._call(lambda: self._hub.pass_on(self._status()))

    def close(self) -> None:
        self._call(self._observer.close)

    def refused(self, message: str) -> None:
        self._call(functools.partial(self._hub.pass_on, _refused(message)))

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self._loop.call_soon_threadsafe(function)


async def _send(connection: LimitedConnection, missed: Sequence[str], viewer: Viewer) -> None:
    """Send a viewer what it missed, then each message until the end; then close the connection."""
    with contextlib.suppress(ConnectionClosed):
        for message in missed:
            await connection.send(message)
        while (next_message := await viewer.get()) is not None:
            await connection.send(next_message)
        await connection.close(CloseCode.GOING_AWAY, "the server stops")


def _path(request: Request) -> str:
    return request.path.partition("?")[0]


def _refused(message: str) -> str:
    return json.dumps({"page": "refused", "message": message})


def _request(message: str | bytes) -> dict[str, Any]:
    """Read a viewer's message; {} for one that is not an object of JSON."""
    if isinstance(message, bytes) or len(message) > LONGEST_REQUEST:
        return {}
    try:
        request = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}


def _response(status: HTTPStatus, content: PageFile | str) -> Response:
    file = PageFile("text/plain; charset=utf-8", content.encode()) if isinstance(content, str) else content
    headers = Headers(
        {
            "Connection": "close",
            "Content-Length": str(len(file.body)),
            "Content-Type": file.media_type,
            **HEADERS,
        }
    )
    return Response(status.value, status.phrase, headers, file.body)
