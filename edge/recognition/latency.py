"""Compute time by stage, and lag: the delay of an event after the time at which its sound was due."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from edge.events import LATE_S, Event, StreamWarning, Window

STAGES: Final = ("front_end", "encoder", "speech", "classifier", "decision")

RECOVERED_S: Final = 1.0
"""Below this lag, a late episode ends."""
FORGETTING: Final = 1e-3
"""Seconds per second by which the estimate of the stream's start rises. Clocks of sound cards and systems
differ by less (200 ppm at most), so their drift does not count as lag. An hour hides 3.6 s of real lag."""


class StageTimes:
    """Adds up the seconds of each of `STAGES` until `reset`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Start from zero."""
        self._spent_s = dict.fromkeys(STAGES, 0.0)

    def add(self, stage: str, spent_s: float) -> None:
        """Add time that was measured elsewhere."""
        self._spent_s[stage] += spent_s

    @contextlib.contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Add the time that is spent inside."""
        began_s = self.clock()
        yield
        self._spent_s[stage] += self.clock() - began_s

    def shared_ms(self, windows: int) -> dict[str, float]:
        """Return each window's share, ms by stage, of what was computed for several together."""
        return {stage: 1000.0 * spent_s / windows for stage, spent_s in self._spent_s.items()}


class LagMeter:
    """Measures the lag of a stream's events.

    Sound at stream time p is due at start + p, where start is the minimum over all blocks of
    (arrival - stream time of the first sample), raised by `FORGETTING`: the least delayed block shows
    when the stream began. The lag of an event is the time since its sound was due. It includes delays
    before the sound arrived, such as a pipe or a socket that was not read. Lost sound advances the stream
    time and is not late.

    Sound that is not live is due when it arrives: the lag is the time from reading to the event, and
    causes no warning.

    Remembers the stream's start, the newest block and whether a late episode is under way.
    """

    def __init__(self, *, live: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begin a stream.

        Args:
            live: whether the sound arrives in real time.
            clock: monotonic seconds; arrival times use the same clock.
        """
        self._live = live
        self._clock = clock
        self._start_s = self._position_s = self._waiting_since_s = 0.0
        self._arrived_s = float("-inf")
        self._late = False

    def arrived(self, arrived_s: float, position_s: float) -> None:
        """Note a block of samples.

        Args:
            arrived_s: when its last sample arrived.
            position_s: stream time of its first sample, lost sound included.
        """
        start_s, passed_s = arrived_s - position_s, arrived_s - self._arrived_s
        if passed_s <= 0.0:  # the resampler held it back until the end of the stream
            self.ended()
        else:
            known = self._live and self._arrived_s > float("-inf")
            self._start_s = min(start_s, self._start_s + FORGETTING * passed_s) if known else start_s
            self._arrived_s = self._waiting_since_s = arrived_s
        self._position_s = position_s

    def ended(self) -> None:
        """Note that the sound has ended: the time until the flush is not lag."""
        self._waiting_since_s = self._clock()

    def stamped(self, events: Sequence[Event]) -> list[Event]:
        """Set the lag of the windows that the newest block completed; put a warning first if it is late."""
        now_s = self._clock()
        stamped = [
            replace(event, lag_ms=1000.0 * self._lag_s(event.end_s, now_s))
            if isinstance(event, Window)
            else event
            for event in events
        ]
        return [*self._warning(self._lag_s(self._position_s, now_s)), *stamped]

    def _lag_s(self, position_s: float, now_s: float) -> float:
        """Return the lag at a stream time; sound before the newest block was lost, and is not late."""
        due_s = self._start_s + max(position_s, self._position_s)
        return max(0.0, self._arrived_s - due_s) + now_s - self._waiting_since_s

    def _warning(self, lag_s: float) -> list[Event]:
        if not self._live:
            return []
        was_late = self._late
        self._late = lag_s > (RECOVERED_S if was_late else LATE_S)
        if was_late or not self._late:
            return []
        message = f"events come {lag_s:.1f} s late: stop other programs, or use a longer --step-ms"
        return [StreamWarning(self._position_s, "lag", message)]
