"""Web pages of this process on the loopback, and the programs that visit them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from websockets.sync.client import ClientConnection, connect

from edge.audio.block import Source
from edge.audio.sources import FileSource
from edge.errors import ProfileError
from edge.model.profile import Profile
from edge.server.access import Access, Address
from edge.server.client_session import Service
from edge.server.server import Server
from edge.web.enrolment import EnrolmentService
from edge.web.site import Profiles, Site
from tests.edge.server.clients import FAST, SOON_S

Messages = list[dict[str, Any]]


def no_profile(name: str) -> Profile:
    raise ProfileError(f"no profile {name!r} is available here")


@dataclass
class RunningSite:
    """A page: its port, and what it said to its operator."""

    port: int
    said: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask for a file."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def websocket(self, path: str, **options: Any) -> ClientConnection:
        """Connect; used as a context manager."""
        client: ClientConnection = connect(f"ws://127.0.0.1:{self.port}/{path}", proxy=None, **options)
        return client

    @contextlib.contextmanager
    def watching(self, token: str = "", **options: Any) -> Iterator[ClientConnection]:
        """Watch the device."""
        with self.websocket("watch", **options) as viewer:
            viewer.send(json.dumps({"token": token}))
            yield viewer


def received(viewer: ClientConnection, until: Callable[[dict[str, Any]], bool]) -> Messages:
    """Return a viewer's messages up to the first of a kind, earlier events among them."""
    messages: Messages = []
    while True:
        message = json.loads(viewer.recv(timeout=SOON_S))
        for part in message if isinstance(message, list) else [message]:
            messages.append(part)
            if until(part):
                return messages


def of_type(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message.get("type") == name


def page_message(name: str, **fields: Any) -> Callable[[dict[str, Any]], bool]:
    def matches(message: dict[str, Any]) -> bool:
        return message.get("page") == name and {**message, **fields} == message

    return matches


@contextlib.contextmanager
def open_page(
    service: Service,
    open_source: Callable[[], Source] = lambda: FileSource("missing.wav"),
    find: Callable[[str], Profile] = no_profile,
    profiles: Callable[[], list[str]] = list,
    port: int = 0,
    enrolment: EnrolmentService | None = None,
) -> Iterator[RunningSite]:
    """Run a page in a thread of its own, and check that it ends in time."""
    running, ready = RunningSite(0), threading.Event()
    handle: dict[str, Any] = {}
    address = Address("127.0.0.1", port)

    async def main() -> None:
        server = Server(service, running.said.append)
        handle.update(server=server, loop=asyncio.get_running_loop())

        def note(ports: dict[str, int]) -> None:
            running.port = ports["web"]
            ready.set()

        offered = Profiles(find, profiles, enrolment=enrolment)
        site = Site(address, service, open_source, source="mic", profiles=offered)
        with contextlib.closing(site):
            await server.run(web=site, ready=note)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(SOON_S)
        yield running
    finally:
        handle["loop"].call_soon_threadsafe(handle["server"].stop)
        thread.join(2 * SOON_S)
        assert not thread.is_alive()


def service(make: Callable[[], Any], access: Access | None = None, **options: Any) -> Service:
    return Service(make, limits=FAST, access=access or Access(), **options)
