"""Dead-input detection: a muted, forbidden or stuck microphone delivers one constant value.

For live sources only: digital silence in a file is no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import NO_SAMPLES, Block, DeviceChange

DEAD_AFTER_S: Final = 3.0
"""Constant signal before it is reported; speech and room noise are never constant that long."""
ALIVE_AFTER_S: Final = 0.3
"""Changing signal before the input counts as active; a click, or the ringing of a resampler at the
beginning and end of a constant, is shorter."""
CONSTANT_TOLERANCE: Final = 1e-6
"""Largest deviation of a constant signal, -120 dBFS: below one step of 16 bits, above the ripple that
resampling adds."""
LEAST_REAL_TIME_SHARE: Final = 0.5
"""Arrival time relative to the duration of the sound; faster input is a file in a pipe."""

ZEROS: Final = "only zeros arrive"
STUCK: Final = "one constant value arrives"
REMEDIES: Final = {
    ZEROS: "see that it is not muted, and that this program may record from it",
    STUCK: "plug it in again, or restart its driver",
}
"""By the reason of a silent input."""


class DeadInput:
    """Detects a constant signal in one live input.

    Remembers the value, duration and start of the latest constant stretch, how long the input has changed
    since, and whether the stretch was reported. Durations are counted in whole blocks.
    """

    def __init__(self, name: str) -> None:
        """Start with an active input of this name."""
        self._name = name
        self.reset()

    def reset(self) -> None:
        """Return to the initial state: the device was lost or is back."""
        self._value = self._since_s = 0.0
        self._constant_s = self._changing_s = 0.0
        self._reported = False

    def feed(self, samples: Array, arrived_s: float) -> DeviceChange | None:
        """Take the next samples; return a change if the input turns silent or active with them.

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
        reason = ZEROS if abs(self._value) <= CONSTANT_TOLERANCE else STUCK
        return DeviceChange(self._name, "silent", reason, REMEDIES[reason])

    def _extend(self, samples: Array, duration_s: float, arrived_s: float) -> None:
        """Extend the current constant or changing stretch by a block, or start a new one."""
        first = float(samples[0])
        if float(np.abs(samples - samples[0]).max()) > CONSTANT_TOLERANCE:
            self._constant_s, self._changing_s = 0.0, self._changing_s + duration_s
            return
        if not self._constant_s or abs(first - self._value) > CONSTANT_TOLERANCE:
            self._value, self._since_s, self._constant_s = first, arrived_s - duration_s, 0.0
        self._constant_s, self._changing_s = self._constant_s + duration_s, 0.0


def report_dead_input(blocks: Iterable[Block], name: str) -> Iterator[Block]:
    """Pass on the blocks of a live source, and after them report that it turned silent or active."""
    detector = DeadInput(name)
    for block in blocks:
        if block.device_change:
            detector.reset()
        yield block
        if change := detector.feed(block.samples, block.arrived_s):
            yield Block(NO_SAMPLES, block.arrived_s, device_change=change)
