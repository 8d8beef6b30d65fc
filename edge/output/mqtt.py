"""Publish events to an MQTT broker: for devices without a screen.

Each event is published as JSON to TOPIC/TYPE, at most once (QoS 0), so that a client can subscribe to
TOPIC/utterance alone. The recogniser never waits for the broker, which may be away for a while.

With a `DiscoveredDevice` the sink also announces the run to Home Assistant, and says "offline" at the end;
the broker says it in the sink's place (its last will) if the connection breaks.

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
from edge.output.home_assistant import BIRTH_TOPIC, OFFLINE, ONLINE, DiscoveredDevice
from edge.output.sinks import Sink

DEFAULT_PORT: Final = 1883
TLS_PORT: Final = 8883
USER_VARIABLE: Final = "MMTL_MQTT_USER"
PASSWORD_VARIABLE: Final = "MMTL_MQTT_PASSWORD"  # noqa: S105 - a name, no password
LOGIN_REFUSALS: Final = {"Bad user name or password", "Not authorized"}
"""Reasons for which a broker refuses a login, as the client library words them."""
MOST_WAITING: Final = 1_000
"""Most events kept while the broker is away: four minutes at the default step. The oldest are dropped."""
LARGEST_PASSWORD_FILE: Final = 4_096
"""Largest password file, in bytes."""
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
    text: str,
    *,
    authority: Path | None = None,
    password_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> MqttDestination:
    """Parse [mqtts://][USER@]HOST[:PORT]/TOPIC; an IPv6 address is in brackets.

    Args:
        text: the destination; `mqtts://` turns on TLS.
        authority: file of CA certificates to trust instead of the system's; turns on TLS as well.
        password_file: holds the password, in its only line.
        environment: has the password if no file does, and the user name if `text` has none.

    Raises:
        UsageError: the text has another form, the topic is invalid, the file is unusable, or the login is
            incomplete.
    """
    found = _TARGET.fullmatch(text)
    if not found:
        raise _not_a_destination(text)
    tls = authority is not None or found["scheme"] == "mqtts"
    host, topic = found["literal"] or found["name"], found["topic"].strip("/")
    port = int(found["port"] or (TLS_PORT if tls else DEFAULT_PORT))
    if not topic or not 0 < port < 65_536 or not _is_encodable(host, topic):
        raise _not_a_destination(text)
    user, password = _login(found["user"], password_file, environment or {})
    return MqttDestination(host, port, topic, user, password, tls, authority)


def _login(
    user: str | None, password_file: Path | None, environment: Mapping[str, str]
) -> tuple[str | None, str | None]:
    if user and ":" in user:
        raise UsageError(
            "a password was given on the command line, where every user of this machine can read it",
            remedy=f"set {PASSWORD_VARIABLE} in the environment or name a file with --mqtt-password-file, "
            "and give USER@HOST[:PORT]/TOPIC",
        )
    user = user or environment.get(USER_VARIABLE) or None
    password = read_password(password_file) if password_file else environment.get(PASSWORD_VARIABLE) or None
    if password and not user:
        raise UsageError(
            f"{'--mqtt-password-file' if password_file else PASSWORD_VARIABLE} is set, but no user name",
            remedy=f"give USER@HOST[:PORT]/TOPIC, or set {USER_VARIABLE}",
        )
    return user, password


def read_password(path: Path) -> str:
    """Read the password of a broker: the only line of a file; spaces belong to it.

    Raises:
        UsageError: the file cannot be read, is empty, or holds more than a line.
    """
    remedy = "name a file with the password in its only line"
    try:
        with path.open("rb") as file:
            password = file.read(LARGEST_PASSWORD_FILE + 1).decode().removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"cannot read the password file {path} ({reason})", remedy=remedy) from error
    if not password.isprintable() or not 0 < len(password) <= LARGEST_PASSWORD_FILE:
        raise UsageError(f"{path} does not hold a password, expected one line", remedy=remedy)
    return password


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

    def __init__(
        self,
        target: MqttDestination,
        report: Callable[[str], None],
        device: DiscoveredDevice | None = None,
    ) -> None:
        """Start connecting in the background.

        Args:
            target: broker, topic and login.
            report: takes a line about a missing broker or undelivered events; called from any thread.
            device: is announced to Home Assistant; None: only events are published.

        Raises:
            UsageError: the file of CA certificates holds none.
        """
        self.target = target
        self._report = report
        self._waiting: deque[tuple[str, str]] = deque()
        self._changed = threading.Condition()
        self._connected = self._closing = self._closed = False
        self._said: _Failure | None = None
        self._in_flight = 0
        self._dropped = 0
        self._device = device
        self._state_due = False
        self._availability = ""
        self._own: set[int] = set()
        self._client = _client(target)
        if device:
            self._client.will_set(device.availability_topic, OFFLINE, retain=True)
            self._client.on_message = self._on_message
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
            if self._device and self._device.take(event):
                self._state_due = True
            self._forward()

    def close(self) -> None:
        """Send the events that are left, within `CLOSE_S`, say "offline", and disconnect."""
        with self._changed:
            if self._closed:
                return
            self._closing = True
            self._changed.wait_for(lambda: not self._waiting and not self._in_flight, CLOSE_S)
            self._say_goodbye()
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
        client.on_message = None

    def _forward(self) -> None:
        """Hand events to the client library while it keeps up; the caller holds the lock."""
        while self._connected and self._waiting and self._in_flight < AT_ONCE:
            topic, payload = self._waiting[0]
            if self._client.publish(topic, payload, qos=0).rc:
                return  # just disconnected; `_on_disconnect` follows
            self._waiting.popleft()
            self._in_flight += 1
        if self._state_due and self._connected and self._in_flight < AT_ONCE:
            self._state_due = False
            self._publish_state()

    def _announce(self) -> None:
        """Publish configuration, availability and state; the caller holds the lock."""
        if self._device:
            self._availability = ""
            self._publish_own(self._device.configuration_topic, self._device.configuration(), retain=True)
            self._publish_state()

    def _publish_state(self) -> None:
        """Publish availability, if it has changed, and state; the caller holds the lock."""
        assert self._device
        availability = ONLINE if self._device.available else OFFLINE
        if self._availability != availability:
            self._publish_own(self._device.availability_topic, availability, retain=True)
            self._availability = availability
        self._publish_own(self._device.state_topic, self._device.state.to_json())

    def _say_goodbye(self) -> None:
        """Publish "offline", since a broker drops the will of who disconnects; the caller holds the lock.

        Waits for the acknowledgement (QoS 1). The broker also sends the message back: a socket that is closed
        with something unread is reset, and with it may go what the broker has not read yet.
        """
        if self._device and self._connected:
            self._publish_own(self._device.availability_topic, OFFLINE, qos=1, retain=True)
            self._changed.wait_for(lambda: not self._own, CLOSE_S)

    def _publish_own(self, topic: str, payload: str, *, qos: int = 0, retain: bool = False) -> None:
        """Publish a message that is no event, and so is not counted as one."""
        self._own.add(self._client.publish(topic, payload, qos, retain).mid)

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
            self._own.clear()
            self._announce()
            self._forward()
        if self._device:
            client.subscribe([(BIRTH_TOPIC, 0), (self._device.availability_topic, 0)])

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

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Announce the device again: Home Assistant has started, or an earlier connection's will came late.

        Retained messages tell of the time before this connection.
        """
        expected = ONLINE if message.topic == BIRTH_TOPIC else OFFLINE
        with self._changed:
            if not message.retain and not self._closing and message.payload == expected.encode():
                self._announce()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            if mid in self._own:
                self._own.remove(mid)
            else:
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
