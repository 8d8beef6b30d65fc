"""Compares the events of a stream whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pytest

from edge.arrays import Array
from edge.events import Event, Window
from edge.recognition.recognizer import Recognizer


def recognised(recognizer: Recognizer, sound: Array, *sizes: int) -> list[Event]:
    """Recognise (N,) samples as a new stream, in blocks of these sizes in turn; in one block without any."""
    recognizer.reset()
    events, done = [], 0
    for size in cycle(sizes or (max(1, len(sound)),)):
        events += recognizer.feed(sound[done : done + size])
        done += size
        if done >= len(sound):
            break
    return events + recognizer.flush()


def outline(event: Event) -> tuple[object, ...]:
    """Return what must be equal: all but probabilities and times of computing."""
    names = ("start_s", "end_s", "time_s", "label", "speech", "active", "windows")
    return (event.type, *(getattr(event, name, None) for name in names))


def assert_same_events(events: Sequence[Event], expected: Sequence[Event], tolerance: float) -> None:
    assert [outline(event) for event in events] == [outline(event) for event in expected]
    for event, wanted in zip(events, expected, strict=True):
        if isinstance(event, Window) and isinstance(wanted, Window):
            assert event.probs == pytest.approx(wanted.probs, abs=tolerance)
            assert event.smoothed == pytest.approx(wanted.smoothed, abs=tolerance)
