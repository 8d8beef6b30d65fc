"""Browsers that make a profile: who is admitted, in which thread they are served, and how that ends."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection

from edge.recognition.recognizer import Recognizer
from edge.server.access import Access
from edge.web import enrolment_connections
from edge.web.enrolment import find_enrolment
from edge.web.site import TOKEN_REFUSED
from tests.edge.server.clients import SOON_S
from tests.edge.web.sites import RunningSite, open_page, page_message, received, service

Make = Callable[[], Recognizer]
TOKEN = b"right"


@dataclass
class Echo:
    """A service that repeats what it takes, and notes its threads."""

    opened: int = 0
    closed: int = 0
    threads: set[str] = field(default_factory=set)
    saved: Callable[[], None] = lambda: None
    hold: threading.Event = field(default_factory=threading.Event)

    def describe(self) -> Mapping[str, object]:
        return {"kinds": ["labelled"]}

    def open(self, saved: Callable[[], None]) -> Echo:
        self.opened += 1
        self.saved = saved
        return self

    def take(self, message: str | bytes) -> Iterator[str | bytes]:
        self.threads.add(threading.current_thread().name)
        yield message
        if message == "hold":
            self.hold.wait(SOON_S)
            yield "held"
        elif message == "save":
            self.saved()
        elif message == "fail":
            raise OSError("no room")

    def close(self) -> None:
        self.closed += 1


def eventually(holds: Callable[[], bool]) -> bool:
    late_s = time.monotonic() + SOON_S
    while not holds() and time.monotonic() < late_s:
        time.sleep(0.01)
    return holds()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def site(make: Make, echo: Echo) -> Iterator[RunningSite]:
    with open_page(service(make), profiles=lambda: ["anna"], enrolment=echo) as running:
        yield running


def entered(client: ClientConnection, token: str = "") -> ClientConnection:
    client.send(json.dumps({"token": token}))
    return client


def close_code(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=SOON_S)
    assert closed.value.rcvd
    return closed.value.rcvd.code


def test_work_is_done_off_the_event_loop_and_others_go_on_meanwhile(site: RunningSite, echo: Echo) -> None:
    with site.websocket("enrol") as client, site.websocket("enrol") as other:
        entered(client).send("hold")
        assert client.recv(timeout=SOON_S) == "hold"
        entered(other).send(b"sound")
        assert other.recv(timeout=SOON_S) == b"sound"
        assert site.get("/")[0].status == 200
        echo.hold.set()
        assert client.recv(timeout=SOON_S) == "held"
    assert all(name.startswith("recogniser") for name in echo.threads)
    assert eventually(lambda: echo.closed == 2)


def test_a_new_profile_is_told_to_all_viewers(site: RunningSite) -> None:
    with site.watching() as viewer, site.websocket("enrol") as client:
        [hello] = received(viewer, page_message("hello"))
        assert hello["enrolment"] == {"kinds": ["labelled"]}
        entered(client).send("save")
        told = received(viewer, page_message("profiles"))[-1]
        assert told["profiles"] == ["anna"]


def test_more_sessions_than_the_device_can_serve_are_turned_away(site: RunningSite) -> None:
    first, second = site.websocket("enrol"), site.websocket("enrol")
    with first, second:
        for client in (first, second):
            entered(client).send("x")
            client.recv(timeout=SOON_S)
        with site.websocket("enrol") as third:
            assert close_code(entered(third)) == CloseCode.TRY_AGAIN_LATER


def test_a_tab_without_requests_is_disconnected(
    make: Make, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment_connections.EnrolmentConnections.__init__, "__defaults__", (0.3,))
    with open_page(service(make), enrolment=echo) as site, site.websocket("enrol") as client:
        entered(client).send(b"sound")
        assert client.recv(timeout=SOON_S) == b"sound"
        assert close_code(client) == CloseCode.GOING_AWAY
    assert echo.closed == 1


def test_a_server_that_stops_closes_the_session(make: Make, echo: Echo) -> None:
    with contextlib.ExitStack() as clients:
        with open_page(service(make), enrolment=echo) as site:
            client = clients.enter_context(site.websocket("enrol"))
            entered(client).send("x")
            client.recv(timeout=SOON_S)
        assert echo.closed == 1
        assert close_code(client) == CloseCode.GOING_AWAY


def test_an_error_that_nobody_expected_ends_one_session_and_is_logged(site: RunningSite, echo: Echo) -> None:
    with site.websocket("enrol") as client:
        entered(client).send("fail")
        assert client.recv(timeout=SOON_S) == "fail"
        assert close_code(client) == CloseCode.INTERNAL_ERROR
    assert eventually(lambda: echo.closed == 1)
    assert "enrolment failed: OSError: no room" in site.said
    with site.websocket("enrol") as client:
        entered(client).send("x")
        assert client.recv(timeout=SOON_S) == "x"


def test_the_rules_of_access_are_those_of_the_page_s_microphone(make: Make, echo: Echo) -> None:
    with open_page(service(make, Access(token=TOKEN)), enrolment=echo) as site:
        with site.websocket("enrol") as client:
            assert close_code(entered(client, "wrong")) == TOKEN_REFUSED
        for options in ({"origin": "http://evil.example"}, {"additional_headers": {"Host": "evil.example"}}):
            with pytest.raises(InvalidStatus) as refused, site.websocket("enrol", **options):
                pass
            assert refused.value.response.status_code == 403
        assert echo.opened == 0
        with site.websocket("enrol") as client:
            entered(client, TOKEN.decode()).send("x")
            assert client.recv(timeout=SOON_S) == "x"


def test_without_a_service_there_is_no_such_page(make: Make) -> None:
    with open_page(service(make)) as site:
        with pytest.raises(InvalidStatus) as refused, site.websocket("enrol"):
            pass
        assert refused.value.response.status_code == 404
        with site.watching() as viewer:
            assert received(viewer, page_message("hello"))[-1]["enrolment"] is None


def test_a_service_is_found_by_its_entry_point(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def load(self) -> type[Offer]:
            return Offer

    @dataclass
    class Offer:
        bundle: object

    asked = []

    def entry_points(**chosen: str) -> list[Entry]:
        asked.append(chosen)
        return [Entry()] if len(asked) == 1 else []

    monkeypatch.setattr("edge.web.enrolment.entry_points", entry_points)
    bundle = make().bundle
    found = find_enrolment(bundle)
    assert isinstance(found, Offer)
    assert found.bundle is bundle
    assert asked == [{"group": "mmtl.enrolment", "name": "browser"}]
    assert find_enrolment(bundle) is None
