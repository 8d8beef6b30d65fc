"""Captured audio between the driver's thread, which never waits, and the thread that takes it.

PortAudio's callback only stores each block with its clocks. Repeated blocks are recognised and losses are
estimated when the blocks are taken, on the taker's thread. The exception is a full buffer: what is dropped
has to be counted, and only the callback is there to do it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from edge.arrays import Array

LONGEST_GAP_S: Final = 5.0
"""A longer gap between the converter's timestamps counts only as far as the system clock shows it too."""
SHORTEST_LEAP_S: Final = 0.5
"""From here on, a gap that both clocks show is a loss even if the driver reports none."""
SLICE_S: Final = 0.5
"""Longest single wait: while the program is stopped (Ctrl-Z), no more than this counts towards a time-out."""


def elapsed_s() -> float:
    """Seconds from an arbitrary start, never going back, and counting the time that the machine slept."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True)
class CapturedBlock:
    """What one callback delivered."""

    data: bytes
    """Interleaved float32."""
    frames: int
    arrived_s: float
    """`time.perf_counter()` at the callback."""
    elapsed_s: float
    """The buffer's clock at the callback."""
    adc_s: float
    """The converter's timestamp of the first frame; 0 where the driver gives none."""
    overflow: bool
    """Whether the driver reports that it lost input before this block."""
    lost: int = 0
    """Frames lost just before this block; estimated when it is taken."""

    def sound(self, channels: int) -> Array:
        """Return the (N, channels) float32 sound."""
        return np.frombuffer(self.data, np.float32).reshape(-1, channels)

    def repeats(self, previous: CapturedBlock) -> bool:
        """Tell whether the driver delivered the previous block twice: same timestamp, same sound."""
        if not self.adc_s == previous.adc_s > 0:
            return False
        return self.data == previous.data and self.data.count(0) < len(self.data)


class CaptureBuffer:
    """A bounded queue of the blocks of one recording.

    Remembers `buffer_s` of sound. When it is full the oldest blocks are dropped, so a slow taker loses
    sound but gains no delay. What was dropped or lost is in `lost` of the next block that is taken.
    """

    def __init__(
        self, rate: int, channels: int, buffer_s: float, clock: Callable[[], float] = elapsed_s
    ) -> None:
        """Prepare for a recording.

        Args:
            rate: Hz.
            channels: of each frame.
            buffer_s: capacity in seconds of sound, > 0.
            clock: seconds, counting the time that the machine slept.
        """
        self.rate = rate
        self.channels = channels
        self._clock = clock
        self._capacity = round(buffer_s * rate)
        self._captured: deque[CapturedBlock] = deque()
        """As delivered, newest last."""
        self._checked: deque[CapturedBlock] = deque()
        """Older than those, without repeated blocks and with `lost` estimated."""
        self._frames = 0
        """In both queues."""
        self._dropped = 0
        """Frames dropped, and lost before them, since a block was last taken."""
        self._previous: CapturedBlock | None = None
        """The newest checked block, taken or not."""
        self._ended = False
        self._broken = False
        self._changed = threading.Condition()

    def put(self, data: Any, frames: int, times: Any, status: Any) -> None:
        """Store a block and its clocks: PortAudio's callback, on the driver's thread."""
        if self._ended:  # a driver may call once more after it was told to stop
            return
        block = CapturedBlock(
            bytes(data),
            frames,
            time.perf_counter(),
            self._clock(),
            times.inputBufferAdcTime,
            status.input_overflow,
        )
        with self._changed:
            self._captured.append(block)
            self._frames += frames
            if self._frames > self._capacity:
                self._make_room()
            self._changed.notify()

    def finish(self) -> None:
        """Note that the driver will deliver no more: PortAudio's finished callback."""
        with self._changed:
            self._broken = True
            self._changed.notify()

    def end(self) -> None:
        """Accept no more blocks; `take` returns None after those already here."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, timeout_s: float) -> CapturedBlock | None:
        """Wait for the next block; None after the last, once `end` was called.

        Raises:
            TimeoutError: no block came in time.
            EOFError: the driver ended the recording by itself.
        """
        with self._changed:
            while not (ready := self._changed.wait_for(self._is_ready, min(SLICE_S, timeout_s))):
                timeout_s -= SLICE_S
                if timeout_s <= 0:
                    break
            if self._checked:
                return self._take_oldest()
            if self._ended:
                return None
            raise EOFError if ready else TimeoutError

    def ended_within(self, timeout_s: float) -> bool:
        """Wait for `end`, whatever the driver does; True if it was called in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout_s)

    def _is_ready(self) -> bool:
        """Check blocks until one can be taken; tell whether there is one, or none will come."""
        while self._captured and not self._checked:
            self._check_next()
        return bool(self._checked) or self._ended or self._broken

    def _take_oldest(self) -> CapturedBlock:
        block = self._checked.popleft()
        self._frames -= block.frames
        lost, self._dropped = block.lost + self._dropped, 0
        return replace(block, lost=lost)

    def _make_room(self) -> None:
        """Drop the oldest blocks of a full buffer, and count them."""
        while self._captured:  # a repeated block takes no room
            self._check_next()
        while self._frames > self._capacity and len(self._checked) > 1:
            block = self._checked.popleft()
            self._frames -= block.frames
            self._dropped += block.frames + block.lost

    def _check_next(self) -> None:
        """Estimate the loss before the oldest captured block, or discard it if it repeats its predecessor."""
        block, previous = self._captured.popleft(), self._previous
        if previous and block.repeats(previous):
            self._frames -= block.frames
            return
        lost = self._missing(previous, block) if previous else 0
        if block.overflow:
            lost = max(block.frames, lost)
        self._previous = block
        self._checked.append(replace(block, lost=lost))

    def _missing(self, previous: CapturedBlock, block: CapturedBlock) -> int:
        """Estimate the frames lost between two blocks, which PortAudio does not tell.

        Where the driver reports a loss, it is the gap between the converter's timestamps. Where the driver
        reports none, or the gap is very long (the machine slept, a sound server moved the recording), the
        system clock has to show the gap too: a clock that was set shows one alone, and so does a late
        callback, which loses nothing.
        """
        gap_s = block.adc_s - (previous.adc_s + previous.frames / self.rate)
        if block.adc_s <= 0 or previous.adc_s <= 0 or gap_s <= 0:
            return 0
        if block.overflow and gap_s <= LONGEST_GAP_S:
            return round(gap_s * self.rate)
        both_s = min(gap_s, block.elapsed_s - previous.elapsed_s - block.frames / self.rate)
        return round(both_s * self.rate) if both_s >= SHORTEST_LEAP_S else 0
