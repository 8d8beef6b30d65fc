"""Dead input: a microphone that is muted, not permitted or stuck delivers one value and no sound.

For live sources only: digital silence in a file is no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import NO_SAMPLES, Block, DeviceChange

DEAD_AFTER_S: Final = 3.0
"""Of one value; speech and rooms are never so quiet."""
ALIVE_AFTER_S: Final = 0.3
"""Of sound; a click, or what a resampler makes of the beginning and end of a constant, is shorter."""
CONSTANT_TOLERANCE: Final = 1e-6
"""Deviation, -120 dBFS: less than one step of 16 bits, and more than resampling makes of a constant."""
LEAST_REAL_TIME_SHARE: Final = 0.5
"""Of real time that the arrival must take: what comes faster is a file in a pipe."""

ZEROS: Final = "only zeros arrive: see that it is not muted, and that this program may record from it"
STUCK: Final = "one constant value arrives: plug it in again, or restart its driver"


class DeadInput:
    """Watches one live input for a constant signal.

    Remembers the value, the length and the beginning of the newest constant stretch, for how long the
    input has changed since, and whether it was reported. Both are measured in whole blocks.
    """

    def __init__(self, name: str) -> None:
        """Begin with an input of this name, of which nothing is known."""
        self._name = name
        self.reset()

    def reset(self) -> None:
        """Forget the input: it was lost, or is another one now."""
        self._value = self._since_s = 0.0
        self._constant_s = self._changing_s = 0.0
        self._reported = False

    def feed(self, samples: Array, arrived_s: float) -> DeviceChange | None:
        """Take the next sound; return the news if the input is found dead by it, or alive again.

        Args:
            samples: (N,) at 16 kHz.
            arrived_s: when the last of them arrived, by any clock.
        """
        if not len(samples):
            return None
        self._extend(samples, len(samples) / SAMPLE_RATE, arrived_s)
        if self._reported and self._changing_s >= ALIVE_AFTER_S:
            self._reported = False
            return DeviceChange(self._name, "active")
        live = arrived_s - self._since_s >= LEAST_REAL_TIME_SHARE * self._constant_s
        if self._reported or self._constant_s < DEAD_AFTER_S or not live:
            return None
        self._reported = True
        return DeviceChange(self._name, "silent", ZEROS if abs(self._value) <= CONSTANT_TOLERANCE else STUCK)

    def _extend(self, samples: Array, duration_s: float, arrived_s: float) -> None:
        """Add a block to the stretch of its kind, or begin another with it."""
        first = float(samples[0])
        if float(np.abs(samples - samples[0]).max()) > CONSTANT_TOLERANCE:
            self._constant_s, self._changing_s = 0.0, self._changing_s + duration_s
            return
        if not self._constant_s or abs(first - self._value) > CONSTANT_TOLERANCE:
            self._value, self._since_s, self._constant_s = first, arrived_s - duration_s, 0.0
        self._constant_s, self._changing_s = self._constant_s + duration_s, 0.0


def report_dead_input(blocks: Iterable[Block], name: str) -> Iterator[Block]:
    """Pass on the blocks of a live source, with the news that it is dead or alive again after them."""
    watch = DeadInput(name)
    for block in blocks:
        if block.device_change:
            watch.reset()
        yield block
        if change := watch.feed(block.samples, block.arrived_s):
            yield Block(NO_SAMPLES, block.arrived_s, device_change=change)
