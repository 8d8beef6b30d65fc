from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import Block, DeviceChange
from edge.errors import MmtlError, RealTimeError, SourceError
from edge.events import Device, Event, Overrun, Session, Speech, Summary, Utterance, Window
from edge.model.bundle import Bundle
from edge.output.sinks import Sink
from edge.recognition.latency import STAGES
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer
from edge.recognition.window_events import QUIETEST_DBFS
from edge.system import signals
from tests.edge.schema import checked_event

Talk = Callable[..., Array]


class Blocks:
    """A source of given blocks, which notes whether it was closed."""

    name = "blocks"
    live = False

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = blocks
        self.entered = self.closed = False

    def __enter__(self) -> Blocks:
        self.entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[Block]:
        yield from self._blocks


class Collected(Sink):
    """Keeps all it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard: list[tuple[float, float]] = []

    def emit(self, event: Event) -> None:
        self.events.append(checked_event(event))

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        self.heard.append((heard_s, level_dbfs))


@pytest.fixture
def recognizer(bundle: Bundle) -> Recognizer:
    return Recognizer(bundle, provider="cpu")


def cut(sound: Array, size: int = 1_280, lost: int = 0) -> list[Block]:
    """Cut a sound into blocks; `lost` samples are missing before the third."""
    starts = range(0, len(sound), size)
    return [
        Block(sound[start : start + size], time.perf_counter(), lost if index == 2 else 0)
        for index, start in enumerate(starts)
    ]


def of(kind: type[Event], events: Iterable[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def test_a_session_comes_first_and_a_summary_last(recognizer: Recognizer, talk: Talk) -> None:
    sink, other = Collected(), Collected()
    sound = talk((0.5, 0.0), (3.5, 0.3))
    began_s = time.perf_counter()
    summary = listen(Blocks(cut(sound)), recognizer, [sink, other])
    passed_s = time.perf_counter() - began_s
    assert sink.events == other.events
    first, *between, last = sink.events
    assert isinstance(first, Session)
    assert (first.source, first.profile, first.provider, first.step_s) == ("blocks", None, "cpu", 0.24)
    assert last is summary
    assert {type(event) for event in between} == {Window, Speech, Utterance}
    assert summary.windows == len(of(Window, between))
    assert summary.utterances == len(of(Utterance, between)) == 1
    assert (summary.duration_s, summary.dropped) == (4.0, 0)
    assert 0.0 < summary.real_time_factor < passed_s / 4.0
    assert set(summary.latency_ms) == {"p50", "p95", "p99"}


def test_the_sinks_follow_the_progress(recognizer: Recognizer) -> None:
    sink = Collected()
    tone = 0.1 * 2**0.5 * np.sin(2 * np.pi * 1_000 * np.arange(1_280) / SAMPLE_RATE)
    nothing = Block(np.zeros(0, np.float32), time.perf_counter())
    listen(Blocks([*cut(tone.astype(np.float32)), nothing]), recognizer, [sink])
    (heard_s, level), (later_s, silent) = sink.heard
    assert (heard_s, later_s) == (0.08, 0.08)
    assert level == pytest.approx(-20.0, abs=0.01)
    assert silent == QUIETEST_DBFS


def test_the_level_does_not_read_an_offset_as_sound(recognizer: Recognizer) -> None:
    sink, offset = Collected(), np.full(SAMPLE_RATE, 0.3, np.float32)
    listen(Blocks(cut(offset)), recognizer, [sink])
    assert {level for _, level in sink.heard} == {QUIETEST_DBFS}
    assert {event.level_dbfs for event in sink.events if isinstance(event, Window)} == {QUIETEST_DBFS}


def test_lost_sound_is_reported_and_advances_the_time(recognizer: Recognizer, talk: Talk) -> None:
    sink = Collected()
    summary = listen(Blocks(cut(talk((1.0, 0.3)), lost=160_000)), recognizer, [sink])
    assert of(Overrun, sink.events) == [Overrun(start_s=0.16, lost_s=10.0)]
    assert summary.dropped == 1
    assert summary.duration_s == pytest.approx(11.0)


def test_changes_of_the_device_are_reported_at_their_time_in_the_stream(
    recognizer: Recognizer, talk: Talk
) -> None:
    sink, now_s = Collected(), time.perf_counter()
    nothing = np.zeros(0, np.float32)
    blocks = [
        *cut(talk((1.0, 0.3))),
        Block(nothing, now_s, device_change=DeviceChange("headset", "lost")),
        Block(nothing, now_s, 160_000, DeviceChange("headset", "back")),
        *cut(talk((1.0, 0.3))),
    ]
    summary = listen(Blocks(blocks), recognizer, [sink])
    assert of(Device, sink.events) == [Device(1.0, "headset", "lost"), Device(11.0, "headset", "back")]
    assert of(Overrun, sink.events) == [Overrun(start_s=1.0, lost_s=10.0)]
    assert (summary.duration_s, summary.dropped) == (12.0, 1)


def test_a_strict_run_ends_after_a_loss_with_a_summary(recognizer: Recognizer, talk: Talk) -> None:
    sink, source = Collected(), Blocks(cut(talk((3.5, 0.3)), lost=8_000))
    with pytest.raises(RealTimeError, match=r"0\.50 s of sound from blocks was lost") as caught:
        listen(source, recognizer, [sink], strict=True)
    assert caught.value.exit_code == 6
    assert source.closed
    assert len(sink.heard) == 3
    assert isinstance(sink.events[-1], Summary)
    assert of(Overrun, sink.events) == [Overrun(start_s=0.16, lost_s=0.5)]


def test_a_strict_run_without_a_loss_ends_normally(recognizer: Recognizer, talk: Talk) -> None:
    summary = listen(Blocks(cut(talk((1.0, 0.3)))), recognizer, [], strict=True)
    assert summary.dropped == 0


def test_a_device_that_does_not_come_back_is_no_stream_without_loss(
    recognizer: Recognizer, talk: Talk
) -> None:
    gone = Block(np.zeros(0, np.float32), time.perf_counter(), device_change=DeviceChange("headset", "lost"))
    summary = listen(Blocks([*cut(talk((1.0, 0.3))), gone]), recognizer, [])
    assert (summary.dropped, summary.duration_s) == (1, 1.0)


def test_a_strict_run_does_not_wait_for_a_lost_device(recognizer: Recognizer, talk: Talk) -> None:
    def endless() -> Iterator[Block]:
        yield from cut(talk((1.0, 0.3)))
        yield Block(
            np.zeros(0, np.float32), time.perf_counter(), device_change=DeviceChange("headset", "lost")
        )
        raise AssertionError("it waits")

    sink = Collected()
    with pytest.raises(RealTimeError, match="the sound from blocks was lost"):
        listen(Blocks(endless()), recognizer, [sink], strict=True)
    assert isinstance(sink.events[-1], Summary)


def test_every_window_has_its_time_by_stage_the_last_too(recognizer: Recognizer, talk: Talk) -> None:
    sink = Collected()
    listen(Blocks(cut(talk((3.7, 0.3)))), recognizer, [sink])
    windows = [event for event in sink.events if isinstance(event, Window)]
    assert len(windows) > 2
    assert {tuple(window.latency_ms) for window in windows} == {("queue", *STAGES)}


def test_a_source_without_sound_still_gets_a_summary(recognizer: Recognizer) -> None:
    sink = Collected()
    summary = listen(Blocks([]), recognizer, [sink])
    assert [event.type for event in sink.events] == ["session", "summary"]
    assert summary == Summary(0.0, 0, 0, 0, {}, 0.0)


def test_sound_that_breaks_off_is_flushed_before_the_error(recognizer: Recognizer, talk: Talk) -> None:
    def broken() -> Iterator[Block]:
        yield from cut(talk((1.0, 0.3)))
        raise SourceError("the cable is out: put it in")

    sink, source = Collected(), Blocks(broken())
    with pytest.raises(SourceError, match="cable"):
        listen(source, recognizer, [sink])
    assert source.closed
    assert len(of(Window, sink.events)) == 1
    assert isinstance(sink.events[-1], Summary)


def test_a_source_that_cannot_be_opened_leaves_no_event(recognizer: Recognizer) -> None:
    class Shut(Blocks):
        def __enter__(self) -> Blocks:
            raise SourceError("there is none")

    sink = Collected()
    with pytest.raises(SourceError):
        listen(Shut([]), recognizer, [sink])
    assert sink.events == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_waiting_for_sound_ends_cleanly(
    recognizer: Recognizer, talk: Talk, number: signal.Signals
) -> None:
    def endless() -> Iterator[Block]:
        yield from cut(talk((1.0, 0.3)))
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        time.sleep(60.0)
        raise AssertionError("the signal did not wake it")

    before = signal.getsignal(number)
    sink, source = Collected(), Blocks(endless())
    listen(source, recognizer, [sink])
    assert source.closed
    assert len(of(Window, sink.events)) == 1
    assert isinstance(sink.events[-1], Summary)
    assert signal.getsignal(number) == before


def test_a_signal_while_computing_ends_after_the_block(recognizer: Recognizer, talk: Talk) -> None:
    class Interrupting(Collected):
        def progress(self, heard_s: float, level_dbfs: float) -> None:
            super().progress(heard_s, level_dbfs)
            os.kill(os.getpid(), signal.SIGINT)

    sink = Interrupting()
    summary = listen(Blocks(cut(talk((1.0, 0.3)))), recognizer, [sink])
    assert len(sink.heard) == 1
    assert summary.duration_s == 0.08


class Impatient(Collected):
    """Sends two signals at the first progress."""

    def progress(self, heard_s: float, level_dbfs: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_signal_does_not_wait(
    recognizer: Recognizer, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "TOGETHER_S", 0.0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        listen(Blocks(cut(talk((1.0, 0.3)))), recognizer, [Impatient()])
    assert signal.getsignal(signal.SIGINT) == before


def test_signals_that_come_together_are_one(
    recognizer: Recognizer, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "TOGETHER_S", 60.0)
    sink = Impatient()
    summary = listen(Blocks(cut(talk((1.0, 0.3)))), recognizer, [sink])
    assert (summary.duration_s, sink.events[-1]) == (0.08, summary)


def test_a_signal_before_the_source_is_open_leaves_no_event(recognizer: Recognizer) -> None:
    class Slow(Blocks):
        def __enter__(self) -> Blocks:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60.0)
            raise AssertionError("the signal did not wake it")

    sink = Collected()
    with pytest.raises(KeyboardInterrupt):
        listen(Slow([]), recognizer, [sink])
    assert sink.events == []


def test_a_sink_that_fails_keeps_no_event_from_the_others(recognizer: Recognizer, talk: Talk) -> None:
    class Full(Sink):
        def emit(self, event: Event) -> None:
            if not isinstance(event, Session):
                raise MmtlError("the disk is full")

    sink = Collected()
    with pytest.raises(MmtlError, match="disk is full"):
        listen(Blocks(cut(talk((0.5, 0.0), (1.0, 0.3)))), recognizer, [Full(), sink])
    assert isinstance(sink.events[-1], Summary)
    assert of(Speech, sink.events)
