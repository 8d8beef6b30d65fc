from __future__ import annotations

from dataclasses import replace

import pytest

from edge.events import Window
from edge.recognition import stream_statistics
from edge.recognition.stream_session import with_queue
from edge.recognition.stream_statistics import StreamStatistics

LATENCY = {"front_end": 0.5, "encoder": 1.5}


def window(**latency_ms: float) -> Window:
    return Window(0.0, 3.0, {}, {}, "happy", True, -20.0, latency_ms, 2.0)


def test_the_summary_reports_percentiles_of_the_compute_time() -> None:
    statistics = StreamStatistics()
    statistics.spent(0.5, [window(encoder=float(ms), classifier=1.0) for ms in range(101)])
    summary = statistics.summary(10.0)
    assert summary.latency_ms == pytest.approx({"p50": 51.0, "p95": 96.0, "p99": 100.0})
    assert (summary.windows, summary.real_time_factor) == (101, 0.05)


def test_the_summary_reports_the_lag_and_the_compute_time_without_the_waiting() -> None:
    statistics = StreamStatistics()
    for ms in range(101):
        statistics.spent(0.5, [with_queue(replace(window(**LATENCY), lag_ms=2.0 + ms), float(ms))])
    summary = statistics.summary(10.0)
    assert summary.lag_ms == pytest.approx({"p50": 52.0, "p95": 97.0, "p99": 101.0, "max": 102.0})
    assert summary.latency_ms == pytest.approx({"p50": 2.0, "p95": 2.0, "p99": 2.0})


def test_the_statistics_of_a_long_day_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_statistics, "RECENT_WINDOWS", 100)
    statistics = StreamStatistics()
    for _ in range(1_000):
        statistics.spent(0.001, [window(**LATENCY)])
    assert len(statistics._compute_ms) == len(statistics._lag_ms) == 100
    assert statistics.summary(1_000.0).windows == 1_000
