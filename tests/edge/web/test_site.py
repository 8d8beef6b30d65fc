"""The page's port: files, refusals, viewers of the device, and a browser's own stream."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge.arrays import Array
from edge.audio.block import NO_SAMPLES, Block, InputWarning, Source
from edge.audio.microphone import Microphone
from edge.audio.sources import FileSource
from edge.events import Window, to_json
from edge.model.bundle import Bundle
from edge.model.profile import ADOPTED, Profile
from edge.recognition.recognizer import Recognizer
from edge.server.access import Access
from edge.server.client_session import Service
from edge.server.rate_limits import Limits
from edge.web.page_files import load_page
from edge.web.site import TOKEN_REFUSED
from tests.edge.audio.portaudio import desk
from tests.edge.schema import checked
from tests.edge.server.clients import END, SOON_S, raw
from tests.edge.web.sites import RunningSite, of_type, open_page, page_message, received, service

Make = Callable[[], Recognizer]
START = json.dumps({"do": "start"})
TOKEN = b"right"
STOP = json.dumps({"do": "stop"})


class EndlessSource:
    """Speech again and again, faster than real time, until it is left; and warnings, if there is one."""

    name = "endless"
    live = False

    def __init__(self, sound: Array, warning: InputWarning | None = None) -> None:
        self._sound = sound
        self._warning = warning
        self.opened = 0

    def __enter__(self) -> EndlessSource:
        self.opened += 1
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __iter__(self) -> Iterator[Block]:
        while True:
            for start in range(0, len(self._sound), 3_200):
                time.sleep(0.005)
                yield Block(self._sound[start : start + 3_200], time.perf_counter())
                for _ in range(20 if self._warning else 0):
                    time.sleep(0.005)
                    yield Block(NO_SAMPLES, time.perf_counter(), warning=self._warning)


@pytest.fixture
def recording(tmp_path: Path, talk: Callable[..., Array]) -> Path:
    path = tmp_path / "<img src=x onerror=alert(1)>.wav"
    soundfile.write(path, talk((0.5, 0.0), (3.0, 0.3), (0.5, 0.0)), 16_000, subtype="PCM_16")
    return path


def file_source(path: Path) -> Callable[[], Source]:
    return lambda: FileSource(path)


@pytest.fixture(scope="module")
def site(make: Make) -> Iterator[RunningSite]:
    """A page without a token, whose source cannot be opened."""
    with open_page(service(make)) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(make: Make) -> Iterator[RunningSite]:
    """A page that requires a token."""
    with open_page(service(make, Access(token=TOKEN))) as running:
        yield running


# Files


def test_every_file_comes_with_a_strict_policy_and_its_type(site: RunningSite) -> None:
    for path, file in load_page().items():
        answer, body = site.get(path)
        assert (answer.status, body) == (200, file.body)
        assert answer.headers["Content-Type"] == file.media_type
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_the_page_is_small_and_names_no_other_server() -> None:
    files = load_page()
    assert {"/", "/app.js", "/worklet.js", "/style.css"} <= set(files)
    assert sum(len(file.body) for path, file in files.items() if path != "/") < 150_000
    for file in files.values():
        text = file.body.decode()
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
        assert "innerHTML" not in text
        assert " style=" not in text
        assert " onclick=" not in text


@pytest.mark.parametrize(
    "path", ["/x", "/../site.py", "/%2e%2e/site.py", "/app.js/", "//app.js", "/__init__.py"]
)
def test_nothing_else_is_served(site: RunningSite, path: str) -> None:
    answer, body = site.get(path)
    assert answer.status == 404
    assert b"import" not in body


# Refusals


def test_a_name_that_is_not_this_machine_s_is_refused(site: RunningSite) -> None:
    answer, body = site.get("/", Host="evil.example")
    assert answer.status == 403
    assert b"<html" not in body
    with pytest.raises(InvalidStatus, match="403"):
        refused(site, "watch", additional_headers={"Host": "evil.example"})
    assert any("evil.example" in line for line in site.said)


@pytest.mark.parametrize("path", ["watch", "stream"])
def test_a_page_of_another_origin_is_refused(site: RunningSite, path: str) -> None:
    for origin in ("https://evil.example", "http://localhost:3000", "null"):
        with pytest.raises(InvalidStatus, match="403"):
            refused(site, path, origin=origin)
    with site.websocket(path, origin=f"http://127.0.0.1:{site.port}"):
        pass


def refused(site: RunningSite, path: str, **options: Any) -> None:
    with site.websocket(path, **options):
        pass


@pytest.mark.parametrize("first", ['{"token": "wrong"}', "{}", "[]", "x", '{"token": 1}', b"\0\0"])
def test_a_viewer_without_the_token_sees_nothing(guarded: RunningSite, first: str | bytes) -> None:
    with guarded.websocket("watch") as viewer:
        viewer.send(first)
        with pytest.raises(ConnectionClosed) as closed:
            viewer.recv(timeout=SOON_S)
    assert closed.value.rcvd
    assert closed.value.rcvd.code == TOKEN_REFUSED
    with guarded.watching("right") as viewer:
        received(viewer, page_message("hello"))


def test_a_viewer_that_sends_no_token_is_closed_in_time(make: Make) -> None:
    impatient = Service(make, limits=Limits(token_s=0.05), access=Access(token=TOKEN))
    with open_page(impatient) as site, site.websocket("watch") as viewer, pytest.raises(ConnectionClosed):
        viewer.recv(timeout=SOON_S)


@pytest.mark.parametrize(
    "request_", ["x", "[]", '{"do": "reboot"}', '{"do": "start", "x": 1}', '{"do": "profile"}', b"\0"]
)
def test_a_request_that_is_none_is_answered_to_its_viewer_only(
    site: RunningSite, request_: str | bytes
) -> None:
    with site.watching() as viewer, site.watching() as other:
        received(other, page_message("status"))
        viewer.send(request_)
        received(viewer, page_message("refused"))
        viewer.send(STOP)
        assert not any(map(page_message("refused"), received(other, page_message("status"))))


# The device


def test_all_viewers_see_what_the_program_says_of_the_recording(make: Make, recording: Path) -> None:
    source = file_source(recording)
    recognizer = make()
    with source() as sound:
        expected = [event for block in sound for event in recognizer.feed(block.samples)] + recognizer.flush()
    with open_page(service(make), source) as site, site.watching() as first, site.watching() as second:
        received(second, page_message("hello"))
        first.send(START)
        seen = [received(viewer, of_type("summary")) for viewer in (first, second)]
        with site.watching() as late:
            seen.append(received(late, of_type("summary")))
    for messages in seen:
        events = [checked(json.dumps(message)) for message in messages if "type" in message]
        assert events[0]["source"] == recording.name
        labels = [event["label"] for event in events if event["type"] in {"window", "utterance"}]
        wanted = [json.loads(to_json(event)) for event in expected]
        assert labels == [event["label"] for event in wanted if event["type"] in {"window", "utterance"}]
        assert labels


def test_one_viewer_starts_another_stops_and_it_can_be_started_again(
    make: Make, talk: Callable[..., Array]
) -> None:
    source = EndlessSource(talk((2.0, 0.3)))
    with (
        open_page(service(make), lambda: source) as site,
        site.watching() as first,
        site.watching() as second,
    ):
        for _ in range(2):
            first.send(START)
            first.send(START)
            received(second, of_type("window"))
            second.send(STOP)
            received(first, of_type("summary"))
            received(first, page_message("status", state="off"))
        assert source.opened == 2


def test_a_microphone_that_delivers_nothing_can_be_stopped(make: Make) -> None:
    portaudio = desk()

    def microphone() -> Source:
        return Microphone(portaudio=portaudio, stall_s=2 * SOON_S)

    with open_page(service(make), microphone) as site, site.watching() as viewer:
        viewer.send(START)
        received(viewer, page_message("status", state="on"))
        viewer.send(STOP)
        received(viewer, page_message("status", state="off"))
    assert [stream.closed for stream in portaudio.streams] == [True]


def test_a_source_that_does_not_open_is_said_and_can_be_tried_again(site: RunningSite) -> None:
    with site.watching() as viewer:
        for _ in range(2):
            viewer.send(START)
            error = received(viewer, of_type("error"))[-1]
            assert "missing.wav" in error["message"]
            received(viewer, page_message("status", state="off"))


def test_a_profile_that_cannot_be_applied_leaves_the_stream_as_it_is(
    make: Make, talk: Callable[..., Array]
) -> None:
    source = EndlessSource(talk((2.0, 0.3)))
    with open_page(service(make), lambda: source) as site, site.watching() as viewer:
        viewer.send(START)
        received(viewer, of_type("window"))
        viewer.send(json.dumps({"do": "profile", "name": "<b>nobody</b>"}))
        assert "nobody" in received(viewer, page_message("refused"))[-1]["message"]
        received(viewer, of_type("window"))
        received(viewer, page_message("level"))


def test_a_profile_is_applied_in_the_middle_of_the_stream(
    make: Make, talk: Callable[..., Array], bundle: Bundle
) -> None:
    anna = Profile(
        "anna", bundle.fingerprint, bundle.head, bundle.manifest.levels, bundle.statistics, ADOPTED
    )
    source = EndlessSource(talk((2.0, 0.3)))
    page = open_page(service(make), lambda: source, lambda name: anna, lambda: ["anna"])
    with page as site, site.watching() as viewer:
        assert received(viewer, page_message("hello"))[-1]["profiles"] == ["anna"]
        viewer.send(START)
        before = received(viewer, of_type("window"))[-1]["end_s"]
        viewer.send(json.dumps({"do": "profile", "name": "anna"}))
        assert received(viewer, of_type("session"))[-1]["profile"] == "anna"
        received(viewer, page_message("status", profile="anna"))
        assert received(viewer, of_type("window"))[-1]["end_s"] > before
        viewer.send(json.dumps({"do": "profile", "name": None}))
        assert received(viewer, of_type("session"))[-1]["profile"] is None


def test_a_viewer_that_stops_reading_is_dropped_and_slows_nobody(
    make: Make, talk: Callable[..., Array]
) -> None:
    source = EndlessSource(talk((2.0, 0.3)), InputWarning("format", "x" * 10_000))
    with open_page(service(make), lambda: source) as site, site.watching() as viewer:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)  # before a window is offered
            stuck.connect(("127.0.0.1", site.port))
            stuck.sendall(handshake(site) + masked(b'{"token": ""}'))
            received(viewer, page_message("status", viewers=2))
            viewer.send(START)
            received(viewer, page_message("status", viewers=1))
        received(viewer, of_type("window"))


def handshake(site: RunningSite) -> bytes:
    lines = [
        *("GET /watch HTTP/1.1", f"Host: 127.0.0.1:{site.port}", "Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", "", ""),
    ]
    return "\r\n".join(lines).encode()


def masked(text: bytes) -> bytes:
    """Return a text frame with a mask of zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def test_a_server_that_stops_tells_its_viewers_and_ends_the_stream(
    make: Make, talk: Callable[..., Array]
) -> None:
    source = EndlessSource(talk((2.0, 0.3)))
    with contextlib.ExitStack() as stack:
        with open_page(service(make), lambda: source) as site:
            viewer = stack.enter_context(site.watching())
            viewer.send(START)
            received(viewer, of_type("window"))
        with pytest.raises(ConnectionClosed):
            received(viewer, page_message("never"))


# A browser's own sound


def test_a_browser_s_own_sound_has_a_recogniser_of_its_own(
    make: Make, guarded: RunningSite, talk: Callable[..., Array]
) -> None:
    sound = talk((0.5, 0.0), (3.0, 0.3), (0.5, 0.0))
    recognizer = make()
    heard = np.frombuffer(raw(sound), "<i2").astype(np.float32) / np.float32(32_768)
    events = [*recognizer.feed(heard), *recognizer.flush()]
    labels = [event.label for event in events if isinstance(event, Window)]
    with guarded.watching("right") as viewer:
        received(viewer, page_message("status", viewers=1))
        with guarded.websocket("stream") as own:
            own.send(json.dumps({"token": "right"}))
            own.send(json.dumps({"rate": 16_000, "channels": 1}))
            own.send(raw(sound))
            own.send(END)
            said = [checked(message) for message in own if isinstance(message, str)]
        assert [event["label"] for event in said if event["type"] == "window"] == labels
        viewer.send(STOP)
        assert not any(map(of_type("window"), received(viewer, page_message("status"))))
