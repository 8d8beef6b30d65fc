"""Publish events to an MQTT broker: for devices without a screen.

Each event goes to TOPIC/TYPE as JSON, at most once (QoS 0), so that a reader can ask for
TOPIC/utterance alone. The broker may come and go: the recogniser never waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edge.errors import UsageError
from edge.events import Event, to_json
from edge.sinks import Sink

DEFAULT_PORT: Final = 1883
MOST_WAITING: Final = 1_000
"""Events kept while the broker is away, four minutes at the default step; then the oldest go."""
AT_ONCE: Final = 32
"""Events handed to the client that it has not written yet."""
CONNECT_S: Final = 3.0
GOODBYE_S: Final = 3.0
"""How long closing waits for what is still to be sent."""


@dataclass(frozen=True)
class Target:
    """Where to publish."""

    host: str
    port: int
    topic: str


def parse_target(text: str) -> Target:
    """Read HOST[:PORT]/TOPIC; an IPv6 address stands in brackets.

    Raises:
        UsageError: it is something else, or the topic is none to publish to.
    """
    address, _, topic = text.partition("/")
    bracketed = address.startswith("[") and "]" in address
    host, bracket, rest = address[1:].partition("]") if bracketed else (address, "", "")
    if not bracket:
        host, colon, rest = address.partition(":")
        rest = colon + rest
    port = rest[1:] if rest.startswith(":") else "" if rest else str(DEFAULT_PORT)
    valid_port = port.isascii() and port.isdigit() and 0 < int(port) < 65_536
    # `#`, `+` and NUL are not allowed in a topic that is published to.
    if not host or not topic.strip("/") or set(topic) & set("#+\0") or not valid_port:
        raise UsageError(
            f"{text!r} is no place to publish to, expected HOST[:PORT]/TOPIC: "
            "for example localhost/mmtl or 192.168.1.5:1883/home/kitchen"
        )
    return Target(host, int(port), topic.strip("/"))


class Mqtt(Sink):
    """Publishes events from the client's own thread, which reconnects by itself.

    Remembers at most `MOST_WAITING` events while the broker is away or slow, then drops the oldest.
    `close` waits at most `GOODBYE_S` for the rest, and reports what was not delivered.
    """

    def __init__(self, target: str, report: Callable[[str], None]) -> None:
        """Start to connect, in the background.

        Args:
            target: HOST[:PORT]/TOPIC.
            report: takes a line for people, from any thread: no broker, undelivered events.

        Raises:
            UsageError: the target cannot be meant.
        """
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.target = parse_target(target)
        self._report = report
        self._waiting: deque[tuple[str, str]] = deque()
        self._changed = threading.Condition()
        self._connected = self._reported = self._closed = False
        self._in_flight = 0
        self._dropped = 0
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = CONNECT_S
        self._client.reconnect_delay_set(min_delay=1, max_delay=30)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_async(self.target.host, self.target.port)
        self._client.loop_start()

    @property
    def undelivered(self) -> int:
        """Events dropped or still waiting."""
        return self._dropped + self._in_flight + len(self._waiting)

    def emit(self, event: Event) -> None:
        """Queue the event; never waits for the network."""
        with self._changed:
            if self._closed:
                return
            if len(self._waiting) == MOST_WAITING:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append((f"{self.target.topic}/{event.type}", to_json(event)))
            self._forward()

    def close(self) -> None:
        """Send what is left, if the broker takes it in time, and disconnect."""
        with self._changed:
            if self._closed:
                return
            self._changed.wait_for(lambda: not self._waiting and not self._in_flight, GOODBYE_S)
            self._closed = True
            undelivered = self.undelivered
        self._client.disconnect()
        self._client.loop_stop()
        if undelivered:
            self._report(f"{undelivered} events were not delivered to the broker at {self._address()}")

    def _forward(self) -> None:
        """Hand events to the client while it keeps up; the lock is held."""
        while self._connected and self._waiting and self._in_flight < AT_ONCE:
            topic, payload = self._waiting[0]
            if self._client.publish(topic, payload, qos=0).rc:
                return  # disconnected a moment ago; the client will tell
            self._waiting.popleft()
            self._in_flight += 1

    def _address(self) -> str:
        return f"{self.target.host}:{self.target.port}"

    # The client's thread calls these.

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._complain(str(reason))
            return
        with self._changed:
            self._connected, self._reported = True, False
            self._dropped += self._in_flight  # what was under way when the last connection broke
            self._in_flight = 0
            self._forward()

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        self._complain("no answer")

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._connected = False
            closed = self._closed
        if not closed:
            self._complain(str(reason))

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._forward()
            self._changed.notify_all()

    def _complain(self, reason: str) -> None:
        """Say once, until it works again, that the broker cannot be had."""
        if not self._reported:
            self._reported = True
            self._report(f"no MQTT broker at {self._address()} ({reason}): trying again until there is one")
