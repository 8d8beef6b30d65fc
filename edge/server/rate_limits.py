"""What a client of the server may take: limits on sound, silence, frames, log lines and descriptors."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import UsageError

SLOWEST_PACE: Final = 0.5
"""Times real time at which sound keeps a client's place."""
MOST_COMPUTE: Final = 10.0
"""Times its duration that recognising a piece of sound, its turn included, may take at the server's cost."""
MESSAGE_S: Final = 0.002
"""Least time from one message of a client to the next: what lies between is taken together, or waits."""
FRAMES_PER_S: Final = 50.0
"""Control frames, empty frames and fragments that a WebSocket client may send in the long run."""
FRAMES_AT_ONCE: Final = 100
"""The same, in a burst."""
MOST_UNSENT: Final = 2**20
"""Bytes that wait for a client to read them before it is hung up on."""
MOST_WAITING: Final = 32
"""Connections at a time that have not presented a token yet."""
QUIET_S: Final = 60.0
"""Between two lines about the same trouble."""
SPARE_DESCRIPTORS: Final = 32
"""For what is opened for a moment: profiles, refused connections."""

USUAL_DESCRIPTORS: Final = 64
"""Open in a server without clients, where the system cannot be asked."""


@dataclass(frozen=True)
class Limits:
    """What the server allows."""

    connections: int = 16
    """At a time; one more is told so and closed."""
    speed: float = 10.0
    """Times real time that one client's sound is taken at."""
    idle_s: float = 30.0
    """That a client may keep the server waiting, for sound or for reading events."""
    token_s: float = 5.0
    """That a client has to present its token."""
    goodbye_s: float = 5.0
    """For the last events to reach a client, and for all clients together when the server stops."""

    def __post_init__(self) -> None:
        """Refuse what is no time: NaN passes any comparison with a bound."""
        if not 0.0 < self.idle_s < math.inf:
            raise UsageError(f"a client cannot be idle for {self.idle_s} s: give seconds, such as 30")


class Throttle:
    """Says how long to wait so that sound is not taken faster than a multiple of real time."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due_s = 0.0

    def wait_s(self, duration_s: float, now_s: float) -> float:
        """Account for a piece of sound; return the time until the next may be taken, >= 0."""
        self._due_s = max(self._due_s, now_s) + duration_s / self._speed
        return self._due_s - now_s


class IdleAllowance:
    """How long a client may still keep the server waiting.

    Waiting uses it up and sound earns it back, twice its own duration. So sound at half of real time or
    faster keeps a place, a pause may last `idle_s`, and a byte now and then does not count as sound. A server
    that is slow to compute does not count as waiting, within `MOST_COMPUTE`.
    """

    def __init__(self, idle_s: float) -> None:
        self._most_s = idle_s
        self.left_s = idle_s

    def spend(self, waited_s: float) -> None:
        """Account for time that the client kept the server waiting."""
        self.left_s = max(0.0, self.left_s - waited_s)

    def earn(self, sound_s: float, compute_s: float = 0.0) -> None:
        """Account for sound that came, and for the time until it was recognised."""
        self.left_s = min(self._most_s, self.left_s + sound_s / SLOWEST_PACE)
        self.spend(max(0.0, compute_s - MOST_COMPUTE * sound_s))


class FrameBudget:
    """Counts a client's frames that carry no sound: a token bucket."""

    def __init__(self) -> None:
        self._left = float(FRAMES_AT_ONCE)
        self._counted_s = 0.0

    def spend(self, now_s: float) -> bool:
        """Account for a frame; return False if it is one too many."""
        earned = FRAMES_PER_S * (now_s - self._counted_s)
        self._left = min(float(FRAMES_AT_ONCE), self._left + earned) - 1.0
        self._counted_s = now_s
        return self._left >= 0.0


class QuietLog:
    """Says a line about each kind of trouble at most once in `QUIET_S`, and how often it happened meanwhile.

    Remembers a time and a count by kind; kinds are few and never come from a client.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._said_s: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def note(self, kind: str, line: str) -> None:
        """Say the line, or only count it."""
        now_s = self._clock()
        if now_s < self._said_s.get(kind, -QUIET_S) + QUIET_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        unsaid = self._unsaid.pop(kind, 0)
        self._said_s[kind] = now_s
        self._say(f"{line} ({unsaid} more since the last such line)" if unsaid else line)


def require_descriptors(connections: int) -> None:
    """Raise the limit on open files as far as clients need, where this user may.

    Raises:
        UsageError: the limit is too low for so many clients.
    """
    needed = _open_descriptors() + connections + MOST_WAITING + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise UsageError(
            f"{connections} clients need {needed} open files and this process may have {hard}: lower "
            f"--clients, or raise the limit (ulimit -n {needed}; in a systemd unit LimitNOFILE={needed})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else USUAL_DESCRIPTORS
