"""MPEG audio: frames, and the stream that they form.

A header has 32 bits: 11 of sync, then version, layer, protection, bitrate, sample rate, padding,
private, channel mode and five more (ISO/IEC 11172-3, 2.4.1.3 and 13818-3; version 2.5 is Fraunhofer's).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final

from edge.file_formats.section_reader import (
    FILE_BEGINNING,
    LONGEST_MARKER,
    LogicalStream,
    SectionReader,
    merged,
    read_at,
)

HEADER_BYTES: Final = 4
FRAMES_IN_A_ROW: Final = 3
"""Consecutive frames, each at the end of the one before by its stated length, that make a stream."""

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
"""kbit/s of the bitrate indices from 1 on, by version (2 includes 2.5) and layer."""
RATES: Final = (44_100, 48_000, 32_000)
"""Hz of the sample rate indices in version 1; half in version 2, a quarter in 2.5."""


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a frame's header."""

    version: int
    """1 or 2; 2.5 counts as 2 with another rate."""
    layer: int
    rate: int
    """Hz."""
    channels: int
    bitrate: int
    """bit/s."""
    samples: int
    """Frames of sound in each channel."""
    length: int
    """Bytes, the header included."""

    def continues(self, other: FrameHeader) -> bool:
        """Tell whether another frame may belong to the same stream; only layer III may change the bitrate."""
        same = (self.version, self.layer, self.rate, self.channels)
        return same == (other.version, other.layer, other.rate, other.channels) and (
            self.layer == 3 or self.bitrate == other.bitrate
        )


@lru_cache(maxsize=4_096)
def frame_header(header: bytes) -> FrameHeader | None:
    """Parse a header; None if it is invalid or of the free format, which does not state the length.

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
    return FrameHeader(version, layer, rate, 1 if header[3] >> 6 == 3 else 2, bitrate, samples, length)


XING_MARKS: Final = (b"Xing", b"Info")
"""Marks of an encoder's frame without sound, which states the number of frames and the samples to trim."""
VBRI_MARK: Final = b"VBRI"
VBRI_AT: Final = 36
"""Position of Fraunhofer's mark of such a frame."""
COUNT_STATED: Final = 1
BYTES_STATED: Final = 2
"""Flags after the mark: which of the next two numbers are present, in this order."""
ENCODER: Final = b"LAME3.100" + bytes(15)
"""After the numbers: the encoder's name, and a delay and padding of 0 samples."""
EMPTY_TAG: Final = b"ID3\3\0\0\0\0\0\x0a" + bytes(10)
"""libsndfile 1.2 recognises MP3 by the file's name or by a tag that is not empty."""
INFO_BYTES: Final = 192
"""Bytes of a frame with room for these fields."""
SIDE_BYTES: Final = {(1, 1): 17, (1, 2): 32, (2, 1): 9, (2, 2): 17}
"""Bytes between a layer III header and the mark, by version and channels."""
BEGINNING_BYTES: Final = 48
"""Bytes at the start of a frame in which a mark is searched."""
FRAME_SEARCH_BYTES: Final = 1 << 16
"""Bytes read at once in search of a frame."""


@dataclass
class _FrameScan:
    """The frames of a stream, from the first to the last."""

    end: int
    """Position after the stream."""
    ranges: list[range]
    """Frames with sound."""
    count: int = 0
    """Number of these frames."""
    skipped: int = 0
    """Bytes between them that are neither frames nor tags nor zeros."""


def mpeg_stream(file: BinaryIO, at: int, size: int) -> LogicalStream | None:
    """Return the MPEG audio stream that begins here, after any tags; None if none does.

    A decoder reads the length from the first frame, or guesses it from the bitrate. So the frames are
    counted, and the count is written into that frame or into one inserted before it. With such a frame a
    decoder also trims its own delay.
    """
    start = _past_tags(file, at, size)
    beginning = read_at(file, start, BEGINNING_BYTES)
    first = frame_header(beginning[:HEADER_BYTES])
    if first is None or not _is_confirmed(file, start, first, size):
        return None
    mark = _mark_at(beginning, first)
    scan = _scan_frames(file, start + (first.length if mark else 0), first, size)
    if not scan.count:
        return None
    info, stated = _info_frame(read_at(file, start, first.length), mark, scan)
    head = EMPTY_TAG + info if first.layer == 3 else EMPTY_TAG
    reader = SectionReader(file, [head, *scan.ranges])
    missing = max(0, stated - scan.count) / scan.count + scan.skipped / reader.size
    return LogicalStream(reader, lambda: scan.end, missing=missing)


def _scan_frames(file: BinaryIO, at: int, first: FrameHeader, size: int) -> _FrameScan:
    """Follow the frames of a stream to its end, skipping damage."""
    scan, frames = _FrameScan(size, []), []
    while at < size:
        beginning = read_at(file, at, BEGINNING_BYTES)
        header = frame_header(beginning[:HEADER_BYTES])
        if header and first.continues(header) and at + header.length <= size:
            if _mark_at(beginning, header):
                scan.end = at
                break
            frames.append(range(at, at + header.length))
            at += header.length
            continue
        if _ends(file, at, size) or (header and _is_confirmed(file, at, header, size)):
            scan.end = at
            break
        found = _next_frame(file, at + 1, size)
        scan.skipped += found - at if any(read_at(file, at, min(found - at, FRAME_SEARCH_BYTES))) else 0
        at = found
    scan.count, scan.ranges = len(frames), list(merged(frames))
    return scan


def _mark_at(beginning: bytes, header: FrameHeader) -> int:
    """Return the position of the mark in a frame without sound; 0 for a frame with sound."""
    if header.layer != 3:
        return 0
    checksum_bytes = 0 if beginning[1] & 1 else 2
    at = HEADER_BYTES + SIDE_BYTES[header.version, header.channels] + checksum_bytes
    if beginning[at : at + 4] in XING_MARKS:
        return at
    return VBRI_AT if beginning[VBRI_AT : VBRI_AT + 4] == VBRI_MARK else 0


def _info_frame(frame: bytes, mark: int, scan: _FrameScan) -> tuple[bytes, int]:
    """Return a frame that states the actual count, and the count stated in the file (0: none).

    Args:
        frame: the first of the stream.
        mark: position of its mark, or 0.
        scan: the frames after it.
    """
    if frame[mark : mark + 4] not in XING_MARKS:
        stated = int.from_bytes(frame[mark + 14 : mark + 18], "big") if mark else 0
        return _new_info_frame(frame, scan.count), stated
    flags = int.from_bytes(frame[mark + 4 : mark + 8], "big")
    if not flags & COUNT_STATED:
        return _new_info_frame(frame, scan.count), 0
    stated = int.from_bytes(frame[mark + 8 : mark + 12], "big")
    corrected = bytearray(frame)
    corrected[mark + 8 : mark + 12] = scan.count.to_bytes(4, "big")
    if flags & BYTES_STATED:
        total = len(frame) + sum(map(len, scan.ranges))
        corrected[mark + 12 : mark + 16] = min(total, 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(corrected), stated


def _new_info_frame(frame: bytes, count: int) -> bytes:
    """Return a frame without sound that states a number of frames, in the format of another frame."""
    candidates = (
        bytes([0xFF, frame[1] | 1, index << 4 | frame[2] & 0x0C, frame[3]]) for index in range(1, 15)
    )
    header = next(data for data in candidates if (found := frame_header(data)) and found.length >= INFO_BYTES)
    described = frame_header(header)
    assert described is not None
    made = bytearray(described.length)
    made[:HEADER_BYTES] = header
    at = HEADER_BYTES + SIDE_BYTES[described.version, described.channels]
    body = XING_MARKS[0] + COUNT_STATED.to_bytes(4, "big") + count.to_bytes(4, "big") + ENCODER
    made[at : at + len(body)] = body
    return bytes(made)


def _is_confirmed(file: BinaryIO, at: int, header: FrameHeader, size: int) -> bool:
    """Tell whether a frame is followed by frames of its format, a tag or the end of the file."""
    for _ in range(FRAMES_IN_A_ROW - 1):
        at += header.length
        if at >= size or _ends(file, at, size):
            return True
        following = frame_header(read_at(file, at, HEADER_BYTES))
        if following is None or not header.continues(following):
            return False
        header = following
    return True


def _ends(file: BinaryIO, at: int, size: int) -> bool:
    """Tell whether a tag or another file begins here."""
    return _past_tags(file, at, size) > at or bool(FILE_BEGINNING.match(read_at(file, at, LONGEST_MARKER)))


def _next_frame(file: BinaryIO, at: int, size: int) -> int:
    """Return where the next frames begin; the end of the file if there are none."""
    while at < size:
        data = read_at(file, at, FRAME_SEARCH_BYTES + HEADER_BYTES)
        start = data.find(0xFF, 0, FRAME_SEARCH_BYTES)
        while start >= 0:
            header = frame_header(data[start : start + HEADER_BYTES])
            if header and _is_confirmed(file, at + start, header, size):
                return at + start
            start = data.find(0xFF, start + 1, FRAME_SEARCH_BYTES)
        at += FRAME_SEARCH_BYTES
    return size


def _past_tags(file: BinaryIO, at: int, size: int) -> int:
    """Return the position after the tags (ID3 1 and 2, APE 2) that begin here."""
    while at < size:
        beginning = read_at(file, at, 32)
        if beginning[:3] == b"ID3" and len(beginning) >= 10 and max(beginning[6:10]) < 0x80:
            length = 10 + sum(
                byte << shift for byte, shift in zip(beginning[6:10], (21, 14, 7, 0), strict=True)
            )
            length += 10 if beginning[5] & 0x10 else 0
        elif beginning[:8] == b"APETAGEX" and len(beginning) == 32:
            length = 32 + int.from_bytes(beginning[12:16], "little") if beginning[23] & 0x20 else 32
        elif beginning[:3] == b"TAG":
            length = 128
        else:
            break
        at = min(size, at + length)
    return at
