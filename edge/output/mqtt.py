"""Publish events to an MQTT broker: for devices without a screen.

Each event goes to TOPIC/TYPE as JSON, at most once (QoS 0), so that a reader can ask for
TOPIC/utterance alone. The broker may come and go: the recogniser never waits for it.

Without TLS everything, the password too, crosses the network as it is. With TLS the broker's certificate
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
NO_ENTRY: Final = {"Bad user name or password", "Not authorized"}
"""Why a broker turns away whom it does not know, in the client's words."""
MOST_WAITING: Final = 1_000
"""Events kept while the broker is away, four minutes at the default step; then the oldest go."""
AT_ONCE: Final = 32
"""Events handed to the client that it has not written yet."""
CONNECT_S: Final = 3.0
GOODBYE_S: Final = 3.0
"""How long closing waits for what is still to be sent."""


# `#`, `+` and NUL are not allowed in a topic that is published to.
_TARGET: Final = re.compile(
    r"((?P<scheme>mqtts?)://)?((?P<user>[^/]+)@)?(\[(?P<literal>[^]/]+)\]|(?P<name>[^][:/@]+))"
    r"(:(?P<port>[0-9]{1,5}))?/(?P<topic>[^#+\0]+)"
)


@dataclass(frozen=True)
class Target:
    """Where to publish, and as whom."""

    host: str
    port: int
    topic: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    authority: Path | None = None
    """File of the certificates (PEM) that may vouch for the broker; None: those the system trusts."""


def parse_target(
    text: str, *, authority: Path | None = None, environment: Mapping[str, str] | None = None
) -> Target:
    """Read [mqtts://][USER@]HOST[:PORT]/TOPIC; an IPv6 address stands in brackets.

    Args:
        text: the target; `mqtts://` asks for TLS.
        authority: file of certificates to trust instead of the system's; asks for TLS too.
        environment: has the user's name, where `text` has none, and the password.

    Raises:
        UsageError: it is something else, the topic is none to publish to, or half a login is missing.
    """
    found = _TARGET.fullmatch(text)
    if not found:
        raise _no_target(text)
    tls = authority is not None or found["scheme"] == "mqtts"
    host, topic = found["literal"] or found["name"], found["topic"].strip("/")
    port = int(found["port"] or (TLS_PORT if tls else DEFAULT_PORT))
    if not topic or not 0 < port < 65_536 or not _can_be_sent(host, topic):
        raise _no_target(text)
    user, password = _login(found["user"], environment or {})
    return Target(host, port, topic, user, password, tls, authority)


def _login(user: str | None, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    if user and ":" in user:
        raise UsageError(
            "a password was given on the command line, where every user of this machine can read it: "
            f"put it into the environment as {PASSWORD_VARIABLE}, and give USER@HOST[:PORT]/TOPIC"
        )
    user = user or environment.get(USER_VARIABLE) or None
    password = environment.get(PASSWORD_VARIABLE) or None
    if password and not user:
        raise UsageError(
            f"{PASSWORD_VARIABLE} is set, but there is no user name to go with it: "
            f"give USER@HOST[:PORT]/TOPIC, or set {USER_VARIABLE}"
        )
    return user, password


def _can_be_sent(host: str, topic: str) -> bool:
    try:
        return bool(host.encode("idna") and topic.encode())
    except UnicodeError:
        return False


def _no_target(text: str) -> UsageError:
    shown = re.sub(r".*@", "...@", text, flags=re.DOTALL)  # there might be a password before it
    return UsageError(
        f"{shown!r} is no place to publish to, expected HOST[:PORT]/TOPIC: for example localhost/mmtl, "
        "192.168.1.5:1883/home/kitchen, or with TLS and a user mqtts://USER@HOST/TOPIC"
    )


class _Trouble(Enum):
    """What keeps events from being published; a kind that is said is not said again."""

    AWAY = auto()
    UNTRUSTED = auto()
    REFUSED = auto()


class Mqtt(Sink):
    """Publishes events from the client's own thread, which reconnects by itself.

    Remembers at most `MOST_WAITING` events while the broker is away or slow, then drops the oldest.
    `close` waits at most `GOODBYE_S` for the rest, and reports what was not delivered.
    """

    def __init__(self, target: Target, report: Callable[[str], None]) -> None:
        """Start to connect, in the background.

        Args:
            target: where, as `parse_target` reads it.
            report: takes a line for people, from any thread: no broker, undelivered events.

        Raises:
            UsageError: there is no certificate in the file of authorities.
        """
        self.target = target
        self._report = report
        self._waiting: deque[tuple[str, str]] = deque()
        self._changed = threading.Condition()
        self._connected = self._closed = False
        self._said: _Trouble | None = None
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
        with self._changed:  # or it would miss the one that is just handed on
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
        hang_up(self._client)
        self._forget_us()
        if undelivered:
            self._report(f"{undelivered} events were not delivered to the broker at {self._address()}")

    def _forget_us(self) -> None:
        """Undo the cycle of references: the client closes its last sockets when nobody refers to it."""
        client = self._client
        client.on_connect = client.on_connect_fail = client.on_disconnect = client.on_publish = None

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
            self._complain_of_refusal(str(reason))
            return
        with self._changed:
            self._connected, self._said = True, None
            self._dropped += self._in_flight  # what was under way when the last connection broke
            self._in_flight = 0
            self._forward()

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        error = sys.exc_info()[1]  # the client calls this while it handles what went wrong
        if isinstance(error, ssl.SSLCertVerificationError):
            self._complain_of_certificate(error.verify_message.rstrip("."))
        else:
            self._complain_of_absence("no answer over TLS" if self.target.tls else "no answer")

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            was_connected, self._connected = self._connected, False
            closed = self._closed
        if closed or self._said:  # it hangs up, too, on whom it refuses
            return
        unheard = "it hangs up" if self.target.tls else "it hangs up: does it expect mqtts://?"
        self._complain_of_absence(str(reason) if was_connected else unheard)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._forward()
            self._changed.notify_all()

    def _complain_of_absence(self, reason: str) -> None:
        line = f"no MQTT broker at {self._address()} ({reason}): trying again until there is one"
        self._complain(_Trouble.AWAY, line)

    def _complain_of_certificate(self, reason: str) -> None:
        line = (
            f"the MQTT broker at {self._address()} cannot be trusted ({reason}): name its authority's "
            "certificate with --mqtt-ca, and the host as the broker's certificate does; trying again"
        )
        self._complain(_Trouble.UNTRUSTED, line)

    def _complain_of_refusal(self, reason: str) -> None:
        if reason not in NO_ENTRY:
            self._complain_of_absence(reason)
            return
        whom = f"user {self.target.user}" if self.target.user else "clients without a user name"
        line = (
            f"the MQTT broker at {self._address()} refuses {whom} ({reason}): "
            f"check the name and {PASSWORD_VARIABLE}; trying again"
        )
        self._complain(_Trouble.REFUSED, line)

    def _complain(self, trouble: _Trouble, line: str) -> None:
        """Say a line once, until it works or something else is wrong."""
        if self._said is not trouble:
            self._said = trouble
            self._report(line)


def hang_up(client: Any) -> None:
    """Disconnect a client and wait for its thread."""
    client.disconnect()
    # The thread, as it ends, clears the field that loop_stop looks at and then joins (paho-mqtt #872).
    with contextlib.suppress(AttributeError):
        client.loop_stop()


def _client(target: Target) -> Any:
    """Make a client that is not connected yet."""
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
            reason = "there is none in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(
                f"cannot read a certificate from {target.authority} ({reason}): "
                "name a file, in PEM form, of the authority that signed the broker's certificate"
            ) from error
    return client
