from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.capture_buffer import (
    LONGEST_GAP_S,
    SHORTEST_LEAP_S,
    CaptureBuffer,
    CapturedBlock,
    elapsed_s,
)

RATE = 16_000
BLOCK_S = 0.02


class Driver:
    """Calls back into a capture buffer, with a converter's clock and a wall clock of its own."""

    def __init__(self, buffer_s: float = 2.0) -> None:
        self.now_s, self.adc_s = 5_000.0, 77.0
        self.buffer = CaptureBuffer(RATE, 1, buffer_s, lambda: self.now_s)

    def deliver(
        self, value: float, *, adc_gap_s: float = 0.0, wall_gap_s: float = 0.0, flagged: bool = False
    ) -> None:
        """Deliver a block of one value after gaps in either clock."""
        self.adc_s += adc_gap_s
        self.now_s += wall_gap_s + BLOCK_S
        self.again(value, flagged=flagged)
        self.adc_s += BLOCK_S

    def again(self, value: float, *, flagged: bool = False) -> None:
        """Deliver without any time passing."""
        sound = np.full(round(BLOCK_S * RATE), value, np.float32)
        times = SimpleNamespace(inputBufferAdcTime=self.adc_s)
        self.buffer.put(sound.tobytes(), len(sound), times, SimpleNamespace(input_overflow=flagged))

    def taken(self) -> list[CapturedBlock]:
        """End the recording and take what is there."""
        self.buffer.end()
        blocks = []
        while (block := self.buffer.take(1.0)) is not None:
            blocks.append(block)
        return blocks


def values(blocks: list[CapturedBlock]) -> list[float]:
    sounds: list[Array] = [block.sound(1) for block in blocks]
    return [round(float(sound[0, 0]), 3) for sound in sounds]


@pytest.mark.parametrize("gap_s", [0.6, 2.0, 3_600.0, 86_400.0])
@pytest.mark.parametrize("flagged", [False, True])
def test_a_sleep_that_both_clocks_saw_is_lost_sound(gap_s: float, flagged: bool) -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, adc_gap_s=gap_s, wall_gap_s=gap_s, flagged=flagged)
    driver.deliver(0.3)
    assert [block.lost for block in driver.taken()] == [0, round(gap_s * RATE), 0]


@pytest.mark.parametrize(("adc_gap_s", "wall_gap_s"), [(3_600.0, 0.0), (-3_600.0, 0.0), (0.0, 3_600.0)])
def test_a_clock_that_leaps_alone_is_not_believed(adc_gap_s: float, wall_gap_s: float) -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, adc_gap_s=adc_gap_s, wall_gap_s=wall_gap_s)
    driver.deliver(0.3)
    assert [block.lost for block in driver.taken()] == [0, 0, 0]


def test_a_converter_whose_clock_is_set_during_a_sleep_counts_the_sleep_only() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, adc_gap_s=7_200.0, wall_gap_s=60.0)
    assert [block.lost for block in driver.taken()] == [0, 60 * RATE]


def test_late_callbacks_lose_nothing() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, wall_gap_s=1.0)
    for value in (0.3, 0.4):  # what had waited comes at once
        driver.deliver(value, wall_gap_s=-BLOCK_S)
    blocks = driver.taken()
    assert (values(blocks), [block.lost for block in blocks]) == ([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0])


def test_a_block_that_is_delivered_twice_is_heard_once() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2)
    driver.adc_s -= BLOCK_S
    driver.again(0.2)
    driver.adc_s += BLOCK_S
    driver.deliver(0.3)
    blocks = driver.taken()
    assert (values(blocks), [block.lost for block in blocks]) == ([0.1, 0.2, 0.3], [0, 0, 0])


@pytest.mark.parametrize(("adc_s", "sounds"), [(0.0, [0.1, 0.1]), (9.0, [0.0, 0.0]), (9.0, [0.1, 0.2])])
def test_blocks_that_only_look_alike_are_all_heard(adc_s: float, sounds: list[float]) -> None:
    driver = Driver()
    driver.adc_s = adc_s
    for value in sounds:
        driver.again(value)
    assert values(driver.taken()) == sounds


def test_what_comes_after_the_end_is_not_kept() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.buffer.end()
    driver.deliver(0.2)
    assert values(driver.taken()) == [0.1]


def test_a_full_buffer_keeps_the_newest_blocks_and_counts_the_dropped_ones() -> None:
    driver = Driver(buffer_s=0.1)
    for _ in range(1_000):
        driver.deliver(0.1)
    for value in (0.2, 0.3):
        driver.deliver(value)
    first, *others = driver.taken()
    assert first.lost == 997 * round(BLOCK_S * RATE)
    assert (len(others), values(others)[-2:]) == (4, [0.2, 0.3])


def test_a_time_out_is_as_long_as_asked() -> None:
    buffer = Driver().buffer
    began_s = elapsed_s()
    with pytest.raises(TimeoutError):
        buffer.take(0.6)
    assert elapsed_s() - began_s > 0.59


def test_a_driver_that_ended_has_its_last_sound_heard_first() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.buffer.finish()
    assert driver.buffer.take(1.0) is not None
    with pytest.raises(EOFError):
        driver.buffer.take(1.0)


# The driver's thread


class Untouchable:
    """A clock value that may be stored; comparing it or computing with it raises."""

    def _fail(self, *_: object) -> bool:
        raise AssertionError("the callback has to store the clocks only")

    __add__ = __radd__ = __sub__ = __rsub__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _fail
    __eq__ = __ne__ = _fail
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("flagged", [False, True])
def test_the_callback_stores_sound_and_clocks_and_neither_compares_nor_estimates(
    monkeypatch: pytest.MonkeyPatch, flagged: bool
) -> None:
    checks: list[int] = []
    check = CaptureBuffer._check_next

    def counted(buffer: CaptureBuffer) -> None:
        checks.append(threading.get_ident())
        check(buffer)

    monkeypatch.setattr(CaptureBuffer, "_check_next", counted)
    clock: Any = Untouchable
    buffer = CaptureBuffer(RATE, 1, 2.0, clock)
    sound = np.full(320, 0.1, np.float32).tobytes()
    for _ in range(3):  # the same sound, as a driver that repeats a block delivers it
        times = SimpleNamespace(inputBufferAdcTime=Untouchable())
        buffer.put(sound, 320, times, SimpleNamespace(input_overflow=flagged))
    assert checks == []
    with pytest.raises(
        AssertionError, match="store the clocks only"
    ):  # the first estimate, when one is taken
        buffer.take(1.0), buffer.take(1.0)
    assert len(checks) == 2


def test_a_block_is_checked_once_and_on_the_thread_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    check = CaptureBuffer._check_next

    def noted(buffer: CaptureBuffer) -> None:
        threads.append(threading.current_thread().name)
        check(buffer)

    monkeypatch.setattr(CaptureBuffer, "_check_next", noted)
    driver = Driver()

    def deliver() -> None:
        for number in range(1, 31):
            driver.deliver(0.01 * number)

    delivery = threading.Thread(target=deliver, name="driver")
    delivery.start()
    delivery.join()
    assert len(driver.taken()) == 30
    assert threads == [threading.current_thread().name] * 30


def test_a_callback_that_finds_the_buffer_full_checks_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[int] = []
    check = CaptureBuffer._check_next

    def counted(buffer: CaptureBuffer) -> None:
        checks[-1] += 1
        check(buffer)

    monkeypatch.setattr(CaptureBuffer, "_check_next", counted)
    driver = Driver(buffer_s=0.1)
    for number in range(20):
        checks.append(0)
        driver.deliver(0.01 * number)
    assert checks == [0] * 5 + [6] + [1] * 14


@dataclass
class OnArrival:
    """Estimates the loss before each block when it arrives: what the buffer has to agree with."""

    capacity: int
    blocks: list[tuple[bytes, int]] = field(default_factory=list)
    dropped: int = 0
    newest: tuple[bytes, float, float, int] | None = None

    def put(self, data: bytes, adc_s: float, now_s: float, flagged: bool) -> None:
        frames, lost = len(data) // 4, 0
        if self.newest:
            old_data, old_adc_s, old_now_s, old_frames = self.newest
            if adc_s == old_adc_s > 0 and data == old_data and any(data):
                return
            gap_s = adc_s - (old_adc_s + old_frames / RATE)
            if adc_s > 0 and old_adc_s > 0 and gap_s > 0:
                both_s = min(gap_s, now_s - old_now_s - frames / RATE)
                if flagged and gap_s <= LONGEST_GAP_S:
                    lost = round(gap_s * RATE)
                elif both_s >= SHORTEST_LEAP_S:
                    lost = round(both_s * RATE)
        lost = max(frames, lost) if flagged else lost
        self.newest = (data, adc_s, now_s, frames)
        self.blocks.append((data, lost))
        while sum(len(block) // 4 for block, _ in self.blocks) > self.capacity and len(self.blocks) > 1:
            old, before = self.blocks.pop(0)
            self.dropped += len(old) // 4 + before

    def take(self) -> tuple[bytes, int]:
        data, lost = self.blocks.pop(0)
        lost, self.dropped = lost + self.dropped, 0
        return data, lost


@pytest.mark.parametrize("seed", range(20))
def test_losses_estimated_when_blocks_are_taken_equal_those_estimated_on_arrival(seed: int) -> None:
    rng = np.random.default_rng(seed)
    now_s, adc_s = 5_000.0, 77.0
    buffer = CaptureBuffer(RATE, 1, 0.1, lambda: now_s)
    expected = OnArrival(round(0.1 * RATE))
    data, repeats = b"", 0
    for _ in range(500):
        frames = int(rng.choice([320, 320, 320, 77, 2_000]))
        repeated = bool(data) and rng.random() < 0.2
        if not repeated:
            data = np.full(frames, rng.choice([0.0, 0.1, 0.2]), np.float32).tobytes()
            wall_gap_s = float(rng.choice([0.0, 0.0, 0.0, -0.02, 0.3, 2.0, 60.0]))
            adc_gap_s = float(rng.choice([wall_gap_s, wall_gap_s, 0.0, 0.25, 7.0, -30.0]))
            now_s, adc_s = now_s + wall_gap_s + frames / RATE, adc_s + adc_gap_s + frames / RATE
        stamp_s = adc_s if rng.random() < 0.9 else 0.0
        flagged = bool(rng.random() < 0.2)
        times, status = SimpleNamespace(inputBufferAdcTime=stamp_s), SimpleNamespace(input_overflow=flagged)
        buffer.put(data, len(data) // 4, times, status)
        before = len(expected.blocks), expected.dropped
        expected.put(data, stamp_s, now_s, flagged)
        repeats += before == (len(expected.blocks), expected.dropped)
        for _ in range(min(len(expected.blocks), int(rng.choice([0, 0, 1, 2])))):
            taken = buffer.take(1.0)
            assert taken is not None
            assert (taken.data, taken.lost) == expected.take()
    buffer.end()
    while (taken := buffer.take(1.0)) is not None:
        assert (taken.data, taken.lost) == expected.take()
    assert repeats
    assert not expected.blocks
    assert buffer._dropped == expected.dropped == 0


def test_a_driver_that_repeats_one_block_for_ever_times_out() -> None:
    driver = Driver()
    driver.deliver(0.1)
    assert driver.buffer.take(1.0) is not None
    driver.adc_s -= BLOCK_S
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.01):
            driver.again(0.1)

    repeating = threading.Thread(target=repeat)
    repeating.start()
    began_s = elapsed_s()
    with pytest.raises(TimeoutError):
        driver.buffer.take(0.3)
    stop.set()
    repeating.join()
    assert 0.29 < elapsed_s() - began_s < 5.0
