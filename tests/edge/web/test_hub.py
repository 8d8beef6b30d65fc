"""Events on their way to many viewers."""

from __future__ import annotations

import asyncio
import json

import pytest

from edge.web.hub import CHUNK, HISTORY_S, MOST_QUEUED, Hub, Viewer


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_late_viewer_gets_the_session_and_the_last_ten_minutes() -> None:
    clock = Clock()
    hub = Hub(clock)
    hub.publish(['{"type":"session"}'], session=True)
    for number in range(700):
        clock.now_s = float(number)
        hub.publish([f'{{"number":{number}}}'])
    chunks = [json.loads(chunk) for chunk in hub.history()]
    assert max(map(len, chunks)) == CHUNK
    first, *rest = [event for chunk in chunks for event in chunk]
    assert first == {"type": "session"}
    assert [event["number"] for event in rest] == list(range(699 - round(HISTORY_S), 700))


def test_a_new_stream_forgets_the_one_before() -> None:
    hub = Hub()
    hub.publish(['{"type":"session"}', "{}"], session=True)
    hub.begin()
    assert list(hub.history()) == []


@pytest.mark.parametrize("slow", [0, 1])
def test_a_viewer_that_does_not_read_is_dropped_once_and_others_get_everything(slow: int) -> None:
    dropped: list[str] = []
    hub = Hub()
    viewers = [Viewer(lambda: dropped.append("first")), Viewer(lambda: dropped.append("second"))]
    hub.viewers.update(viewers)

    async def read() -> list[str | None]:
        seen = []
        for number in range(3 * MOST_QUEUED):
            hub.publish([str(number)])
            seen.append(await viewers[1 - slow].get())
        return seen

    assert asyncio.run(read()) == [str(number) for number in range(3 * MOST_QUEUED)]
    assert dropped == [["first", "second"][slow]]
