"""Home Assistant's MQTT discovery: what makes a run appear as a device, and the state it shows.

The configuration of the device is published to homeassistant/device/ID/config and kept by the broker
(retained). Home Assistant 2024.12 and newer read it: the form is "device discovery" in
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Its entities read TOPIC/state, and are
unavailable unless TOPIC/availability is "online". No state is retained: the broker keeps no emotion.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from edge.events import Device, Event, Session, Speech, Summary, Window
from edge.labels import EMOTIONS, UNSURE

PREFIX: Final = "homeassistant"
"""Home Assistant's own default for the first level of discovery topics."""
BIRTH_TOPIC: Final = f"{PREFIX}/status"
"""Where Home Assistant says "online" once it has started: then the device announces itself again."""
ONLINE: Final = "online"
OFFLINE: Final = "offline"
FORGET_S: Final = 10.0
"""Time after the last speech at which emotion and confidence become unknown, in seconds of the stream."""
CONFIDENCE_S: Final = 2.0
"""Shortest time between two states that differ in confidence only: Home Assistant records each of them."""


@dataclass(frozen=True)
class DeviceState:
    """What Home Assistant shows."""

    emotion: str | None = None
    """An emotion or "unsure"; None is shown as unknown."""
    confidence: int | None = None
    """Smoothed probability of the emotion, or the highest one if unsure, in percent."""
    speech: bool = False

    def to_json(self) -> str:
        """Write the state as the templates of `DiscoveredDevice.configuration` read it."""
        speech = "ON" if self.speech else "OFF"
        return json.dumps({"emotion": self.emotion, "confidence": self.confidence, "speech": speech})


class DiscoveredDevice:
    """One run as a device of Home Assistant. Remembers the state, and when it was last to be published."""

    def __init__(self, topic: str, version: str) -> None:
        """Begin without an emotion.

        Args:
            topic: where the run publishes its events; a topic is a device.
            version: of this program.
        """
        self.state_topic = f"{topic}/state"
        self.availability_topic = f"{topic}/availability"
        self.state = DeviceState()
        self.available = True
        """Whether sound comes in; False while the microphone is unplugged."""
        self._topic = topic
        self._version = version
        self._published = self.state
        self._published_s = self._spoken_s = -math.inf

    @property
    def identifier(self) -> str:
        """Name the device by its topic, in the characters that a discovery topic may have."""
        readable = re.sub(r"[^a-zA-Z0-9]+", "_", self._topic).strip("_")
        digest = hashlib.sha256(self._topic.encode()).hexdigest()[:8]
        return "_".join(filter(None, ["mmtl", readable.lower(), digest]))

    @property
    def configuration_topic(self) -> str:
        """Where the configuration is published."""
        return f"{PREFIX}/device/{self.identifier}/config"

    def configuration(self) -> str:
        """Describe the device and its entities: the payload of device discovery."""
        name = self._topic.rpartition("/")[2]
        sensor = {"platform": "sensor"}
        return json.dumps(
            {
                "device": {
                    "identifiers": [self.identifier],
                    "name": "mmtl" if name == "mmtl" else f"mmtl {name}",
                    "manufacturer": "mmtl",
                    "model": "Speech emotion recogniser",
                    "sw_version": self._version,
                },
                "origin": {"name": "mmtl", "sw_version": self._version},
                "state_topic": self.state_topic,
                "availability_topic": self.availability_topic,
                "payload_available": ONLINE,
                "payload_not_available": OFFLINE,
                "components": {
                    "emotion": {
                        **sensor,
                        **self._entity("emotion"),
                        "device_class": "enum",
                        "options": [*EMOTIONS, UNSURE],
                        "icon": "mdi:account-voice",
                    },
                    "confidence": {
                        **sensor,
                        **self._entity("confidence"),
                        "unit_of_measurement": "%",
                        "state_class": "measurement",
                        "icon": "mdi:percent",
                    },
                    "speech": {
                        "platform": "binary_sensor",
                        **self._entity("speech"),
                        "device_class": "sound",
                    },
                },
            }
        )

    def _entity(self, key: str) -> dict[str, Any]:
        return {
            "unique_id": f"{self.identifier}_{key}",
            "name": key.capitalize(),
            "value_template": f"{{{{ value_json.{key} }}}}",
        }

    def take(self, event: Event) -> bool:
        """Follow an event; return whether state or availability is to be published.

        A new emotion, speech and availability are to be published at once, a new confidence after
        `CONFIDENCE_S`.
        """
        was_available = self.available
        match event:
            case Session():
                self.available, self.state = True, DeviceState()
                self._spoken_s = self._published_s = -math.inf
            case Speech():
                self.state = replace(self.state, speech=event.active)
            case Window():
                self._take_window(event)
            case Device() if event.state in {"lost", "back"}:
                self.available, self.state = event.state == "back", DeviceState()
            case Summary():
                self.state = DeviceState()
        if self.available == was_available and not self._is_news(event):
            return False
        self._published = self.state
        self._published_s = event.end_s if isinstance(event, Window) else self._published_s
        return True

    def _take_window(self, window: Window) -> None:
        if window.speech:
            self._spoken_s = window.end_s
            probability = window.smoothed.get(window.label, max(window.smoothed.values()))
            self.state = replace(self.state, emotion=window.label, confidence=round(100 * probability))
        elif window.end_s - self._spoken_s > FORGET_S:
            self.state = replace(self.state, emotion=None, confidence=None)

    def _is_news(self, event: Event) -> bool:
        if replace(self.state, confidence=None) != replace(self._published, confidence=None):
            return True
        if self.state == self._published or not isinstance(event, Window):
            return False
        return event.end_s - self._published_s >= CONFIDENCE_S
