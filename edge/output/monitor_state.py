"""The state of the live monitor as an immutable value: each event gives the next state."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from edge.events import (
    Device,
    Drift,
    EngineChange,
    Event,
    Overrun,
    Session,
    Speech,
    StreamWarning,
    Summary,
    Utterance,
    Window,
)
from edge.output.text import clock_time

MINUTE_S: Final = 60.0
"""Length of the timeline."""

CLIP_DBFS: Final = -6.0
"""RMS level above which the input clips: peaks of speech are about 10 dB above its RMS."""


@dataclass(frozen=True)
class Moment:
    """The label of one window on the timeline."""

    end_s: float
    label: str
    """An emotion, "unsure", or "" for silence."""


@dataclass(frozen=True)
class MonitorState:
    """Everything that a frame shows; each event gives a new state."""

    session: Session | None = None
    window: Window | None = None
    """The newest."""
    utterance: Utterance | None = None
    """The newest."""
    summary: Summary | None = None
    heard_s: float = 0.0
    level_dbfs: float = -math.inf
    clipped_s: float = -math.inf
    """When the input was last too loud."""
    speech: bool = False
    """Whether the newest window or speech event says that there is speech."""
    paused: bool = False
    """The last utterance has ended, and no other has begun."""
    history: tuple[Moment, ...] = ()
    """The last minute."""
    compute_ms: float = 0.0
    """Compute time so far."""
    overruns: int = 0
    lost_s: float = 0.0
    notice: str = ""
    """The current fault of the device; empty without one."""
    drift: Drift | None = None
    """The newest."""
    warning: StreamWarning | None = None
    """The newest."""

    @property
    def speaking(self) -> bool:
        """Whether there is speech now, and the microphone works."""
        return self.speech and not self.notice

    @property
    def advice(self) -> Drift | None:
        """The newest drift, if it is from the last minute."""
        return self.drift if self.drift and self._is_recent(self.drift.time_s) else None

    @property
    def recent_warning(self) -> StreamWarning | None:
        """The newest warning, if it is from the last minute."""
        return self.warning if self.warning and self._is_recent(self.warning.time_s) else None

    def _is_recent(self, time_s: float) -> bool:
        return self.heard_s - time_s < MINUTE_S

    @property
    def step_ms(self) -> float:
        """Compute time of the newest step, without the waiting time."""
        return self.window.compute_ms if self.window else 0.0

    @property
    def real_time_factor(self) -> float:
        """Compute time so far divided by the duration of the sound."""
        return self.compute_ms / 1000.0 / self.window.end_s if self.window and self.window.end_s > 0 else 0.0

    def hearing(self, heard_s: float, level_dbfs: float) -> MonitorState:
        """Return the state after another block of sound."""
        clipped_s = heard_s if level_dbfs >= CLIP_DBFS else self.clipped_s
        return replace(self, heard_s=heard_s, level_dbfs=level_dbfs, clipped_s=clipped_s)

    def after(self, event: Event) -> MonitorState:
        """Return the state after an event."""
        state = self
        match event:
            case Session():
                state = MonitorState(session=event)
            case Window():
                state = self._after_window(event)
            case Utterance():
                state = replace(self, utterance=event)
            case Speech():
                state = replace(self, speech=event.active, paused=not event.active)
            case Overrun():
                state = replace(self, overruns=self.overruns + 1, lost_s=self.lost_s + event.lost_s)
            case Device():
                state = replace(self, notice=_notice(event))
            case Drift() | StreamWarning():
                state = self._after_advice(event)
            case EngineChange():
                state = replace(self, session=_after_change(self.session, event))
            case Summary():
                state = replace(self, summary=event)
        return state

    def _after_advice(self, event: Drift | StreamWarning) -> MonitorState:
        return replace(self, drift=event) if isinstance(event, Drift) else replace(self, warning=event)

    def _after_window(self, window: Window) -> MonitorState:
        moment = Moment(window.end_s, window.label if window.speech else "")
        oldest_s = window.end_s - MINUTE_S
        return replace(
            self,
            window=window,
            heard_s=max(self.heard_s, window.end_s),
            speech=window.speech and not self.paused,
            history=(*(past for past in self.history if past.end_s > oldest_s), moment),
            compute_ms=self.compute_ms + window.compute_ms,
        )


def _notice(event: Device) -> str:
    """Describe the fault of a device that is lost or silent; empty for any other state."""
    if event.state not in ("lost", "silent"):
        return ""
    reason = f": {event.reason}" if event.reason else ""
    return f"{event.name} is {event.state} since {clock_time(event.time_s)}{reason}"


def _after_change(session: Session | None, change: EngineChange) -> Session | None:
    """Return the session with the new provider, and when the previous one failed."""
    if session is None:
        return None
    failed = f"{session.provider} failed at {clock_time(change.time_s)}"
    return replace(session, provider=f"{change.provider} ({failed})")


def timeline_cells(state: MonitorState, count: int) -> list[str]:
    """Cut the last minute into cells, oldest first: an emotion, "unsure", or "" for silence.

    Cells lie on a fixed grid of the stream's time, so that what was drawn moves but never changes.
    """
    cell_s = MINUTE_S / count
    step_s = state.session.step_s if state.session else cell_s
    labels: dict[int, str] = {}
    for moment in state.history:
        last = math.floor(moment.end_s / cell_s)
        first = min(last, math.floor((moment.end_s - step_s) / cell_s) + 1)
        for cell in range(max(first, last - count), last + 1):
            labels[cell] = moment.label or labels.get(cell, "")
    newest = math.floor(state.heard_s / cell_s)
    return [labels.get(cell, "") for cell in range(newest - count + 1, newest + 1)]
