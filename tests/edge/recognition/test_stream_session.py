from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.block import NO_SAMPLES, Block, DeviceChange, InputWarning
from edge.events import LATE_S, Device, Event, Overrun, Session, Speech, StreamWarning, Summary, Window
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from edge.recognition.stream_session import StreamSession, session_of, with_queue
from tests.edge.recognition.test_pipeline import of

Talk = Callable[..., Array]
LATENCY = {"front_end": 0.5, "encoder": 1.5}


@pytest.fixture(scope="module")
def recognizer(bundle: Bundle) -> Recognizer:
    return Recognizer(bundle, provider="cpu")


@pytest.fixture
def session(recognizer: Recognizer) -> StreamSession:
    recognizer.reset()
    return StreamSession(recognizer, "microphone", live=True)


def fed(session: StreamSession, sound: Array, size: int = 1_280) -> list[Event]:
    starts = range(0, len(sound), size)
    blocks = [Block(sound[start : start + size], time.perf_counter()) for start in starts]
    return [event for block in blocks for event in session.feed(block)]


def test_a_stream_begins_with_its_session_and_finishes_with_its_last_events_and_a_summary(
    session: StreamSession, recognizer: Recognizer, talk: Talk
) -> None:
    sound = talk((0.5, 0.0), (3.5, 0.3))
    first = session.begin()
    assert isinstance(first, Session)
    assert (first.source, first.provider, first.step_s) == ("microphone", "cpu", 0.24)
    events = fed(session, sound)
    last, summary = session.finish()
    assert of(Speech, last)
    assert summary.windows == len(of(Window, [*events, *last]))
    assert (summary.duration_s, summary.utterances, summary.dropped) == (4.0, 1, 0)


def test_the_events_are_those_of_the_recognizer(
    session: StreamSession, recognizer: Recognizer, talk: Talk
) -> None:
    sound = talk((0.5, 0.0), (3.5, 0.3))
    events = [*fed(session, sound), *session.finish()[0]]
    recognizer.reset()
    expected = [*recognizer.feed(sound), *recognizer.flush()]
    assert [event.type for event in events] == [event.type for event in expected]


def test_a_gap_news_and_a_warning_come_in_order_at_their_times(session: StreamSession) -> None:
    block = Block(
        np.zeros(16_000, np.float32),
        time.perf_counter(),
        lost=8_000,
        device_change=DeviceChange("headset", "back"),
        warning=InputWarning("length", "1.00 s of the file are missing", 1.0),
    )
    gap, news, warning = session.feed(block)
    assert gap == Overrun(0.0, 0.5)
    assert news == Device(0.5, "headset", "back")
    assert warning == StreamWarning(1.5, "length", "1.00 s of the file are missing")
    assert (session.statistics.dropped, session.statistics.lost_s) == (1, 1.5)


def test_a_device_that_is_lost_and_comes_back_is_one_loss(session: StreamSession) -> None:
    session.feed(Block(NO_SAMPLES, time.perf_counter(), device_change=DeviceChange("headset", "lost")))
    assert session.statistics.dropped == 1
    session.feed(Block(NO_SAMPLES, time.perf_counter(), 160_000, DeviceChange("headset", "back")))
    assert (session.statistics.dropped, session.statistics.lost_s) == (1, 10.0)


def test_windows_carry_the_time_that_their_sound_waited(session: StreamSession, talk: Talk) -> None:
    events = session.feed(Block(talk((3.5, 0.3)), time.perf_counter() - 1.0))
    windows = [event for event in events if isinstance(event, Window)]
    assert windows
    assert all(1_000.0 <= window.latency_ms["queue"] < 60_000.0 for window in windows)
    assert all(window.lag_ms >= 1_000.0 for window in windows)


@pytest.mark.parametrize("sound_before", [False, True])
def test_a_block_without_samples_is_not_late(
    session: StreamSession, talk: Talk, monkeypatch: pytest.MonkeyPatch, sound_before: bool
) -> None:
    now_s = [time.perf_counter()]
    monkeypatch.setattr(session._meter, "_clock", lambda: now_s[0])
    if sound_before:
        session.feed(Block(talk((3.5, 0.3)), now_s[0]))
    now_s[0] += 10.0 * LATE_S
    lost = session.feed(Block(NO_SAMPLES, now_s[0], device_change=DeviceChange("headset", "lost")))
    assert [event.type for event in lost] == ["device"]
    back = session.feed(Block(NO_SAMPLES, now_s[0], 160_000, DeviceChange("headset", "back")))
    assert not of(StreamWarning, back)
    windows = [event for event in back if isinstance(event, Window)]
    assert windows
    assert all(window.lag_ms < 1_000.0 * LATE_S for window in windows)


def test_a_stream_without_sound_has_a_summary(session: StreamSession) -> None:
    assert session.finish() == ([], Summary(0.0, 0, 0, 0, {}, 0.0))


def test_the_session_has_the_minimum_latency(recognizer: Recognizer) -> None:
    delay_s = session_of("blocks", recognizer).algorithmic_delay_s
    recognizer.feed(np.zeros(round(16_000 * delay_s) - 1, np.float32))
    assert recognizer.flush() == []
    recognizer.reset()
    recognizer.feed(np.zeros(round(16_000 * delay_s), np.float32))
    assert len(of(Window, recognizer.flush())) == 1


def test_waiting_is_separate_from_compute_time() -> None:
    window = Window(0.0, 3.0, {}, {}, "happy", True, -20.0, LATENCY, 2.0)
    queued = with_queue(window, 30.0)
    assert isinstance(queued, Window)
    assert queued.latency_ms == {"queue": 30.0, **LATENCY}
    speech = Speech(1.0, True)
    assert with_queue(speech, 30.0) is speech
