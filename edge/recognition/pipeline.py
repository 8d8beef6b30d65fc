"""One source through one recogniser to all sinks, until the sound ends or somebody stops it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import FrameType
from typing import Final

import numpy as np

from edge.arrays import SAMPLE_RATE
from edge.audio.block import Block, Caution, Source
from edge.errors import MmtlError, RealTimeError
from edge.events import Device, Event, Session, StreamWarning, Summary, Utterance, Window
from edge.labels import EMOTIONS
from edge.output.sinks import ReaderGone, Sink
from edge.recognition.lag import LagMeter
from edge.recognition.recognizer import Recognizer
from edge.system import signals

RECENT_WINDOWS: Final = 20_000
"""Windows whose compute times and lags the summary is about: 80 minutes at the default step."""


class Stopper:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a clean end: after the block under way, not amid it."""

    def __init__(self) -> None:
        self._request = signals.Request()
        self._waiting = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stopper]:
        """Handle the signals inside; put the old handlers back after."""
        with signals.handling(self._handle):
            yield self

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal interrupt what is done inside; one that came before does so at once."""
        try:
            self._waiting = True
            if self._request:
                raise signals.Interrupt(signal.SIGINT, self._request, self._handle)
            yield
        finally:
            self._waiting = False

    def blocks(self, source: Source) -> Iterator[Block]:
        """Pass on the blocks of a source until it ends or a signal came."""
        blocks = iter(source)
        while True:
            try:
                with self.waiting():
                    block = next(blocks)
            except StopIteration:
                return
            except KeyboardInterrupt as interrupt:
                signals.catch(interrupt)
                return
            yield block

    def _handle(self, number: int, frame: FrameType | None) -> None:
        interrupting = self._waiting or bool(self._request)  # before this signal is noted
        if not signals.put_off(number, frame) and not self._request.repeated() and interrupting:
            raise signals.Interrupt(number, self._request, self._handle)


class StreamStatistics:
    """Counts what the summary reports. Remembers the times of `RECENT_WINDOWS` only."""

    def __init__(self) -> None:
        self.lost_s = 0.0
        """Sound that was lost so far."""
        self.dropped = 0
        """Times that it was."""
        self._compute_ms: deque[float] = deque(maxlen=RECENT_WINDOWS)
        self._lag_ms: deque[float] = deque(maxlen=RECENT_WINDOWS)
        self._longest_lag_ms = 0.0
        self._compute_s = 0.0
        self._windows = 0
        self._utterances = 0

    def lost(self, lost_s: float, times: int = 1) -> None:
        """Note that sound was lost. A device that goes is one time, and how much is known when it is back."""
        self.dropped += times
        self.lost_s += lost_s

    def warned(self, caution: Caution) -> None:
        """Note a warning: it may be about sound that is missing."""
        if caution.lost_s:
            self.lost(caution.lost_s)

    def spent(self, compute_s: float, events: Sequence[Event]) -> None:
        """Note what a block cost and brought."""
        self._compute_s += compute_s
        windows = [event for event in events if isinstance(event, Window)]
        self._compute_ms += [_compute_ms(window) for window in windows]
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
            latency_ms=_percentiles(list(self._compute_ms)),
            real_time_factor=self._compute_s / duration_s if duration_s > 0 else 0.0,
            lag_ms=_percentiles(list(self._lag_ms)) | ({"max": self._longest_lag_ms} if self._lag_ms else {}),
        )


def session_of(source: str, recognizer: Recognizer) -> Session:
    """Describe what is about to happen to the sound of a source, by its name."""
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


def listen(source: Source, recognizer: Recognizer, sinks: Sequence[Sink], *, strict: bool = False) -> Summary:
    """Recognise a source to its end, or until Ctrl-C, SIGTERM or SIGHUP, and close with a summary.

    After the session each sink gets every event, also where another one fails.

    Args:
        source: the sound.
        recognizer: in its initial state.
        sinks: where the events go.
        strict: end as soon as sound was lost.

    Raises:
        KeyboardInterrupt: a signal came before the source was open, or a second one.
        RealTimeError: sound was lost, after the summary; only if `strict`.
        SourceError: the sound could not be had, or broke off; what came before is flushed first.
    """
    ledger, meter = StreamStatistics(), LagMeter(live=source.live)
    with Stopper().listening() as stopper, contextlib.ExitStack() as opened:
        with stopper.waiting():
            opened.enter_context(source)
        session = session_of(source.name, recognizer)
        for sink in sinks:
            sink.emit(session)
        try:
            for block in stopper.blocks(source):
                _hear(block, recognizer, sinks, ledger, meter)
                if strict and ledger.dropped:
                    break
        finally:
            events, summary = last_events(recognizer, ledger, meter)
            _emit(sinks, [*events, summary])
    if strict and ledger.dropped:
        raise RealTimeError(
            f"{_amount(ledger.lost_s)} sound from {source.name} was lost, expected none: use a longer "
            "--step-ms, stop other programs, or see that the microphone stays plugged in"
        )
    return summary


def last_events(
    recognizer: Recognizer, ledger: StreamStatistics, meter: LagMeter
) -> tuple[list[Event], Summary]:
    """End a stream: its tail, which has waited for nothing but the end, and the summary."""
    began = time.perf_counter()
    meter.ended()
    events = meter.stamped([with_queue(event, 0.0) for event in recognizer.flush()])
    ledger.spent(time.perf_counter() - began, events)
    return events, ledger.summary(recognizer.heard_s)


def _amount(lost_s: float) -> str:
    return f"{lost_s:.2f} s of" if lost_s > 0 else "the"


def _hear(
    block: Block, recognizer: Recognizer, sinks: Sequence[Sink], ledger: StreamStatistics, meter: LagMeter
) -> None:
    began = time.perf_counter()
    queued_ms = 1000.0 * (began - block.arrived_s)
    events: list[Event] = []
    if block.news and block.news.state == "lost":
        ledger.lost(0.0)
    if block.lost:
        ledger.lost(block.lost / SAMPLE_RATE, times=0 if block.news else 1)
        events += recognizer.report_gap(block.lost)
    if block.news:
        events.append(Device(recognizer.heard_s, block.news.name, block.news.state, block.news.reason))
    if len(block.samples):
        meter.arrived(block.arrived_s, recognizer.heard_s)
    events += recognizer.feed(block.samples)
    if block.caution:
        ledger.warned(block.caution)
        events.append(StreamWarning(recognizer.heard_s, block.caution.what, block.caution.message))
    compute_s = time.perf_counter() - began
    events = meter.stamped([with_queue(event, queued_ms) for event in events])
    ledger.spent(compute_s, events)
    _emit(sinks, events)
    for sink in sinks:
        sink.progress(recognizer.heard_s, recognizer.level_dbfs)


def _emit(sinks: Sequence[Sink], events: Sequence[Event]) -> None:
    """Give all sinks all events; raise the first failure after that."""
    failures = [_failure(sink, event) for event in events for sink in sinks]
    for failure in filter(None, failures):
        raise failure


def _failure(sink: Sink, event: Event) -> Exception | None:
    try:
        sink.emit(event)
    except (MmtlError, ReaderGone) as failure:
        return failure
    return None


def with_queue(event: Event, queued_ms: float) -> Event:
    """Add the time that the sound waited for its turn to a window's latency."""
    if not isinstance(event, Window):
        return event
    return replace(event, latency_ms={"queue": queued_ms, **event.latency_ms})


def _compute_ms(window: Window) -> float:
    return sum(ms for stage, ms in window.latency_ms.items() if stage != "queue")


def _algorithmic_delay_s(recognizer: Recognizer) -> float:
    """Return the duration of the sound that one feature is made of."""
    samples = recognizer.front_end.samples_in(recognizer.engine.graphs.frames_for_first)
    return samples / recognizer.front_end.sample_rate


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{rank}": float(np.percentile(values, rank)) for rank in (50, 95, 99)} if values else {}
