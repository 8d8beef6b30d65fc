"""The events of the recogniser, and their JSON form: one object per line, each with `v` and `type`.

Times are seconds of the stream, from the sample counter. Readers must ignore unknown fields.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, Literal

EVENT_VERSION: Final = 1
SECONDS_DIGITS: Final = 6
"""Decimals of a time: enough to distinguish neighbouring samples at 16 kHz."""


LATE_S: Final = 2.0
"""A longer lag gives a `warning` event, once per episode."""

DeviceState = Literal["lost", "back", "silent", "active"]
"""Silent: the device delivers a constant value, mostly 0. Active: it delivers sound again."""
DriftSubject = Literal["level", "features", "spectrum", "entropy"]
"""The level of speech, the network's features, the long-term spectrum, or the entropy of the answers."""
DriftUnit = Literal["dB", "spreads", "nats"]
"""A spread is a standard deviation of the calibration session."""
WarningSubject = Literal["length", "format", "channels", "lag"]


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    type: ClassVar[str]


@dataclass(frozen=True)
class Session(Event):
    """The first event: the source, and what recognises it."""

    type = "session"
    source: str
    bundle: str
    profile: str | None
    provider: str
    emotions: tuple[str, ...]
    window_s: float
    step_s: float
    temperature_fitted: bool
    """Whether the softmax temperature was fitted; if not, the probabilities are not calibrated."""
    algorithmic_delay_s: float = 0.0
    """Minimum latency from audio to decision, without compute and capture: the duration of the sound that
    the newest feature is computed from, framing included."""
    provider_reason: str = ""
    """Why this provider was selected, and no faster one."""


@dataclass(frozen=True)
class Window(Event):
    """One position of the rolling window."""

    type = "window"
    start_s: float
    end_s: float
    probs: dict[str, float]
    """Posterior of this window, by emotion."""
    smoothed: dict[str, float]
    """Posterior smoothed over recent windows with speech; `label` is decided from it."""
    label: str
    """An emotion, or "unsure"."""
    speech: bool
    level_dbfs: float
    """RMS level of the newest step of sound up to 4 kHz, in dBFS; 0 is full scale."""
    latency_ms: dict[str, float]
    """Compute time since the previous window in ms, by stage; `queue` is waiting time (for its turn, and in
    the resampler), not compute."""
    lag_ms: float
    """Time since the window's last sound was due: see `edge.recognition.latency.LagMeter`. For a file read as
    fast as possible, and a `Recognizer` that is fed directly, the time since that sound was passed in."""

    @property
    def compute_ms(self) -> float:
        """Compute time of all stages, in ms; waiting in the queue is not compute."""
        return sum(ms for stage, ms in self.latency_ms.items() if stage != "queue")


@dataclass(frozen=True)
class Utterance(Event):
    """Speech between two silences; its label is decided from the mean posterior of its windows."""

    type = "utterance"
    start_s: float
    end_s: float
    probs: dict[str, float]
    label: str
    windows: int


@dataclass(frozen=True)
class Speech(Event):
    """Speech began or ended."""

    type = "speech"
    time_s: float
    active: bool


@dataclass(frozen=True)
class Overrun(Event):
    """Sound was lost before it was processed; it counts as silence."""

    type = "overrun"
    start_s: float
    lost_s: float


@dataclass(frozen=True)
class Device(Event):
    """The sound device changed state."""

    type = "device"
    time_s: float
    name: str
    state: DeviceState
    reason: str = ""
    """What was observed, and what to do about it; empty if the state says it all."""


@dataclass(frozen=True)
class Drift(Event):
    """The stream differs from the session in which the speaker was calibrated."""

    type = "drift"
    time_s: float
    what: DriftSubject
    change: float
    """Difference of a slow average of the stream from the session, in `unit`; features and spectrum are
    distances, without a sign."""
    bound: float
    """Largest difference that is not reported, > 0."""
    unit: DriftUnit
    advice: str
    """What to do about it."""


@dataclass(frozen=True)
class EngineChange(Event):
    """The GPU failed, and the CPU computes from this time on; no sound and no window was lost."""

    type = "engine"
    time_s: float
    provider: str
    """The provider that computes now."""
    reason: str
    """Why the previous provider failed."""


@dataclass(frozen=True)
class StreamWarning(Event):
    """The stream goes on, but its sound or its timing is probably not what the user expects."""

    type = "warning"
    time_s: float
    what: WarningSubject
    message: str
    """One line: what was observed, and what to do about it."""


@dataclass(frozen=True)
class Error(Event):
    """The server ends a client's stream early, for the reason in `message`."""

    type = "error"
    message: str


@dataclass(frozen=True)
class Summary(Event):
    """The last event."""

    type = "summary"
    duration_s: float
    windows: int
    utterances: int
    dropped: int
    """Number of times that sound was lost."""
    latency_ms: dict[str, float]
    """p50, p95 and p99 of the compute time of the most recent steps, in ms; empty without windows."""
    real_time_factor: float
    """Compute time divided by the duration of the sound; below 1 keeps up."""
    lag_ms: dict[str, float] = field(default_factory=dict)
    """p50, p95 and p99 of the lag of the most recent windows, and the maximum of all (max), in ms; empty
    without windows."""


def to_json(event: Event) -> str:
    """Write an event as one line of JSON.

    Numbers are rounded to their precision; one that is not finite becomes null, since JSON has no NaN.
    """
    return json.dumps({"v": EVENT_VERSION, "type": event.type, **_rounded(asdict(event))}, allow_nan=False)


def _rounded(value: Any, digits: int = 4) -> Any:
    if isinstance(value, float):
        return round(value, digits) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {
            key: _rounded(item, SECONDS_DIGITS if key.endswith("_s") else 4) for key, item in value.items()
        }
    return value
