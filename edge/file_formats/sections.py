"""Pieces of a file, and bytes of our own, read as if they were one file."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO, Final

LONGEST_MARKER: Final = 16
"""Bytes that a marker may have."""
SEARCHED_AT_ONCE: Final = 1 << 20
"""Bytes read at once in search of a marker."""

FILE_BEGINNING: Final = re.compile(
    rb"RIF[FX]....WAVE|(RF64|BW64)....WAVE|FORM....(AIF[FC]|8SVX|16SV)|caff\0\x01|riff\x2e\x91\xcf\x11"
    rb"|\.snd\0\0|fLaC[\x00\x80]\0\0\x22|OggS\0[\x02\x03\x06\x07]",
    re.DOTALL,
)
"""How a sound file begins; of Ogg only the first page of a stream. Six bytes or more, so that sound does not
match it by chance."""

Section = bytes | range
"""Bytes of our own, or the positions of bytes in the file."""


class SectionReader(io.RawIOBase):
    """A file made of pieces, read only.

    With a marker, the last piece ends before the first match: the reader looks for it in what passes
    through, so that nothing is read twice. A failure to read is kept, and is the end of the file to a
    decoder written in C, which cannot take an exception.
    """

    def __init__(
        self, file: BinaryIO, pieces: list[Section], marker: re.Pattern[bytes] | None = None
    ) -> None:
        """Prepare to read.

        Args:
            file: what ranges are read from; it is shared and not closed.
            pieces: at least one; the last is a range where there is a marker.
            marker: matches at most `LONGEST_MARKER` bytes.
        """
        self._file = file
        self._pieces = pieces
        self._starts = list(accumulate((len(piece) for piece in pieces), initial=0))
        self._marker = marker
        self._at = 0
        self._searched = self._starts[-2]
        self.failure: OSError | None = None
        """Why reading ended early."""

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return self._starts[-1]

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which may be beyond the end, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Fill as much of the buffer as there is left; 0 at the end and after a failure."""
        into, done = memoryview(buffer).cast("B"), 0
        while done < len(into) and (data := self._next(len(into) - done)):
            into[done : done + len(data)] = data
            done += len(data)
        return done

    def _next(self, count: int) -> bytes:
        """Read from the piece at the position, and move on."""
        index = bisect_right(self._starts, self._at) - 1
        if index >= len(self._pieces):
            return b""
        try:
            data = self._read(index, min(count, self._starts[index + 1] - self._at))
        except OSError as error:
            self.failure = error
            return b""
        self._at += len(data)
        return data

    def _read(self, index: int, count: int) -> bytes:
        piece, offset = self._pieces[index], self._at - self._starts[index]
        if isinstance(piece, bytes):
            return piece[offset : offset + count]
        self._file.seek(piece.start + offset)
        if self._marker is None or index + 1 < len(self._pieces):
            return self._file.read(count)
        data = self._file.read(count + LONGEST_MARKER)
        if found := self._marker.search(data):
            self._cut(piece.start + offset + found.start())
            return data[: min(count, found.start())]
        self._searched = max(self._searched, self._at + min(count, len(data)))
        return data[:count]

    def _cut(self, end: int) -> None:
        """End the last piece, and with it the file, before a position of the file."""
        last = self._pieces[-1]
        assert isinstance(last, range)
        self._pieces[-1] = range(last.start, end)
        self._starts[-1] = self._starts[-2] + len(self._pieces[-1])
        self._marker = None

    def end(self) -> int:
        """Return where in the file the last piece ends, after looking for the marker in what was not read.

        Raises:
            OSError: the file cannot be read.
        """
        last = self._pieces[-1]
        assert isinstance(last, range)
        at = last.start + self._searched - self._starts[-2]
        while self._marker and at < last.stop:
            self._file.seek(at)
            if found := self._marker.search(self._file.read(SEARCHED_AT_ONCE + LONGEST_MARKER)):
                self._cut(at + found.start())
                return at + found.start()
            at += SEARCHED_AT_ONCE
        return last.stop


@dataclass
class LogicalStream:
    """Sound that one decoder reads from its beginning to its end."""

    reader: SectionReader
    """What the decoder reads."""
    end: Callable[[], int]
    """Called when the decoder has finished: the position in the file that comes after this stream."""
    states_length: bool = True
    """Whether the number of frames that a decoder finds stated is the file's own statement."""
    missing: float = 0.0
    """Sound that the file states or has, and the reader does not, relative to what the reader has."""


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Read so many bytes from a position, fewer at the end."""
    file.seek(at)
    return file.read(count)


def merged(ranges: Iterable[range]) -> Iterator[range]:
    """Join ranges that follow each other."""
    last: range | None = None
    for piece in ranges:
        if last is not None and piece.start == last.stop:
            last = range(last.start, piece.stop)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last
