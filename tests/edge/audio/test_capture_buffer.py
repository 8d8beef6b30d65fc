from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.capture_buffer import CaptureBuffer, CapturedBlock, elapsed_s

RATE = 16_000
BLOCK_S = 0.02


class Driver:
    """Calls back into an inbox, with a converter's clock and a wall clock of its own."""

    def __init__(self, buffer_s: float = 2.0) -> None:
        self.now_s, self.adc_s = 5_000.0, 77.0
        self.inbox = CaptureBuffer(RATE, 1, buffer_s, lambda: self.now_s)

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
        self.inbox.put(sound.tobytes(), len(sound), times, SimpleNamespace(input_overflow=flagged))

    def taken(self) -> list[CapturedBlock]:
        """End the recording and take what is there."""
        self.inbox.end()
        pieces = []
        while (piece := self.inbox.take(1.0)) is not None:
            pieces.append(piece)
        return pieces


def values(pieces: list[CapturedBlock]) -> list[float]:
    sounds: list[Array] = [piece.sound(1) for piece in pieces]
    return [round(float(sound[0, 0]), 3) for sound in sounds]


@pytest.mark.parametrize("gap_s", [0.6, 2.0, 3_600.0, 86_400.0])
@pytest.mark.parametrize("flagged", [False, True])
def test_a_sleep_that_both_clocks_saw_is_lost_sound(gap_s: float, flagged: bool) -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, adc_gap_s=gap_s, wall_gap_s=gap_s, flagged=flagged)
    driver.deliver(0.3)
    assert [piece.lost for piece in driver.taken()] == [0, round(gap_s * RATE), 0]


@pytest.mark.parametrize(("adc_gap_s", "wall_gap_s"), [(3_600.0, 0.0), (-3_600.0, 0.0), (0.0, 3_600.0)])
def test_a_clock_that_leaps_alone_is_not_believed(adc_gap_s: float, wall_gap_s: float) -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, adc_gap_s=adc_gap_s, wall_gap_s=wall_gap_s)
    driver.deliver(0.3)
    assert [piece.lost for piece in driver.taken()] == [0, 0, 0]


def test_a_converter_whose_clock_is_set_during_a_sleep_counts_the_sleep_only() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, adc_gap_s=7_200.0, wall_gap_s=60.0)
    assert [piece.lost for piece in driver.taken()] == [0, 60 * RATE]


def test_late_callbacks_lose_nothing() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2, wall_gap_s=1.0)
    for value in (0.3, 0.4):  # what had waited comes at once
        driver.deliver(value, wall_gap_s=-BLOCK_S)
    pieces = driver.taken()
    assert (values(pieces), [piece.lost for piece in pieces]) == ([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0])


def test_a_piece_that_is_delivered_twice_is_heard_once() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.deliver(0.2)
    driver.adc_s -= BLOCK_S
    driver.again(0.2)
    driver.adc_s += BLOCK_S
    driver.deliver(0.3)
    pieces = driver.taken()
    assert (values(pieces), [piece.lost for piece in pieces]) == ([0.1, 0.2, 0.3], [0, 0, 0])


@pytest.mark.parametrize(("adc_s", "sounds"), [(0.0, [0.1, 0.1]), (9.0, [0.0, 0.0]), (9.0, [0.1, 0.2])])
def test_pieces_that_only_look_alike_are_all_heard(adc_s: float, sounds: list[float]) -> None:
    driver = Driver()
    driver.adc_s = adc_s
    for value in sounds:
        driver.again(value)
    assert values(driver.taken()) == sounds


def test_what_comes_after_the_end_is_not_kept() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.inbox.end()
    driver.deliver(0.2)
    assert values(driver.taken()) == [0.1]


def test_a_listener_who_stays_away_finds_the_newest_and_the_count_of_the_rest() -> None:
    driver = Driver(buffer_s=0.1)
    for _ in range(1_000):
        driver.deliver(0.1)
    for value in (0.2, 0.3):
        driver.deliver(value)
    first, *others = driver.taken()
    assert first.lost == 997 * round(BLOCK_S * RATE)
    assert (len(others), values(others)[-2:]) == (4, [0.2, 0.3])


def test_patience_is_as_long_as_said() -> None:
    inbox = Driver().inbox
    began_s = elapsed_s()
    with pytest.raises(TimeoutError):
        inbox.take(0.6)
    assert elapsed_s() - began_s > 0.59


def test_a_driver_that_ended_has_its_last_sound_heard_first() -> None:
    driver = Driver()
    driver.deliver(0.1)
    driver.inbox.finish()
    assert driver.inbox.take(1.0) is not None
    with pytest.raises(EOFError):
        driver.inbox.take(1.0)
