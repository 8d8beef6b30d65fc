"""What the recogniser reports, and its JSON form: one object a line, `v` and `type` in each.

Times are seconds of the stream, from the sample counter. Readers must ignore fields they do not know.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final

EVENT_VERSION: Final = 1
SECONDS_DIGITS: Final = 6
"""Decimals of a time: enough to tell one sample at 16 kHz from the next."""


LATE_S: Final = 2.0
"""A longer lag is a `warning` event, once an episode."""


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    type: ClassVar[str]


@dataclass(frozen=True)
class Session(Event):
    """The first event: what is being listened to, and by what."""

    type = "session"
    source: str
    bundle: str
    profile: str | None
    provider: str
    emotions: tuple[str, ...]
    window_s: float
    step_s: float
    temperature_fitted: bool
    """False: the probabilities were never compared with how often they are right."""
    algorithmic_delay_s: float = 0.0
    """Sound that the newest feature is made of, framing included: what is said now has been heard in
    full only so much later, on any machine. Apart from it: compute time, and the way from the microphone."""
    provider_reason: str = ""
    """Why this provider, and none that is faster."""


@dataclass(frozen=True)
class Window(Event):
    """One position of the rolling window."""

    type = "window"
    start_s: float
    end_s: float
    probs: dict[str, float]
    """The window's own posterior, by emotion."""
    smoothed: dict[str, float]
    """The posterior smoothed over recent windows with speech: what `label` is decided on."""
    label: str
    """An emotion, or "unsure"."""
    speech: bool
    level_dbfs: float
    """Root mean square of the newest step of sound up to 4 kHz; 0 is full scale."""
    latency_ms: dict[str, float]
    """Compute time since the window before, by stage; `queue` is waiting (for its turn, and in the
    resampler), not compute."""
    lag_ms: float
    """Time since the window's last sound was due: see `edge.recognition.lag.LagMeter`. For a file that is
    read as fast as possible, and a `Recognizer` that is fed directly: since that sound was handed over."""

    @property
    def compute_ms(self) -> float:
        """Compute time of all stages, in ms; waiting in the queue is not compute."""
        return sum(ms for stage, ms in self.latency_ms.items() if stage != "queue")


@dataclass(frozen=True)
class Utterance(Event):
    """Speech between two silences, judged by the average of its windows' posteriors."""

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
    """Sound was lost before it could be heard; it counts as silence."""

    type = "overrun"
    start_s: float
    lost_s: float


@dataclass(frozen=True)
class Device(Event):
    """The sound device changed state."""

    type = "device"
    time_s: float
    name: str
    state: str
    """"lost" or "back"; "silent": it delivers one constant value; "active": it no longer does."""
    reason: str = ""
    """What was observed, and what to do about it; empty where the state says all."""


@dataclass(frozen=True)
class Drift(Event):
    """The stream has moved away from the session in which the speaker was calibrated."""

    type = "drift"
    time_s: float
    what: str
    """"level", "features" (of the network), "spectrum" (the long-term one) or "entropy" (of answers)."""
    change: float
    """From the session to a slow average of now, in `unit`; features and spectrum have no direction."""
    bound: float
    """How far is too far, > 0."""
    unit: str
    """"dB", "spreads" (of the session) or "nats"."""
    advice: str
    """What to do about it."""


@dataclass(frozen=True)
class EngineChange(Event):
    """The GPU failed, and the CPU computes from here on; no sound and no window was lost."""

    type = "engine"
    time_s: float
    provider: str
    """What computes now."""
    reason: str
    """What happened to the one before."""


@dataclass(frozen=True)
class StreamWarning(Event):
    """The stream goes on, but its sound or its timing is probably not what the user expects."""

    type = "warning"
    time_s: float
    what: str
    """The subject, one word: "length", "format", "channels", "lag"."""
    message: str
    """One line: what was observed, and what to do."""


@dataclass(frozen=True)
class Error(Event):
    """Why the server ends a client's stream early."""

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
    """Times that sound was lost."""
    latency_ms: dict[str, float]
    """p50, p95 and p99 of the compute time of a step, of the most recent ones; empty without windows."""
    real_time_factor: float
    """Compute time divided by the duration of the sound; below 1 keeps up."""
    lag_ms: dict[str, float] = field(default_factory=dict)
    """p50, p95 and p99 of the windows' lag, of the most recent ones, and the longest of all (max); empty
    without windows."""


def to_json(event: Event) -> str:
    """Write an event as one line of JSON.

    Numbers are rounded to what they can mean; one that is not finite, which JSON lacks, is null.
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
