"""Limits on the server's clients: rate of sound, idle time, frames, log lines and file descriptors."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import UsageError

SLOWEST_PACE: Final = 0.5
"""Lowest rate of sound, in multiples of real time, at which a client stays connected."""
MOST_COMPUTE: Final = 10.0
"""Longest processing time of a block, in multiples of its duration, that is not counted as the client's."""
MESSAGE_S: Final = 0.002
"""Shortest time between two messages taken from a client, in seconds; more are merged, or wait."""
FRAMES_PER_S: Final = 50.0
"""Sustained rate of control frames, empty frames and fragments allowed to a WebSocket client."""
FRAMES_AT_ONCE: Final = 100
"""Burst of such frames allowed to a WebSocket client."""
MOST_UNSENT: Final = 2**20
"""Unsent bytes for one client above which it is disconnected."""
MOST_WAITING: Final = 32
"""Most connections at a time that have not presented a token yet."""
QUIET_S: Final = 60.0
"""Shortest time between two log lines about the same kind of event."""
SPARE_DESCRIPTORS: Final = 32
"""File descriptors reserved for short use: profiles, refused connections."""

USUAL_DESCRIPTORS: Final = 64
"""Assumed number of open descriptors without clients, if the system does not report it."""


@dataclass(frozen=True)
class Limits:
    """The limits that the server applies."""

    connections: int = 16
    """Most connections at a time; a further one is refused with a message."""
    speed: float = 10.0
    """Highest rate at which one client's sound is read, in multiples of real time."""
    idle_s: float = 30.0
    """Longest time that a client may keep the server waiting, for sound or for reading events."""
    token_s: float = 5.0
    """Time in which a client must present its token."""
    goodbye_s: float = 5.0
    """Time to send the last events to a client, and to all clients together when the server stops."""

    def __post_init__(self) -> None:
        """Check the time-out: NaN passes any comparison with a bound.

        Raises:
            UsageError: it is not a positive, finite time.
        """
        if not 0.0 < self.idle_s < math.inf:
            raise UsageError(
                f"invalid idle time: {self.idle_s} s is not a positive number",
                remedy="for example --idle-s 30",
            )


class Throttle:
    """Computes the wait that limits the rate of sound to a multiple of real time."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due_s = 0.0

    def wait_s(self, duration_s: float, now_s: float) -> float:
        """Account for a block of sound; return the time until the next may be taken, >= 0."""
        self._due_s = max(self._due_s, now_s) + duration_s / self._speed
        return self._due_s - now_s


class IdleAllowance:
    """The time that a client may still keep the server waiting.

    Waiting spends the allowance; sound earns twice its duration. So a client that sends at half real time or
    faster stays connected, a pause may last `idle_s`, and single bytes do not keep a connection open. The
    server's compute time is not counted as waiting, up to `MOST_COMPUTE`.
    """

    def __init__(self, idle_s: float) -> None:
        self._most_s = idle_s
        self.left_s = idle_s

    def spend(self, waited_s: float) -> None:
        """Account for time that the client kept the server waiting."""
        self.left_s = max(0.0, self.left_s - waited_s)

    def earn(self, sound_s: float, compute_s: float = 0.0) -> None:
        """Account for sound received, and for the time until it was recognised."""
        self.left_s = min(self._most_s, self.left_s + sound_s / SLOWEST_PACE)
        self.spend(max(0.0, compute_s - MOST_COMPUTE * sound_s))


class FrameBudget:
    """A token bucket for a client's frames without sound."""

    def __init__(self) -> None:
        self._left = float(FRAMES_AT_ONCE)
        self._counted_s = 0.0

    def spend(self, now_s: float) -> bool:
        """Account for a frame; return False if it exceeds the limit."""
        earned = FRAMES_PER_S * (now_s - self._counted_s)
        self._left = min(float(FRAMES_AT_ONCE), self._left + earned) - 1.0
        self._counted_s = now_s
        return self._left >= 0.0


class QuietLog:
    """Logs each kind of event at most once in `QUIET_S`, with the number of events left out.

    Remembers a time and a count by kind; kinds are few and are never chosen by a client.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._said_s: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def note(self, kind: str, line: str) -> None:
        """Log the line, or only count it."""
        now_s = self._clock()
        if now_s < self._said_s.get(kind, -QUIET_S) + QUIET_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        unsaid = self._unsaid.pop(kind, 0)
        self._said_s[kind] = now_s
        self._say(f"{line} ({unsaid} more since the last such line)" if unsaid else line)


def require_descriptors(connections: int) -> None:
    """Raise the limit on open files to what the clients need.

    Raises:
        UsageError: this user's hard limit is too low for the number of clients.
    """
    needed = _open_descriptors() + connections + MOST_WAITING + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise UsageError(
            f"{connections} clients need {needed} open files, but this process may have {hard}",
            remedy=(
                f"lower --clients, or raise the limit (ulimit -n {needed}; in a systemd unit "
                f"LimitNOFILE={needed})"
            ),
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else USUAL_DESCRIPTORS
