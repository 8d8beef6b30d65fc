"""The server as its clients meet it: real sockets on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.errors import SourceError, UsageError
from edge.events import Device, Event, to_json
from edge.model import profile as profile_module
from edge.model.bundle import Bundle
from edge.model.profile import Profile, profile_path, save_profile
from edge.recognition.recognizer import Recognizer
from edge.server.access import Address
from edge.server.client_session import Service, checked_rate
from edge.server.client_stream import ClientStream, kept_for_clients, shared_engines
from edge.server.rate_limits import Limits, Throttle
from edge.server.server import Server, serve
from tests.edge.schema import checked
from tests.edge.server.clients import (
    END,
    SOON_S,
    Events,
    Open,
    Running,
    connected,
    messages,
    raw,
    rest,
    said_to,
    serve_process,
    types,
    wait_for,
    websocket,
)

Talk = Callable[..., Array]


def told(events: Events) -> Events:
    """Leave out what differs from run to run: times of computing, and the client's own address."""
    noise = {"latency_ms", "lag_ms", "real_time_factor", "source"}
    return [{key: value for key, value in event.items() if key not in noise} for event in events]


def offline(maker: Callable[[], Recognizer], data: bytes, rate: int = 16_000) -> Events:
    stream = ClientStream(maker(), "offline")
    events = [*stream.begin(), *stream.feed(data, rate, time.perf_counter()), *stream.finish()]
    return [checked(to_json(event)) for event in events]


# What a client gets


def test_a_tcp_client_gets_what_its_sound_says_offline(
    serving: Open, make: Callable[[], Recognizer], sound: bytes
) -> None:
    with serving() as running:
        events = said_to(running, sound)
    assert types(events)[0] == "session"
    assert types(events)[-1] == "summary"
    assert {"window", "utterance"} <= set(types(events))
    assert told(events) == told(offline(make, sound))
    assert events[0]["source"].startswith("tcp 127.0.0.1:")


def test_odd_pieces_and_a_stray_byte_at_the_end_change_nothing(
    serving: Open, make: Callable[[], Recognizer], sound: bytes
) -> None:
    pieces = [sound[start : start + 4_999] for start in range(0, len(sound), 4_999)]
    with serving() as running:
        events = said_to(running, sound[:1], sound[1:4], sound[4:4_999], *pieces[1:], b"\1")
    assert told(events) == told(offline(make, sound))


def test_a_websocket_client_gets_the_same(
    serving: Open, make: Callable[[], Recognizer], sound: bytes
) -> None:
    with serving() as running, websocket(running) as client:
        for start in range(0, len(sound), 3_333):
            client.send(sound[start : start + 3_333])
        client.send(END)
        events = messages(client)
    assert told(events) == told(offline(make, sound))


def test_a_client_may_say_its_rate(serving: Open, make: Callable[[], Recognizer], sound: bytes) -> None:
    expected = told(offline(make, sound, 8_000))
    header = json.dumps({"rate": 8_000})
    with serving() as running:
        assert told(said_to(running, header.encode() + b"\n" + sound)) == expected
        for query, first in (("?rate=8000", None), ("", header)):
            with websocket(running, query) as client:
                if first:
                    client.send(first)
                client.send(sound)
                client.send(END)
                assert told(messages(client)) == expected


@pytest.fixture
def anna(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A kept profile."""
    monkeypatch.setattr(profile_module, "profiles_folder", lambda: tmp_path / "profiles")
    head = replace(bundle.head, fc3_bias=np.array([0, 3, 0, 0], np.float32))
    parts = (head, bundle.manifest.levels, bundle.statistics)
    kept = Profile("anna", bundle.fingerprint, *parts, "adopted")
    save_profile(profile_module.profile_path("anna"), kept)
    return kept


def test_a_client_may_name_a_profile_where_the_server_lets_it(
    serving: Open, bundle: Bundle, anna: Profile, make: Callable[[], Recognizer], sound: bytes
) -> None:
    expected = told(offline(shared_engines(bundle, profile=anna, provider="cpu"), sound, 8_000))
    assert expected != told(offline(make, sound, 8_000))
    with serving(find=kept_for_clients(bundle)) as running:
        events = told(said_to(running, b'{"profile": "anna", "rate": 8000}\n' + sound))
        with websocket(running, "?rate=8000") as client:
            for message in ('{"profile": "anna"}', sound, END):
                client.send(message)
            assert told(messages(client)) == events
        assert "profile" not in str(running.said)
        assert told(said_to(running, sound)) == told(offline(make, sound)), "the next client has none"
    assert (events[0]["type"], events[0]["profile"]) == ("session", None)
    assert events[1]["profile"] == "anna"
    assert events[1:] == [expected[0] | {"profile": "anna"}, *expected[1:]]


@pytest.mark.parametrize("name", ["J\u00fcrgen", "Ju\u0308rgen"])
def test_a_client_names_a_profile_in_any_script_however_it_composes_it(
    serving: Open, bundle: Bundle, anna: Profile, name: str
) -> None:
    save_profile(profile_path("Jürgen"), anna)
    order = json.dumps({"profile": name}, ensure_ascii=False)
    with serving(find=kept_for_clients(bundle)) as running:
        events = said_to(running, order.encode() + b"\n")
    assert events[1]["profile"] == "Jürgen"


def test_a_client_is_told_no_name_but_the_one_it_gave(serving: Open, bundle: Bundle, anna: Profile) -> None:
    speakers = replace(bundle.manifest, name="Bob", training={"speaker": {"name": "Bob"}})
    engines = shared_engines(replace(bundle, manifest=speakers), profile=anna, provider="cpu")

    def make() -> Recognizer:
        recognizer = engines()
        recognizer.engine.reason = "/home/carla/.cache/mmtl/1.plan cannot be read"
        return recognizer

    save_profile(profile_path("dora"), anna)
    with serving(maker=make, find=kept_for_clients(bundle)) as running:
        (session, *_), named = said_to(running), said_to(running, b'{"profile": "dora"}\n')
    assert (session["profile"], session["bundle"]) == ("unnamed", "unnamed")
    assert named[1]["profile"] == "dora"
    assert not re.search("anna|bob|carla", str([session, *named]), re.IGNORECASE)


@pytest.mark.parametrize("name", ["bob", "../anna", "/etc/passwd", "anna.safetensors", "", "a\0", "x" * 500])
def test_a_client_learns_nothing_of_profiles_it_cannot_name(
    serving: Open, bundle: Bundle, anna: Profile, tmp_path: Path, name: str
) -> None:
    with serving(find=kept_for_clients(bundle)) as running:
        events = said_to(running, json.dumps({"profile": name}).encode() + b"\n" + bytes(32_000))
    assert types(events) == ["session", "error", "summary"]
    assert events[1]["message"].startswith("no profile")
    assert str(tmp_path) not in str(events)
    assert "anna" in name or "anna" not in events[1]["message"]


@pytest.mark.parametrize("name", [3, None, ["anna"], {"anna": 1}])
def test_a_profile_that_is_no_name_is_refused(serving: Open, bundle: Bundle, name: object) -> None:
    with serving(find=kept_for_clients(bundle)) as running:
        events = said_to(running, json.dumps({"profile": name}).encode() + b"\n")
    assert "expected its name in quotes" in events[1]["message"]


def test_a_server_that_allows_no_profiles_says_so(serving: Open, anna: Profile) -> None:
    with serving() as running:
        events = said_to(running, b'{"profile": "anna"}\n')
    assert "leave it out" in events[1]["message"]


def test_events_come_while_the_sound_still_does(serving: Open, sound: bytes) -> None:
    with serving() as running, connected(running) as client, client.makefile("r") as lines:
        assert checked(lines.readline())["type"] == "session"
        client.sendall(sound[:100_000])
        while checked(lines.readline())["type"] != "window":
            pass


def test_two_clients_at_once_do_not_hear_each_other(
    serving: Open, make: Callable[[], Recognizer], talk: Talk
) -> None:
    sounds = [raw(talk((3.5, 0.3), (0.5, 0.0), seed=seed)) for seed in range(2)]
    with serving() as running, connected(running) as one, connected(running) as other:
        for start in range(0, len(sounds[0]), 8_000):
            one.sendall(sounds[0][start : start + 8_000])
            other.sendall(sounds[1][start : start + 8_000])
        one.shutdown(socket.SHUT_WR)
        other.shutdown(socket.SHUT_WR)
        events = [rest(one), rest(other)]
    assert [told(each) for each in events] == [told(offline(make, sound)) for sound in sounds]
    assert told(events[0])[1:] != told(events[1])[1:]


def test_a_client_without_sound_gets_a_session_and_a_summary(serving: Open) -> None:
    with serving() as running:
        assert types(said_to(running)) == ["session", "summary"]
        assert types(said_to(running, b"\0")) == ["session", "summary"]


# The end


def test_stopping_gives_everybody_the_tail_and_the_summary(serving: Open, sound: bytes) -> None:
    heard: Events = []
    with contextlib.ExitStack() as clients:
        with serving() as running:
            client = clients.enter_context(connected(running))
            other = clients.enter_context(websocket(running))
            reader = threading.Thread(target=lambda: heard.extend(checked(message) for message in other))
            reader.start()
            client.sendall(sound)
            other.send(sound)
            wait_for(lambda: types(heard).count("window") > 1)
        reader.join(SOON_S)
        assert types(rest(client))[-1] == "summary"
    assert types(heard)[-1] == "summary"


def test_clients_that_are_cut_off_at_the_end_are_no_error(
    bundle: Bundle, serving: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    class Talkative(Recognizer):
        def feed(self, samples: Array) -> list[Event]:
            return [*super().feed(samples), *(Device(0.0, 60_000 * "a", "lost") for _ in range(200))]

    maker = functools.partial(Talkative, bundle, provider="cpu")
    with contextlib.ExitStack() as clients, serving(Limits(idle_s=20.0, goodbye_s=0.1), maker) as running:
        client = clients.enter_context(connected(running))
        client.sendall(bytes(3_200))
        assert client.recv(100_000).count(b"\n") > 0
        wait_for(lambda: bool(select.select([client], [], [], 0.0)[0]))
    assert running.said[-1].endswith("disconnected by the server")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_serves_until_a_signal_and_ends_well(number: signal.Signals, sound: bytes) -> None:
    with serve_process("--tcp", "0") as server:
        with connected(server) as client, client.makefile("r") as lines:
            assert checked(lines.readline())["type"] == "session"
            client.sendall(sound[:-2_000])
            while checked(lines.readline())["type"] != "window":
                pass
            os.kill(server.process.pid, number)
            left = [checked(line) for line in lines]
        assert server.process.wait(SOON_S) == 0
    assert server.said[0].startswith("mmtl: listening for tcp on 127.0.0.1:")
    (error,) = [event for event in left if event["type"] == "error"]
    assert error["message"].startswith("the server stops")
    assert types(left)[-1] == "summary"


BACKLOG_S = 60.0
"""Sound that each client has sent before the server is told to stop."""


@pytest.mark.parametrize("kind", ["tcp", "websocket"])
def test_a_stop_gives_clients_with_a_backlog_their_last_events(kind: str, sound: bytes) -> None:
    backlog = sound * round(BACKLOG_S * 32_000 / len(sound))
    heard: list[Events] = []
    with serve_process(f"--{kind}", "0", "--clients", "24") as server:
        clients = [threading.Thread(target=_send_all, args=(server, kind, backlog, heard)) for _ in range(24)]
        for client in clients:
            client.start()
        wait_for(lambda: sum("connected" in line for line in server.said) == 24)
        time.sleep(0.5)
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(SOON_S) == 0
        for client in clients:
            client.join(SOON_S)
    assert [types(events)[-1] for events in heard] == 24 * ["summary"]
    assert all("error" in types(events) for events in heard)
    assert max(events[-1]["duration_s"] for events in heard) < BACKLOG_S
    assert not any("disconnected by the server" in line for line in server.said)


def _send_all(server: Running, kind: str, data: bytes, heard: list[Events]) -> None:
    """Send without reading, as fast as it is taken, then read to the end."""
    if kind == "tcp":
        with connected(server) as client:
            reader = threading.Thread(target=lambda: heard.append(rest(client)))
            reader.start()
            with contextlib.suppress(OSError):
                client.sendall(data)
            reader.join(SOON_S)
        return
    with websocket(server) as client:
        reader = threading.Thread(target=lambda: heard.append(messages(client)))
        reader.start()
        with contextlib.suppress(Exception):
            for start in range(0, len(data), 32_000):
                client.send(data[start : start + 32_000])
        reader.join(SOON_S)


def test_a_port_in_use_is_a_usage_error(make: Callable[[], Recognizer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(UsageError, match=r"cannot listen on 127.0.0.1:\d+ \(.*choose another"):
            asyncio.run(Server(Service(make)).run(tcp=address))


def test_nowhere_to_listen_is_a_usage_error(make: Callable[[], Recognizer]) -> None:
    with pytest.raises(UsageError, match="no address to listen on"):
        serve(Service(make))


# Its parts


@pytest.mark.parametrize("asked", ["", "-16000", "1e4", 3_999, 192_001, 10**30, True, [], {}, "16000 "])
def test_a_rate_that_nobody_records_at_is_a_usage_error(asked: object) -> None:
    assert [checked_rate(asked) for asked in (None, 48_000, "44100")] == [16_000, 48_000, 44_100]
    with pytest.raises(UsageError, match="expected 4000 to 192000 Hz"):
        checked_rate(asked)


def test_the_throttle_lets_real_time_pass_and_holds_back_more() -> None:
    throttle = Throttle(speed=2.0)
    assert throttle.wait_s(1.0, now_s=10.0) == pytest.approx(0.5)
    assert throttle.wait_s(1.0, now_s=11.0) == pytest.approx(0.5)
    assert throttle.wait_s(1.0, now_s=11.0) == pytest.approx(1.0)


def test_streams_made_in_one_thread_share_an_engine(make: Callable[[], Recognizer]) -> None:
    engines = [make().engine, make().engine]
    thread = threading.Thread(target=lambda: engines.append(make().engine))
    thread.start()
    thread.join()
    assert engines[0] is engines[1]
    assert engines[2] is not engines[0]


def test_an_ear_refuses_a_sound_file_and_ends_all_the_same(make: Callable[[], Recognizer]) -> None:
    stream = ClientStream(make(), "client")
    with pytest.raises(SourceError, match=r"a sound file arrived \(FLAC\)"):
        stream.feed(b"fLaC\0\0", 16_000, 0.0)
    assert [event.type for event in stream.finish()] == ["summary"]
