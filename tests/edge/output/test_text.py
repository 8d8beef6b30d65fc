from __future__ import annotations

import pytest

from edge.events import Device, Drift, DriftSubject, DriftUnit
from edge.output.text import clock_time, describe, describe_drift, printable


def test_a_name_can_neither_steer_the_terminal_nor_add_a_line() -> None:
    line = describe(Device(1.0, "mic\x1b[2J\nevil\udc80", "lost"), percentages=True)
    assert "\x1b" not in line
    assert "\n" not in line
    assert printable("naïve マイク") == "naïve マイク"


@pytest.mark.parametrize(
    ("what", "unit", "change", "said"),
    [
        ("level", "dB", -12.14, "level -12.1 dB"),
        ("level", "dB", 12.14, "level +12.1 dB"),
        ("entropy", "nats", 0.61, "entropy +0.6 nats"),
        ("features", "spreads", 1.84, "features 1.8 spreads"),
        ("spectrum", "spreads", 1.84, "spectrum 1.8 spreads"),
        ("spectrum", "spreads", 1e8, "spectrum 1e+08 spreads"),
    ],
)
def test_only_what_has_a_direction_is_written_with_a_sign(
    what: DriftSubject, unit: DriftUnit, change: float, said: str
) -> None:
    assert describe_drift(Drift(1.0, what, change, 1.0, unit, "do it")) == f"drift: {said}: do it"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00.0"), (59.96, "1:00.0"), (75.25, "1:15.2"), (3725.0, "1:02:05.0"), (-1.0, "0:00.0")],
)
def test_times_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text
