"""One stream from its session event to its summary: what `mmtl run` and the server do for each block."""

from __future__ import annotations

import time
from dataclasses import replace

from edge.arrays import SAMPLE_RATE
from edge.audio.block import Block
from edge.events import Device, Event, Session, StreamWarning, Summary, Window
from edge.labels import EMOTIONS
from edge.recognition.latency import LagMeter
from edge.recognition.recognizer import Recognizer
from edge.recognition.stream_statistics import StreamStatistics


class StreamSession:
    """Recognises the blocks of one source: `begin`, then `feed` for each block, then `finish`.

    Adds to the recogniser's events what it cannot know: the time sound waited (`queue`), the lag, changes
    of the device, warnings and the summary. Remembers the statistics and the state of the lag meter.
    """

    def __init__(self, recognizer: Recognizer, source: str, *, live: bool) -> None:
        """Begin a stream.

        Args:
            recognizer: in its initial state.
            source: its name.
            live: whether the sound arrives in real time.
        """
        self.recognizer = recognizer
        self.statistics = StreamStatistics()
        self._source = source
        self._meter = LagMeter(live=live)

    def begin(self) -> Session:
        """Describe the stream: source, model and delay."""
        return session_of(self._source, self.recognizer)

    def feed(self, block: Block) -> list[Event]:
        """Recognise a block; return the events it completes: a gap, a device change, its samples, a warning.

        Only samples can be late: a block without any does not cause a lag warning.

        Raises:
            UsageError: the samples are not mono floats.
        """
        began_s = time.perf_counter()
        events = self._events(block)
        compute_s = time.perf_counter() - began_s
        events = [with_queue(event, 1000.0 * (began_s - block.arrived_s)) for event in events]
        if len(block.samples):
            events = self._meter.stamped(events)
        self.statistics.spent(compute_s, events)
        return events

    def finish(self) -> tuple[list[Event], Summary]:
        """Flush the recogniser: return its last events, which have no queue time, and the summary."""
        began_s = time.perf_counter()
        self._meter.ended()
        events = self._meter.stamped([with_queue(event, 0.0) for event in self.recognizer.flush()])
        self.statistics.spent(time.perf_counter() - began_s, events)
        return events, self.statistics.summary(self.recognizer.heard_s)

    def _events(self, block: Block) -> list[Event]:
        recognizer, change, warning = self.recognizer, block.device_change, block.warning
        events: list[Event] = []
        if change and change.state == "lost":
            self.statistics.lost(0.0)
        if block.lost:
            self.statistics.lost(block.lost / SAMPLE_RATE, times=0 if change else 1)
            events += recognizer.report_gap(block.lost)
        if change:
            events.append(Device(recognizer.heard_s, change.name, change.state, change.explanation))
        if len(block.samples):
            self._meter.arrived(block.arrived_s, recognizer.heard_s)
        events += recognizer.feed(block.samples)
        if warning:
            if warning.lost_s:
                self.statistics.lost(warning.lost_s)
            events.append(StreamWarning(recognizer.heard_s, warning.what, warning.message))
        return events


def session_of(source: str, recognizer: Recognizer) -> Session:
    """Describe the stream of a source, by its name, through a recogniser."""
    manifest = recognizer.bundle.manifest
    return Session(
        source=source,
        bundle=manifest.name,
        profile=recognizer.profile.name if recognizer.profile else None,
        provider=recognizer.engine.provider,
        emotions=EMOTIONS,
        window_s=recognizer.window_s,
        step_s=recognizer.settings.step_ms / 1000.0,
        temperature_fitted=manifest.temperature_fitted,
        algorithmic_delay_s=_algorithmic_delay_s(recognizer),
        provider_reason=recognizer.engine.reason,
    )


def with_queue(event: Event, queued_ms: float) -> Event:
    """Add the time that the sound waited for its turn to a window's latency."""
    if not isinstance(event, Window):
        return event
    return replace(event, latency_ms={"queue": queued_ms, **event.latency_ms})


def _algorithmic_delay_s(recognizer: Recognizer) -> float:
    """Return the duration of the sound that one feature covers."""
    samples = recognizer.front_end.samples_in(recognizer.engine.graphs.frames_for_first)
    return samples / recognizer.front_end.sample_rate
