"""MPEG audio frames: what a frame's header says of the frame's length and of the stream.

A header has 32 bits: 11 of sync, then version, layer, protection, bitrate, sample rate, padding,
private, channel mode and five more (ISO/IEC 11172-3, 2.4.1.3 and 13818-3; version 2.5 is Fraunhofer's).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

HEADER_BYTES: Final = 4

_V1_L1: Final = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1_L2: Final = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1_L3: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2_L1: Final = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2_L23: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
BITRATES: Final = {
    (1, 1): _V1_L1,
    (1, 2): _V1_L2,
    (1, 3): _V1_L3,
    (2, 1): _V2_L1,
    (2, 2): _V2_L23,
    (2, 3): _V2_L23,
}
"""kbit/s of the bitrate indices from 1 on, by version (2 stands for 2.5 too) and layer."""
RATES: Final = (44_100, 48_000, 32_000)
"""Hz of the sample rate indices in version 1; half of it in version 2, a quarter in 2.5."""


@dataclass(frozen=True)
class FrameHeader:
    """What the header of a frame says."""

    version: int
    """1 or 2; 2.5 counts as 2 with another rate."""
    layer: int
    rate: int
    """Hz."""
    channels: int
    samples: int
    """Frames of sound in each channel."""
    length: int
    """Bytes, the header included."""

    def continues(self, other: FrameHeader) -> bool:
        """Tell whether the other frame can belong to the same stream; the bitrate may change."""
        return (self.version, self.layer, self.rate) == (other.version, other.layer, other.rate)


@lru_cache(maxsize=4_096)
def frame_header(header: bytes) -> FrameHeader | None:
    """Read a header; None where it is not one, or is of the free format, whose length it does not say.

    Args:
        header: `HEADER_BYTES` bytes.
    """
    if len(header) < HEADER_BYTES or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version_bits, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version_bits == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    version = 1 if version_bits == 3 else 2
    rate = RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version_bits]
    bitrate = 1_000 * BITRATES[version, layer][bitrate_index - 1]
    samples = {1: 384, 2: 1_152, 3: 1_152 if version == 1 else 576}[layer]
    slot = 4 if layer == 1 else 1
    padding = header[2] >> 1 & 1
    length = (samples // 8 // slot * bitrate // rate + padding) * slot
    return FrameHeader(version, layer, rate, 1 if header[3] >> 6 == 3 else 2, samples, length)
