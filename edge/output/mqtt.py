"""Publish events to an MQTT broker: for devices without a screen.

Each event is published as JSON to TOPIC/TYPE, at most once (QoS 0), so that a client can subscribe to
TOPIC/utterance alone. The recogniser never waits for the broker, which may be away for a while.

Without TLS everything, including the password, is sent unencrypted. With TLS the broker's certificate
and name are always checked.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from edge.errors import UsageError
from edge.events import Event, to_json
from edge.output.sinks import Sink

DEFAULT_PORT: Final = 1883
TLS_PORT: Final = 8883
USER_VARIABLE: Final = "MMTL_MQTT_USER"
PASSWORD_VARIABLE: Final = "MMTL_MQTT_PASSWORD"  # noqa: S105 - a name, no password
LOGIN_REFUSALS: Final = {"Bad user name or password", "Not authorized"}
"""Reasons for which a broker refuses a login, as the client library words them."""
MOST_WAITING: Final = 1_000
"""Most events kept while the broker is away: four minutes at the default step. The oldest are dropped."""
AT_ONCE: Final = 32
"""Most events handed to the client library that it has not sent yet."""
CONNECT_S: Final = 3.0
CLOSE_S: Final = 3.0
"""Longest time that `close` waits for unsent events, in seconds."""


# `#`, `+` and NUL are not allowed in a topic that is published to.
_TARGET: Final = re.compile(
    r"((?P<scheme>mqtts?)://)?((?P<user>[^/]+)@)?(\[(?P<literal>[^]/]+)\]|(?P<name>[^][:/@]+))"
    r"(:(?P<port>[0-9]{1,5}))?/(?P<topic>[^#+\0]+)"
)


@dataclass(frozen=True)
class MqttDestination:
    """A broker, a topic and a login."""

    host: str
    port: int
    topic: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    authority: Path | None = None
    """File of trusted CA certificates (PEM); None: those that the system trusts."""


def parse_destination(
    text: str, *, authority: Path | None = None, environment: Mapping[str, str] | None = None
) -> MqttDestination:
    """Parse [mqtts://][USER@]HOST[:PORT]/TOPIC; an IPv6 address is in brackets.

    Args:
        text: the destination; `mqtts://` turns on TLS.
        authority: file of CA certificates to trust instead of the system's; turns on TLS as well.
        environment: has the password, and the user name if `text` has none.

    Raises:
        UsageError: the text has another form, the topic is invalid, or the login is incomplete.
    """
    found = _TARGET.fullmatch(text)
    if not found:
        raise _not_a_destination(text)
    tls = authority is not None or found["scheme"] == "mqtts"
    host, topic = found["literal"] or found["name"], found["topic"].strip("/")
    port = int(found["port"] or (TLS_PORT if tls else DEFAULT_PORT))
    if not topic or not 0 < port < 65_536 or not _is_encodable(host, topic):
        raise _not_a_destination(text)
    user, password = _login(found["user"], environment or {})
    return MqttDestination(host, port, topic, user, password, tls, authority)


def _login(user: str | None, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    if user and ":" in user:
        raise UsageError(
            "a password was given on the command line, where every user of this machine can read it",
            remedy=f"set {PASSWORD_VARIABLE} in the environment, and give USER@HOST[:PORT]/TOPIC",
        )
    user = user or environment.get(USER_VARIABLE) or None
    password = environment.get(PASSWORD_VARIABLE) or None
    if password and not user:
        raise UsageError(
            f"{PASSWORD_VARIABLE} is set, but no user name",
            remedy=f"give USER@HOST[:PORT]/TOPIC, or set {USER_VARIABLE}",
        )
    return user, password


def _is_encodable(host: str, topic: str) -> bool:
    try:
        return bool(host.encode("idna") and topic.encode())
    except UnicodeError:
        return False


def _not_a_destination(text: str) -> UsageError:
    shown = re.sub(r".*@", "...@", text, flags=re.DOTALL)  # the text before it may hold a password
    return UsageError(
        f"{shown!r} is not an MQTT destination, expected HOST[:PORT]/TOPIC",
        remedy="for example localhost/mmtl, 192.168.1.5:1883/home/kitchen, or with TLS and a user "
        "mqtts://USER@HOST/TOPIC",
    )


class _Failure(Enum):
    """Why events cannot be published; each kind is reported once."""

    AWAY = auto()
    UNTRUSTED = auto()
    REFUSED = auto()


class Mqtt(Sink):
    """Publishes events from the client library's thread, which reconnects by itself.

    Keeps at most `MOST_WAITING` events while the broker is away or slow, then drops the oldest.
    `close` waits at most `CLOSE_S` for the rest, and reports how many were not delivered.
    """

    def __init__(self, target: MqttDestination, report: Callable[[str], None]) -> None:
        """Start connecting in the background.

        Args:
            target: broker, topic and login.
            report: takes a line about a missing broker or undelivered events; called from any thread.

        Raises:
            UsageError: the file of CA certificates holds none.
        """
        self.target = target
        self._report = report
        self._waiting: deque[tuple[str, str]] = deque()
        self._changed = threading.Condition()
        self._connected = self._closed = False
        self._said: _Failure | None = None
        self._in_flight = 0
        self._dropped = 0
        self._client = _client(target)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_async(target.host, target.port)
        self._client.loop_start()

    @property
    def undelivered(self) -> int:
        """Events dropped or still waiting."""
        with self._changed:  # else an event that is just handed on would be missed
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
        """Send the events that are left, within `CLOSE_S`, and disconnect."""
        with self._changed:
            if self._closed:
                return
            self._changed.wait_for(lambda: not self._waiting and not self._in_flight, CLOSE_S)
            self._closed = True
            undelivered = self.undelivered
        disconnect_client(self._client)
        self._release_callbacks()
        if undelivered:
            self._report(f"{undelivered} events were not delivered to the MQTT broker at {self._address()}")

    def _release_callbacks(self) -> None:
        """Break the reference cycle: the client closes its last sockets when it is no longer referenced."""
        client = self._client
        client.on_connect = client.on_connect_fail = client.on_disconnect = client.on_publish = None

    def _forward(self) -> None:
        """Hand events to the client library while it keeps up; the caller holds the lock."""
        while self._connected and self._waiting and self._in_flight < AT_ONCE:
            topic, payload = self._waiting[0]
            if self._client.publish(topic, payload, qos=0).rc:
                return  # just disconnected; `_on_disconnect` follows
            self._waiting.popleft()
            self._in_flight += 1

    def _address(self) -> str:
        return f"{self.target.host}:{self.target.port}"

    # Called by the client library's thread.

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._report_refused(str(reason))
            return
        with self._changed:
            self._connected, self._said = True, None
            self._dropped += self._in_flight  # events in flight when the last connection broke
            self._in_flight = 0
            self._forward()

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        error = sys.exc_info()[1]  # the client calls this while it handles the exception
        if isinstance(error, ssl.SSLCertVerificationError):
            self._report_untrusted(error.verify_message.rstrip("."))
        else:
            self._report_unreachable("no answer over TLS" if self.target.tls else "no answer")

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            was_connected, self._connected = self._connected, False
            closed = self._closed
        if closed or self._said:  # a broker also disconnects a client that it refuses
            return
        unheard = "it disconnects" if self.target.tls else "it disconnects; does it expect mqtts://?"
        self._report_unreachable(str(reason) if was_connected else unheard)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._forward()
            self._changed.notify_all()

    def _report_unreachable(self, reason: str) -> None:
        line = f"no MQTT broker at {self._address()} ({reason}): retrying until there is one"
        self._report_once(_Failure.AWAY, line)

    def _report_untrusted(self, reason: str) -> None:
        line = (
            f"the MQTT broker at {self._address()} cannot be trusted ({reason}): name the certificate of its "
            "CA with --mqtt-ca, and use the host name in the broker's certificate; retrying"
        )
        self._report_once(_Failure.UNTRUSTED, line)

    def _report_refused(self, reason: str) -> None:
        if reason not in LOGIN_REFUSALS:
            self._report_unreachable(reason)
            return
        whom = f"user {self.target.user}" if self.target.user else "clients without a user name"
        line = (
            f"the MQTT broker at {self._address()} refuses {whom} ({reason}): "
            f"check the user name and {PASSWORD_VARIABLE}; retrying"
        )
        self._report_once(_Failure.REFUSED, line)

    def _report_once(self, trouble: _Failure, line: str) -> None:
        """Report a line once, until the connection works or fails for another reason."""
        if self._said is not trouble:
            self._said = trouble
            self._report(line)


def disconnect_client(client: Any) -> None:
    """Disconnect a client and wait for its thread to end."""
    client.disconnect()
    # The ending thread clears the field that loop_stop checks and then joins (paho-mqtt #872).
    with contextlib.suppress(AttributeError):
        client.loop_stop()


def _client(target: MqttDestination) -> Any:
    """Create a client that is not connected yet."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2)
    client.connect_timeout = CONNECT_S
    client.reconnect_delay_set(min_delay=1, max_delay=30)
    client.username_pw_set(target.user, target.password)
    if target.tls:
        try:
            client.tls_set(str(target.authority) if target.authority else None)
        except OSError as error:
            reason = "it holds none" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(
                f"cannot read a certificate from {target.authority} ({reason})",
                remedy="name the file (PEM) of the CA that signed the broker's certificate",
            ) from error
    return client
