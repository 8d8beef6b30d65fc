"""The logical streams of a sound file: where each begins and ends, even if its header is wrong.

An interrupted recorder, a pipe or a live stream leaves sizes of 0 or of 2^31 and more in a header. Files may
be concatenated, or hold chunks that no decoder needs. So a file is divided into logical streams, and a
decoder reads each as a file of its own with a corrected header.

    file -> LogicalStream (a SectionReader: new header, range of the file) -> decoder

A file that is not recognised here is one stream, unchanged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from edge.file_formats.mpeg import mpeg_stream
from edge.file_formats.ogg import ogg_stream
from edge.file_formats.section_reader import (
    FILE_BEGINNING,
    LONGEST_MARKER,
    LogicalStream,
    Section,
    SectionReader,
    read_at,
)

LARGEST_KEPT: Final = 1 << 24
"""Bytes of a chunk that is copied; a larger chunk does not describe the sound."""
MOST_CHUNKS: Final = 1_000
OPEN_SIZE: Final = 0x7F00_0000
"""A 32-bit size from here on means "until the end": programs that write to a pipe state such sizes."""
OPEN_LONG_SIZE: Final = 1 << 62
"""The same for 64-bit sizes."""
NEGLIGIBLE_BYTES: Final = 1_024
"""A shorter rest after the stated end of the sound is not sound."""
AU_HEADER_BYTES: Final = 24


@dataclass(frozen=True)
class ChunkLayout:
    """How a container format writes its chunks: identifier, size, body."""

    beginning: re.Pattern[bytes]
    form_bytes: int
    """Bytes before the first chunk."""
    header: struct.Struct
    """Identifier and size."""
    align: int
    """Chunks begin at multiples of this from the beginning of the file."""
    sound: bytes
    """Identifier of the chunk with the sound."""
    kept: tuple[bytes, ...]
    """Identifiers of the other chunks that a decoder needs."""
    form: Callable[[bytes, int], bytes]
    """Return the bytes before the first chunk, given those in the file and how many bytes follow."""
    size_of_header: int = 0
    """Bytes of the chunk's header that are included in its size."""

    @property
    def open_size(self) -> int:
        """Smallest size that means "until the end"."""
        return OPEN_SIZE if self.header.size == 8 else OPEN_LONG_SIZE

    def chunk_header(self, identifier: bytes, count: int) -> bytes:
        """Return the header of a chunk whose body has `count` bytes."""
        largest = 0xFFFF_FFFF if self.header.size == 8 else OPEN_LONG_SIZE
        return self.header.pack(identifier, min(count + self.size_of_header, largest))

    def padding(self, count: int) -> int:
        """Return the padding bytes between a body of `count` bytes and the next chunk."""
        return -count % self.align


@dataclass(frozen=True)
class _Chunk:
    identifier: bytes
    body: int
    """Position."""
    count: int
    """Bytes of the body, as the header states."""


def _form_iff(form: bytes, count: int) -> bytes:
    return form[:4] + struct.pack(">I", min(4 + count, 0xFFFF_FFFF)) + form[8:12]


def _form_riff(form: bytes, count: int) -> bytes:
    """Return a RIFF header, or RF64 with 64-bit sizes where 32 bits are too few."""
    if count < OPEN_SIZE + LARGEST_KEPT:
        return b"RIFF" + struct.pack("<I", 4 + count) + form[8:12]
    return (
        b"RF64" + struct.pack("<I", 0xFFFF_FFFF) + b"WAVEds64" + struct.pack("<I3QI", 28, count, count, 0, 0)
    )


def _form_wave64(form: bytes, count: int) -> bytes:
    return form[:16] + struct.pack("<Q", 40 + count) + form[24:40]


_LITTLE, _BIG = struct.Struct("<4sI"), struct.Struct(">4sI")
_GUID_TAIL: Final = bytes.fromhex("f3acd3118cd100c04f8edb8a")
LAYOUTS: Final = (
    ChunkLayout(
        re.compile(rb"(RIFF|RF64|BW64)....WAVE", re.DOTALL),
        form_bytes=12,
        header=_LITTLE,
        align=2,
        sound=b"data",
        kept=(b"fmt ",),
        form=_form_riff,
    ),
    ChunkLayout(
        re.compile(rb"RIFX....WAVE", re.DOTALL),
        form_bytes=12,
        header=_BIG,
        align=2,
        sound=b"data",
        kept=(b"fmt ",),
        form=_form_iff,
    ),
    ChunkLayout(
        re.compile(rb"FORM....AIF[FC]", re.DOTALL),
        form_bytes=12,
        header=_BIG,
        align=2,
        sound=b"SSND",
        kept=(b"COMM", b"FVER"),
        form=_form_iff,
    ),
    ChunkLayout(
        re.compile(rb"FORM....(8SVX|16SV)", re.DOTALL),
        form_bytes=12,
        header=_BIG,
        align=2,
        sound=b"BODY",
        kept=(b"VHDR",),
        form=_form_iff,
    ),
    ChunkLayout(
        re.compile(rb"caff\0\x01"),
        form_bytes=8,
        header=struct.Struct(">4sQ"),
        align=1,
        sound=b"data",
        kept=(b"desc", b"kuki", b"pakt", b"chan"),
        form=lambda form, _: form,
    ),
    ChunkLayout(
        re.compile(rb"riff\x2e\x91\xcf\x11"),
        form_bytes=40,
        header=struct.Struct("<16sQ"),
        align=8,
        sound=b"data" + _GUID_TAIL,
        kept=(b"fmt " + _GUID_TAIL,),
        form=_form_wave64,
        size_of_header=24,
    ),
)


def logical_streams(file: BinaryIO) -> Iterator[LogicalStream]:
    """Yield the logical streams of a file; read each before the next is requested.

    Raises:
        OSError: the file cannot be read.
    """
    size, at = file.seek(0, 2), 0
    while at < size:
        stream = _stream_at(file, at, size)
        if stream is None:
            if at == 0:
                yield _whole(file, size)
            return
        yield stream
        at = stream.end()


def _stream_at(file: BinaryIO, at: int, size: int) -> LogicalStream | None:
    """Return the logical stream that begins at a position; None if none is recognised."""
    beginning = read_at(file, at, LONGEST_MARKER)
    for layout in LAYOUTS:
        if layout.beginning.match(beginning):
            return _chunked(file, at, size, layout)
    if beginning.startswith(b".snd"):
        return _au_stream(file, at, size)
    if beginning.startswith(b"fLaC"):
        reader = SectionReader(file, [range(at, at + 4), range(at + 4, size)], FILE_BEGINNING)
        return LogicalStream(reader, reader.end)
    return ogg_stream(file, at, size) or mpeg_stream(file, at, size)


def _begins(file: BinaryIO, at: int) -> bool:
    """Tell whether another file begins at a position."""
    return bool(FILE_BEGINNING.match(read_at(file, at, LONGEST_MARKER)))


def _whole(file: BinaryIO, size: int, at: int = 0) -> LogicalStream:
    return LogicalStream(SectionReader(file, [range(at, size)]), lambda: size)


def _chunked(file: BinaryIO, at: int, size: int, layout: ChunkLayout) -> LogicalStream:
    """Return a stream whose sound is one chunk, after a header with the chunks that a decoder needs."""
    chunks, _ = _chunks(file, at + layout.form_bytes, size, layout)
    sound = next((chunk for chunk in chunks if chunk.identifier == layout.sound), None)
    if sound is None:
        return _whole(file, size, at)
    stated = _stated(file, chunks, sound, layout)
    behind = _end_of_sound(file, sound.body, stated, size, layout)
    count = (size if behind is None else sound.body + stated) - sound.body
    later, end = ([], size) if behind is None else _chunks(file, behind, size, layout)
    before = b"".join(_kept(file, chunk, layout) for chunk in chunks)
    after = b"".join(_kept(file, chunk, layout) for chunk in later)
    header = before + layout.chunk_header(layout.sound, count)
    form = layout.form(read_at(file, at, layout.form_bytes), len(header) + count + len(after))
    sections: list[Section] = [form + header, range(sound.body, sound.body + count)]
    if behind is not None:
        padded = [bytes(layout.padding(count)) + after] if after else []
        return LogicalStream(SectionReader(file, [*sections, *padded]), lambda: end)
    reader = SectionReader(file, sections, FILE_BEGINNING)
    return LogicalStream(
        reader, reader.end, states_length=False, missing=_missing(stated, count, layout.open_size)
    )


def _chunks(file: BinaryIO, at: int, size: int, layout: ChunkLayout) -> tuple[list[_Chunk], int]:
    """List the chunks from a position up to the one with the sound, and return where the next would begin."""
    chunks: list[_Chunk] = []
    while len(chunks) < MOST_CHUNKS and (chunk := _chunk_at(file, at, size, layout)):
        chunks.append(chunk)
        if chunk.identifier == layout.sound:
            break
        at = _next_at(file, chunk.body + chunk.count, size, layout, layout.padding(chunk.count))
    return chunks, at


def _chunk_at(file: BinaryIO, at: int, size: int, layout: ChunkLayout) -> _Chunk | None:
    """Read a chunk's header; None unless its name is printable and it ends within the file."""
    header = read_at(file, at, layout.header.size)
    if len(header) < layout.header.size or _begins(file, at):
        return None
    identifier, total = layout.header.unpack(header)
    body, count = at + layout.header.size, max(0, total - layout.size_of_header)
    printable = all(0x20 <= byte < 0x7F for byte in identifier[:4])
    fits = body + count <= size or identifier == layout.sound
    return _Chunk(identifier, body, count) if printable and fits else None


def _next_at(file: BinaryIO, end: int, size: int, layout: ChunkLayout, padding: int) -> int:
    """Return where the next chunk or file begins after a body; some writers omit the padding."""
    unpadded = _begins(file, end) or _chunk_at(file, end, size, layout)
    return end if padding and unpadded else end + padding


def _stated(file: BinaryIO, chunks: list[_Chunk], sound: _Chunk, layout: ChunkLayout) -> int:
    """Return the bytes of sound that the header states; RF64 states them in the ds64 chunk."""
    long = next((chunk for chunk in chunks if chunk.identifier == b"ds64" and chunk.count >= 16), None)
    if long is None or sound.count < layout.open_size:
        return sound.count
    stated = struct.unpack("<Q", read_at(file, long.body + 8, 8))[0]
    return int(stated)


def _end_of_sound(file: BinaryIO, body: int, stated: int, size: int, layout: ChunkLayout) -> int | None:
    """Return the position after the sound; None if the stated end is wrong and the sound goes on."""
    end = body + stated
    if end > size:
        return None
    at = _next_at(file, end, size, layout, layout.padding(stated))
    rest = size - at
    known = (
        rest <= (NEGLIGIBLE_BYTES if stated else 0) or _begins(file, at) or _chunk_at(file, at, size, layout)
    )
    return at if known else None


def _kept(file: BinaryIO, chunk: _Chunk, layout: ChunkLayout) -> bytes:
    """Return a copy of a chunk if a decoder needs it; else nothing."""
    if chunk.identifier not in layout.kept or chunk.count > LARGEST_KEPT:
        return b""
    body = read_at(file, chunk.body, chunk.count)
    return layout.chunk_header(chunk.identifier, chunk.count) + body + bytes(layout.padding(chunk.count))


def _au_stream(file: BinaryIO, at: int, size: int) -> LogicalStream:
    """Return an AU file's stream; its header holds the position and size of the sound, then the format."""
    header = read_at(file, at, AU_HEADER_BYTES)
    if len(header) < AU_HEADER_BYTES:
        return _whole(file, size, at)
    start, stated = struct.unpack(">II", header[4:12])
    body = min(size, at + max(AU_HEADER_BYTES, start))
    end = body + stated
    if end <= size and (size - end <= (NEGLIGIBLE_BYTES if stated else 0) or _begins(file, end)):
        return LogicalStream(SectionReader(file, [_au_header(header, stated), range(body, end)]), lambda: end)
    reader = SectionReader(file, [_au_header(header, size - body), range(body, size)], FILE_BEGINNING)
    return LogicalStream(
        reader, reader.end, states_length=False, missing=_missing(stated, size - body, OPEN_SIZE)
    )


def _au_header(header: bytes, count: int) -> bytes:
    return b".snd" + struct.pack(">II", AU_HEADER_BYTES, min(count, 0xFFFF_FFFF)) + header[12:]


def _missing(stated: int, count: int, open_size: int) -> float:
    """Return the stated bytes that are missing from the file, relative to those present."""
    return max(0, stated - count) / count if count and stated < open_size else 0.0
