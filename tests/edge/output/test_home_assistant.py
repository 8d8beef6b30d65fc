"""A run appears in Home Assistant as a device: the messages, and a real broker that keeps them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.events import Device, DeviceState, Event, Session, Speech, Summary, Window
from edge.labels import EMOTIONS
from edge.output.home_assistant import CONFIDENCE_S, FORGET_S, DiscoveredDevice
from edge.output.mqtt import Mqtt
from tests.edge.output.test_mqtt import SESSION, broker, free_port, needs_broker, reader, target, wait_for

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

SUMMARY = Summary(9.0, 30, 2, 0, {}, 0.1)


def window(end_s: float, label: str = "happy", probability: float = 0.8, *, speech: bool = True) -> Window:
    rest = (1.0 - probability) / 3.0
    smoothed = {name: probability if name == label else rest for name in EMOTIONS}
    return Window(end_s - 3.0, end_s, smoothed, smoothed, label, speech, -20.0, {}, 0.0)


def microphone(state: DeviceState) -> Device:
    return Device(1.0, "usb", state)


@dataclass
class Seen:
    """What a device is to publish, event by event."""

    device: DiscoveredDevice = field(default_factory=lambda: DiscoveredDevice("home/kitchen", "1.0"))

    def states(self, *events: Event) -> list[Any]:
        return [
            json.loads(self.device.state.to_json())["emotion"] for event in events if self.device.take(event)
        ]


def test_the_configuration_is_what_home_assistant_requires_of_a_device() -> None:
    device = DiscoveredDevice("home/kitchen", "1.0")
    told = json.loads(device.configuration())
    assert re.fullmatch(
        r"homeassistant/device/mmtl_home_kitchen_[0-9a-f]{8}/config", device.configuration_topic
    )
    assert told["device"]["identifiers"] == [device.identifier]
    assert told["device"]["name"] == "mmtl kitchen"
    assert told["origin"]["name"] == "mmtl"
    assert told["availability_topic"] == "home/kitchen/availability"
    platforms = {key: part["platform"] for key, part in told["components"].items()}
    assert platforms == {"emotion": "sensor", "confidence": "sensor", "speech": "binary_sensor"}
    assert told["components"]["emotion"]["options"] == ["neutral", "happy", "sad", "angry", "unsure"]
    assert len({part["unique_id"] for part in told["components"].values()}) == 3
    for key, part in told["components"].items():
        assert part["value_template"] == "{{ value_json." + key + " }}"
        assert key in json.loads(device.state.to_json())


def test_a_topic_is_a_device_of_its_own_whatever_its_characters() -> None:
    topics = ["home/kitchen", "home_kitchen", "HOME/kitchen", "küche", "台所", "mmtl"]
    names = [DiscoveredDevice(topic, "1.0").identifier for topic in topics]
    assert len(set(names)) == len(topics)
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", name) for name in names)
    assert names == [DiscoveredDevice(topic, "2.0").identifier for topic in topics]


def test_a_state_is_published_where_it_changes_and_a_confidence_not_at_every_window() -> None:
    steady = [window(3.0 + 0.24 * step, probability=0.5 + 0.01 * step) for step in range(26)]
    seen = Seen()
    assert seen.states(SESSION, Speech(2.0, active=True)) == [None]
    published = [event.end_s for event in steady if seen.states(event)]
    assert published == pytest.approx(
        [3.0, 5.16, 7.32]
    )  # every 9th window: the first that CONFIDENCE_S allows
    assert 8 * 0.24 < CONFIDENCE_S <= 9 * 0.24
    assert seen.states(window(9.3, "angry")) == ["angry"]
    assert seen.states(window(30.0, "angry")) == []


def test_an_emotion_is_forgotten_some_time_after_the_last_speech() -> None:
    seen = Seen()
    seen.states(SESSION, window(3.0))
    assert seen.states(window(3.0 + FORGET_S, speech=False)) == []
    assert seen.states(window(3.3 + FORGET_S, speech=False)) == [None]
    assert seen.device.state.confidence is None


def test_an_answer_that_is_unsure_is_as_confident_as_its_likeliest_emotion() -> None:
    device = DiscoveredDevice("mmtl", "1.0")
    probs = {"neutral": 0.31, "happy": 0.29, "sad": 0.2, "angry": 0.2}
    device.take(Window(0.0, 3.0, probs, probs, "unsure", True, -20.0, {}, 0.0))
    assert (device.state.emotion, device.state.confidence) == ("unsure", 31)


def test_a_microphone_that_is_unplugged_makes_the_device_unavailable_and_a_mute_one_does_not() -> None:
    device = DiscoveredDevice("mmtl", "1.0")
    device.take(SESSION)
    device.take(window(3.0))
    assert not device.take(microphone("silent"))
    assert device.take(microphone("lost"))
    assert (device.available, device.state.emotion) == (False, None)
    assert device.take(microphone("back"))
    assert device.available


@contextlib.contextmanager
def announced(folder: Path, port: int) -> Iterator[tuple[Mqtt, list[tuple[str, str]]]]:
    """Run a broker, a subscriber that was there first, and a run that is announced."""
    with broker(folder, port), reader(port, "#") as heard:
        sink = Mqtt(target(port), lambda line: None, DiscoveredDevice("mmtl", "1.0"))
        try:
            yield sink, heard
        finally:
            sink.close()


def payloads(heard: list[tuple[str, str]], topic: str) -> list[str]:
    return [payload for published, payload in heard if published == topic]


@needs_broker
def test_a_run_appears_by_itself_and_is_offline_after_it(tmp_path: Path) -> None:
    port = free_port()
    with announced(tmp_path, port) as (sink, heard):
        for event in (SESSION, Speech(2.0, active=True), window(3.0)):
            sink.emit(event)
        wait_for(lambda: "happy" in "".join(payloads(heard, "mmtl/state")))
        sink.emit(SUMMARY)
        sink.close()
        wait_for(lambda: payloads(heard, "mmtl/availability")[-1:] == ["offline"])
        with reader(port, "#") as retained:
            wait_for(lambda: len(retained) == 2)
    told = DiscoveredDevice("mmtl", "1.0")
    assert payloads(heard, told.configuration_topic) == [told.configuration()]
    assert payloads(heard, "mmtl/availability") == ["online", "offline"]
    emotions = [json.loads(state)["emotion"] for state in payloads(heard, "mmtl/state")]
    assert emotions[-2:] == ["happy", None]
    assert sorted(retained) == sorted(
        [("mmtl/availability", "offline"), (told.configuration_topic, told.configuration())]
    ), "the broker keeps no emotion"
    assert [topic for topic, _ in heard if topic.endswith(("session", "window", "summary"))] == [
        "mmtl/session",
        "mmtl/window",
        "mmtl/summary",
    ]
    assert sink.undelivered == 0


@needs_broker
def test_a_connection_that_breaks_is_offline_by_the_brokers_last_will(tmp_path: Path) -> None:
    with announced(tmp_path, free_port()) as (sink, heard):
        wait_for(lambda: payloads(heard, "mmtl/availability") == ["online"])
        sink._client.socket().shutdown(socket.SHUT_RDWR)
        wait_for(lambda: payloads(heard, "mmtl/availability")[1:2] == ["offline"])
        wait_for(lambda: payloads(heard, "mmtl/availability")[2:] == ["online"])  # it has connected again


@needs_broker
def test_home_assistant_that_starts_later_and_a_will_that_comes_late_are_answered(tmp_path: Path) -> None:
    with announced(tmp_path, free_port()) as (sink, heard):
        sink.emit(window(3.0))
        wait_for(lambda: "happy" in "".join(payloads(heard, "mmtl/state")))
        subscriber = Mqtt(sink.target, lambda line: None)
        wait_for(lambda: subscriber._connected)
        for topic, payload in (("homeassistant/status", "online"), ("mmtl/availability", "offline")):
            del heard[:]
            wait_for(sink._client.is_connected)
            subscriber._client.publish(topic, payload)
            wait_for(lambda: "happy" in "".join(payloads(heard, "mmtl/state")))
            assert payloads(heard, "mmtl/availability")[-1] == "online"
        subscriber.close()


def test_a_session_that_begins_again_forgets_the_last() -> None:
    device = DiscoveredDevice("mmtl", "1.0")
    device.take(window(3.0))
    device.take(Session("demo", "default", None, "cpu", EMOTIONS, 3.0, 0.24, False))
    assert device.state.emotion is None
