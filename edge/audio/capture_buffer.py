"""Between the sound driver's thread, which delivers and never waits, and the listener, who takes."""

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
"""A longer gap between the converter's timestamps is believed only if our own clock leapt with it."""
SHORTEST_LEAP_S: Final = 0.5
"""From here on, a gap that both clocks show is lost sound even if the driver reports no loss."""
SLICE_S: Final = 0.5
"""How long the listener waits without looking up: a program that was stopped (Ctrl-Z) loses no more
of its patience than this."""


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
    """`time.perf_counter()` then."""
    elapsed_s: float
    """The inbox's clock then."""
    lost: int
    """Frames lost just before it."""

    def sound(self, channels: int) -> Array:
        """Return the (N, channels) float32 sound."""
        return np.frombuffer(self.data, np.float32).reshape(-1, channels)


class CaptureBuffer:
    """A bounded queue of pieces of one recording.

    Remembers `buffer_s` of sound; past that the oldest is dropped, so that a slow listener hears
    less but never later. Whatever was dropped or lost is in the `lost` of the next piece.
    """

    def __init__(
        self, rate: int, channels: int, buffer_s: float, clock: Callable[[], float] = elapsed_s
    ) -> None:
        """Prepare for a recording.

        Args:
            rate: Hz.
            channels: of each frame.
            buffer_s: sound that may wait, > 0.
            clock: seconds, counting the time that the machine slept.
        """
        self.rate = rate
        self.channels = channels
        self._clock = clock
        self._room = round(buffer_s * rate)
        self._pieces: deque[CapturedBlock] = deque()
        self._frames = 0
        self._dropped = 0
        self._newest: CapturedBlock | None = None
        self._adc_s = 0.0
        self._ended = False
        self._broken = False
        self._changed = threading.Condition()

    def put(self, data: Any, frames: int, times: Any, status: Any) -> None:
        """Copy, enqueue, count: PortAudio's callback, on the driver's thread."""
        if self._ended:  # a driver may call once more after it was told to stop
            return
        adc_s, newest = times.inputBufferAdcTime, self._newest
        piece = CapturedBlock(bytes(data), frames, time.perf_counter(), self._clock(), 0)
        if newest and adc_s == self._adc_s > 0 and piece.data == newest.data and any(piece.data):
            return  # the same piece once more
        lost = self._missing(piece, adc_s, flagged=status.input_overflow) if newest else 0
        if status.input_overflow:
            lost = max(frames, lost)
        self._adc_s, self._newest = adc_s, piece
        with self._changed:
            self._pieces.append(replace(piece, lost=lost))
            self._frames += frames
            while self._frames > self._room and len(self._pieces) > 1:
                self._drop_oldest()
            self._changed.notify()

    def finish(self) -> None:
        """Note that the driver will deliver no more: PortAudio's finished callback."""
        with self._changed:
            self._broken = True
            self._changed.notify()

    def end(self) -> None:
        """Note that we want no more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, patience_s: float) -> CapturedBlock | None:
        """Wait for the next piece; None after the last, once `end` was called.

        Raises:
            TimeoutError: nothing came in time.
            EOFError: the driver ended the recording by itself.
        """
        with self._changed:
            while not (ready := self._changed.wait_for(self._anything, min(SLICE_S, patience_s))):
                patience_s -= SLICE_S
                if patience_s <= 0:
                    break
            if self._pieces:
                return self._take_oldest()
            if self._ended:
                return None
            raise EOFError if ready else TimeoutError

    def ended_within(self, patience_s: float) -> bool:
        """Wait for `end`, whatever the driver does; True if it was called in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, patience_s)

    def _anything(self) -> bool:
        return bool(self._pieces) or self._ended or self._broken

    def _take_oldest(self) -> CapturedBlock:
        piece = self._pieces.popleft()
        self._frames -= piece.frames
        lost, self._dropped = piece.lost + self._dropped, 0
        return replace(piece, lost=lost)

    def _drop_oldest(self) -> None:
        piece = self._pieces.popleft()
        self._frames -= piece.frames
        self._dropped += piece.frames + piece.lost

    def _missing(self, piece: CapturedBlock, adc_s: float, *, flagged: bool) -> int:
        """Estimate the frames that were lost before a piece, which PortAudio does not tell.

        The gap between the converter's timestamps says it where the driver reports a loss. Where it
        does not, or the gap is very long (the machine slept, a sound server moved the recording),
        our own clock must have leapt too: one clock alone was set, and a late callback loses nothing.
        """
        assert self._newest is not None
        gap_s = adc_s - (self._adc_s + self._newest.frames / self.rate)
        if adc_s <= 0 or self._adc_s <= 0 or gap_s <= 0:
            return 0
        if flagged and gap_s <= LONGEST_GAP_S:
            return round(gap_s * self.rate)
        both_s = min(gap_s, piece.elapsed_s - self._newest.elapsed_s - piece.frames / self.rate)
        return round(both_s * self.rate) if both_s >= SHORTEST_LEAP_S else 0
