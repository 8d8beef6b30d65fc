"""Ogg: the pages of one logical stream; others may follow it (chaining) or be interleaved (multiplexing).

A page begins with OggS, a version, flags, the granule position, the stream's serial number, a sequence
number, a checksum and the lengths of its segments (RFC 3533).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from edge.file_formats.section_reader import (
    FILE_BEGINNING,
    SEARCHED_AT_ONCE,
    LogicalStream,
    SectionReader,
    merged,
    read_at,
)

CAPTURE: Final = b"OggS"
HEADER: Final = struct.Struct("<4sBBqIIIB")
FIRST_OF_STREAM: Final = 2
"""Flag of a page that begins a logical stream."""
SOUND: Final = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
"""How the first packet of an audio stream begins."""


@dataclass(frozen=True)
class _Page:
    at: int
    length: int
    serial: int
    first: bool
    sound: bool
    """Whether its packet begins an audio stream."""


def ogg_stream(file: BinaryIO, at: int, size: int) -> LogicalStream | None:
    """Return the audio stream in the link of the chain that begins here; None if there is no page."""
    if read_at(file, at, len(CAPTURE)) != CAPTURE:
        return None
    pages, end = _link(file, at, size)
    if not pages:
        return None
    serial = next((page.serial for page in pages if page.sound), pages[0].serial)
    kept = merged(range(page.at, page.at + page.length) for page in pages if page.serial == serial)
    damaged = end - at - sum(page.length for page in pages)
    reader = SectionReader(file, list(kept))
    return LogicalStream(reader, lambda: end, missing=damaged / reader.size)


def _link(file: BinaryIO, at: int, size: int) -> tuple[list[_Page], int]:
    """List the pages up to the next link (it begins with first pages) or file; return its position too."""
    pages: list[_Page] = []
    for page in _pages(file, at, size):
        if page.first and pages and not pages[-1].first:
            return pages, page.at
        pages.append(page)
        at = page.at + page.length
    return pages, at if FILE_BEGINNING.match(read_at(file, at, 16)) else size


def _pages(file: BinaryIO, at: int, size: int) -> Iterator[_Page]:
    """Yield the complete pages from a position on, skipping other data."""
    while at < size:
        start = read_at(file, at, HEADER.size + 255)
        if FILE_BEGINNING.match(start) and not start.startswith(CAPTURE):
            return
        if len(start) < HEADER.size or not start.startswith(CAPTURE):
            at = _next_capture(file, at + 1, size)
            continue
        _, _, flags, _, serial, _, _, segments = HEADER.unpack_from(start)
        body = HEADER.size + segments
        length = body + sum(start[HEADER.size : body])
        if at + length > size:
            return
        packet = read_at(file, at + body, 8)
        yield _Page(at, length, serial, bool(flags & FIRST_OF_STREAM), packet.startswith(SOUND))
        at += length


def _next_capture(file: BinaryIO, at: int, size: int) -> int:
    """Return where the next page may begin; the end of the file if there is none."""
    while at < size:
        data = read_at(file, at, SEARCHED_AT_ONCE + len(CAPTURE))
        if (found := data.find(CAPTURE)) >= 0:
            return at + found
        at += SEARCHED_AT_ONCE
    return size
