"""Tell the service manager that started us when it may count on us: systemd's notification protocol.

systemd names a datagram socket of this machine in NOTIFY_SOCKET. Nothing is sent anywhere else, and
nothing at all where the variable is not set.
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
    """Says READY with the session, shows what the microphone does in the status, says STOPPING at the end.

    The session follows once the source is open: `Recognizer.warm_up` before, and "active" means that
    sound is being heard without delay.

    There is no watchdog: while a microphone is unplugged nothing moves, and that is no reason to die.

    Args:
        report: takes the one line that says why the service manager does not hear us.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._heard = True

    def emit(self, event: Event) -> None:
        """Pass on what the service manager wants to know."""
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
            if self._heard:
                self._report(
                    f"the service manager cannot be told ({error}): {VARIABLE} names no socket of it"
                )
            self._heard = False


def notify(state: str, address: str) -> None:
    """Send assignments, one a line, to a service manager's socket; nothing if there is no address.

    Args:
        state: such as "READY=1".
        address: an absolute path, or "@" and a name in Linux's abstract namespace.

    Raises:
        OSError: nobody listens there.
    """
    if not address:
        return
    place = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(place)
        sender.sendall(state.encode())
