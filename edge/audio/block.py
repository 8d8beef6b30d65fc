"""What every source of sound delivers, and how it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edge.arrays import Array

NO_SAMPLES: Final = np.zeros(0, np.float32)
"""The samples of a block that is only news."""


@dataclass(frozen=True)
class DeviceChange:
    """What became of the sound device; when, only the stream's own clock can say."""

    name: str
    state: str
    """"lost" or "back"; "silent" where it delivers no sound, or "active" where it does again."""
    reason: str = ""
    """What is known, and what to do about it."""


@dataclass(frozen=True)
class InputWarning:
    """The sound is probably not what the user expects; the stream goes on."""

    what: str
    """The subject, as in `edge.events.StreamWarning`."""
    message: str
    lost_s: float = 0.0
    """Sound that should be there and is not."""


@dataclass(frozen=True)
class Block:
    """A piece of the stream: of any length above 0, or 0 where it only brings news."""

    samples: Array
    """(N,) float32 mono at 16 kHz, in [-1, 1]."""
    arrived_s: float
    """`time.perf_counter()` when its last sample arrived (live) or was read."""
    lost: int = 0
    """Samples at 16 kHz lost just before this block."""
    device_change: DeviceChange | None = None
    """What happened to the device after the loss and before the samples."""
    warning: InputWarning | None = None
    """What was noticed about the sound so far."""


class Source(Protocol):
    """Sound as a stream: enter it, iterate over it once, leave it."""

    @property
    def name(self) -> str:
        """What people call it: a file's name, a device's (known once entered), "stdin", "demo"."""

    @property
    def live(self) -> bool:
        """True where sound arrives in real time: a microphone, a pipe or a paced file."""

    def __enter__(self) -> Source:
        """Open it.

        Raises:
            SourceError: there is no sound to be had from it.
        """

    def __exit__(self, *exc: object) -> None:
        """Close it, whatever happened."""

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks until the sound ends.

        Raises:
            SourceError: the sound broke off.
        """
