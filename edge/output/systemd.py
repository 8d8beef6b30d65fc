"""systemd's notification protocol (sd_notify): tell the service manager when the service is ready.

systemd names a local datagram socket in NOTIFY_SOCKET. Without the variable nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from edge.events import Device, Event, Session, Summary
from edge.output.sinks import Sink
from edge.output.text import describe

VARIABLE: Final = "NOTIFY_SOCKET"


class ServiceManager(Sink):
    """Sends READY with the session, the microphone's state as STATUS, and STOPPING at the end.

    The session event follows when the source is open. With `Recognizer.warm_up` before it, an "active"
    service recognises without a start-up delay.

    There is no watchdog: an unplugged microphone stops the stream, but must not restart the service.

    Args:
        report: takes one line if the service manager cannot be reached.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._reachable = True

    def emit(self, event: Event) -> None:
        """Send the events that concern the service manager."""
        if isinstance(event, Session):
            self._tell(f"READY=1\nSTATUS={describe(event, percentages=False)}")
        elif isinstance(event, Device):
            self._tell(f"STATUS={describe(event, percentages=False)}")
        elif isinstance(event, Summary):
            self._tell(f"STOPPING=1\nSTATUS={describe(event, percentages=False)}")

    def _tell(self, state: str) -> None:
        try:
            notify(state, os.environ.get(VARIABLE, ""))
        except OSError as error:
            if self._reachable:
                self._report(
                    f"cannot notify the service manager ({error}): check that {VARIABLE} names its socket"
                )
            self._reachable = False


def notify(state: str, address: str) -> None:
    """Send assignments, one per line, to a service manager's socket; nothing if the address is empty.

    Args:
        state: such as "READY=1".
        address: an absolute path, or "@" and a name in Linux's abstract namespace.

    Raises:
        OSError: no socket is open at the address.
    """
    if not address:
        return
    place = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(place)
        sender.sendall(state.encode())
