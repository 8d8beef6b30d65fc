"""Compute time by stage of the recogniser, for the `latency_ms` of windows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

STAGES: Final = ("front_end", "encoder", "speech", "classifier", "decision")


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
