"""Statistics of a stream for its summary: windows, lost sound, compute time and lag."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from edge.events import Event, Summary, Utterance, Window

RECENT_WINDOWS: Final = 20_000
"""Windows whose compute times and lags the summary covers: 80 minutes at the default step."""


class StreamStatistics:
    """Counts what the summary reports. Remembers the times of `RECENT_WINDOWS` only."""

    def __init__(self) -> None:
        self.lost_s = 0.0
        """Sound lost so far."""
        self.dropped = 0
        """Losses so far."""
        self._compute_ms: deque[float] = deque(maxlen=RECENT_WINDOWS)
        self._lag_ms: deque[float] = deque(maxlen=RECENT_WINDOWS)
        self._longest_lag_ms = 0.0
        self._compute_s = 0.0
        self._windows = 0
        self._utterances = 0

    def lost(self, lost_s: float, times: int = 1) -> None:
        """Count lost sound. A device that disconnects is one loss, whose length is known on its return."""
        self.dropped += times
        self.lost_s += lost_s

    def spent(self, compute_s: float, events: Sequence[Event]) -> None:
        """Count the compute time of a block, and the events it completed."""
        self._compute_s += compute_s
        windows = [event for event in events if isinstance(event, Window)]
        self._compute_ms += [window.compute_ms for window in windows]
        self._lag_ms += [window.lag_ms for window in windows]
        self._longest_lag_ms = max([self._longest_lag_ms, *(window.lag_ms for window in windows)])
        self._windows += len(windows)
        self._utterances += sum(isinstance(event, Utterance) for event in events)

    def summary(self, duration_s: float) -> Summary:
        """Report so far."""
        return Summary(
            duration_s=duration_s,
            windows=self._windows,
            utterances=self._utterances,
            dropped=self.dropped,
            latency_ms=_percentiles(self._compute_ms),
            real_time_factor=self._compute_s / duration_s if duration_s > 0 else 0.0,
            lag_ms=_percentiles(self._lag_ms) | ({"max": self._longest_lag_ms} if self._lag_ms else {}),
        )


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{rank}": float(np.percentile(values, rank)) for rank in (50, 95, 99)} if values else {}
