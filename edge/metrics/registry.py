"""What Prometheus reads: the streams, their timing and their losses, counted from the events.

No metric says what was recognised, or whose sound it was.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from edge.events import (
    Device,
    Drift,
    DriftSubject,
    EngineChange,
    Error,
    Event,
    Overrun,
    Session,
    StreamWarning,
    Summary,
    Utterance,
    WarningSubject,
    Window,
)
from edge.output.sinks import Sink
from edge.recognition.latency import STAGES

COMPUTE_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.24, 0.5, 1.0),
)
"""Upper bounds; 0.24 s is the default step, within which all stages together must stay."""
LAG_BUCKETS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds; a lag of more than 2 s is a warning."""
PLAIN_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Response:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes


class Metrics:
    """The metrics of a process. Streams may be followed in several threads.

    Remembers counts and sums since the process began, and why it is not ready.
    """

    def __init__(self, version: str) -> None:
        """Begin, not ready.

        Args:
            version: of this program.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._lock = threading.Lock()
        self._not_ready: str | None = "starting"
        build = self._gauge("mmtl_build_info", "Version of the program; always 1.", "version")
        build.labels(version).set(1)
        self._ready = self._gauge("mmtl_ready", "1 once the model is loaded and has run, else 0.")
        self.streams = self._gauge("mmtl_streams", "Streams under way, by what computes them.", "provider")
        self.begun = self._counter("mmtl_streams_begun", "Streams that have begun.")
        self.failed = self._counter("mmtl_streams_failed", "Streams that were ended early by an error.")
        self.windows = self._counter("mmtl_windows", "Windows recognised, with speech or without.", "speech")
        self.utterances = self._counter("mmtl_utterances", "Utterances recognised.")
        self.losses = self._counter("mmtl_losses", "Times that sound was lost, by cause.", "cause")
        self.lost_s = self._counter("mmtl_lost_seconds", "Duration of the lost sound, by cause.", "cause")
        self.warnings = self._counter("mmtl_warnings", "Warnings about a stream, by subject.", "subject")
        self.drifts = self._counter("mmtl_drifts", "Reports of drift from the calibration.", "subject")
        self.engine_changes = self._counter("mmtl_engine_changes", "Streams whose GPU failed.")
        self.queue_s = self._histogram(
            "mmtl_queue_seconds", "Time that the sound of a window waited for its turn.", COMPUTE_BUCKETS_S
        )
        self.compute_s = self._histogram(
            "mmtl_compute_seconds", "Compute time of a window, by stage.", COMPUTE_BUCKETS_S, "stage"
        )
        self.lag_s = self._histogram(
            "mmtl_lag_seconds", "Time from when a window's sound was due to its event.", LAG_BUCKETS_S
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Make the series of rare events, since `increase` misses the event that a series begins with."""
        for cause in ("overrun", "device"):
            self.losses.labels(cause)
            self.lost_s.labels(cause)
        for subject in get_args(WarningSubject):
            self.warnings.labels(subject)
        for subject in get_args(DriftSubject):
            self.drifts.labels(subject)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def set_ready(self) -> None:
        """Say that the next sound is recognised without a start-up delay."""
        self._set_ready(None)

    def set_not_ready(self, reason: str) -> None:
        """Say why sound is not recognised now, in a word or two."""
        self._set_ready(reason)

    def _set_ready(self, reason: str | None) -> None:
        with self._lock:
            self._not_ready = reason
        self._ready.set(reason is None)

    def stream(self) -> Sink:
        """Return a sink that counts the events of one stream."""
        return _StreamMetrics(self)

    def readiness(self) -> Sink:
        """Return a sink that makes the process ready while its only stream is under way."""
        return _Readiness(self)

    def respond(self, path: str) -> Response | None:
        """Answer GET or HEAD of /metrics or /healthz, for any HTTP server; None for another path."""
        if path == "/metrics":
            return Response(200, CONTENT_TYPE_LATEST, generate_latest(self.registry))
        if path == "/healthz":
            reason = self._not_ready
            status = 200 if reason is None else 503
            return Response(status, PLAIN_TEXT, f"{reason or 'ready'}\n".encode())
        return None


class _Readiness(Sink):
    """Ready from the session event on, which follows when the source is open, to the summary."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def emit(self, event: Event) -> None:
        """Follow the first and the last event."""
        if isinstance(event, Session):
            self._metrics.set_ready()
        elif isinstance(event, Summary):
            self._metrics.set_not_ready("the sound has ended")


class _StreamMetrics(Sink):
    """Counts one stream's events. Remembers its provider, and whether its microphone is unplugged."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._provider: str | None = None
        self._unplugged = False
        # `labels` looks a series up under a lock; each window needs several.
        self._windows = {flag: metrics.windows.labels(str(flag).lower()) for flag in (False, True)}
        self._compute_s = {stage: metrics.compute_s.labels(stage) for stage in STAGES}

    def emit(self, event: Event) -> None:
        """Count the event."""
        match event:
            case Window():
                self._count_window(event)
            case Session() | EngineChange() | Error() | Summary():
                self._follow_stream(event)
            case Overrun() | Device():
                self._count_loss(event)
            case Utterance():
                self._metrics.utterances.inc()
            case StreamWarning():
                self._metrics.warnings.labels(event.what).inc()
            case Drift():
                self._metrics.drifts.labels(event.what).inc()

    def close(self) -> None:
        """Count the stream as ended, if it broke off without a summary."""
        self._move_to(None)

    def _count_window(self, window: Window) -> None:
        self._windows[window.speech].inc()
        self._metrics.lag_s.observe(window.lag_ms / 1000.0)
        for stage, spent_ms in window.latency_ms.items():
            if stage in self._compute_s:
                self._compute_s[stage].observe(spent_ms / 1000.0)
        self._metrics.queue_s.observe(window.latency_ms.get("queue", 0.0) / 1000.0)

    def _follow_stream(self, event: Session | EngineChange | Error | Summary) -> None:
        match event:
            case Session():
                if self._provider is None:  # a client that names a profile gets its session again
                    self._metrics.begun.inc()
                self._move_to(event.provider)
            case EngineChange():
                self._metrics.engine_changes.inc()
                self._move_to(event.provider)
            case Error():
                self._metrics.failed.inc()
            case Summary():
                self._move_to(None)

    def _count_loss(self, event: Overrun | Device) -> None:
        """Count a gap; that of an unplugged microphone is one loss, whose length is known on its return."""
        if isinstance(event, Overrun):
            cause = "device" if self._unplugged else "overrun"
            if not self._unplugged:
                self._metrics.losses.labels(cause).inc()
            self._metrics.lost_s.labels(cause).inc(event.lost_s)
        elif event.state == "lost":
            self._unplugged = True
            self._metrics.losses.labels("device").inc()
        elif event.state == "back":
            self._unplugged = False

    def _move_to(self, provider: str | None) -> None:
        if self._provider is not None:
            self._metrics.streams.labels(self._provider).dec()
        if provider is not None:
            self._metrics.streams.labels(provider).inc()
        self._provider = provider
