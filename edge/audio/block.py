"""Blocks of sound, and the protocol of the sources that deliver them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edge.arrays import Array
from edge.events import DeviceState, WarningSubject

NO_SAMPLES: Final = np.zeros(0, np.float32)
"""The samples of a block that carries only a device change or a warning."""


@dataclass(frozen=True)
class DeviceChange:
    """A change in the state of the sound device, without a time: its place among the blocks gives that."""

    name: str
    state: DeviceState
    reason: str = ""
    """What was observed; empty if the state says it all."""
    remedy: str = ""
    """What to do about it; may be empty."""

    @property
    def explanation(self) -> str:
        """The reason and the remedy as one text; may be empty."""
        return f"{self.reason}: {self.remedy}" if self.remedy else self.reason


@dataclass(frozen=True)
class InputWarning:
    """A probable fault of the input; the stream goes on."""

    what: WarningSubject
    message: str
    lost_s: float = 0.0
    """Seconds of sound that are missing from the input."""


@dataclass(frozen=True)
class Block:
    """Consecutive samples of a stream; none where the block carries only a device change or a warning."""

    samples: Array
    """(N,) float32 mono at 16 kHz, in [-1, 1]."""
    arrived_s: float
    """`time.perf_counter()` when the last sample arrived (live source) or was read (file)."""
    lost: int = 0
    """Samples at 16 kHz lost just before this block."""
    device_change: DeviceChange | None = None
    """After the loss and before the samples."""
    warning: InputWarning | None = None
    """About the sound up to the end of this block."""


class Source(Protocol):
    """Sound as a stream: a context manager that is iterated over once."""

    @property
    def name(self) -> str:
        """The name shown to users: of the file or the device (known once entered), "stdin" or "demo"."""

    @property
    def live(self) -> bool:
        """True where sound arrives in real time: a microphone, a pipe or a paced file."""

    def __enter__(self) -> Source:
        """Open it.

        Raises:
            SourceError: it cannot be opened, or holds no sound.
        """

    def __exit__(self, *exc: object) -> None:
        """Close it."""

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks until the sound ends.

        Raises:
            SourceError: the source failed before its end.
        """
