"""The recent rows of an endless array."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SPARE: Final = 4
"""A buffer so many times larger than what it must hold is given back."""


class StreamBuffer:
    """Rows that are appended at the end and forgotten from the front, addressed by their number.

    Remembers the rows since the last `forget`; row numbers count from the beginning of the stream.
    They lie together in one buffer, with room behind them; when that is used up, they move to its
    front. So a stream that keeps as much as it forgets allocates nothing.
    """

    def __init__(self, empty: NDArray[Any]) -> None:
        """Start with the rows of the array given, mostly none: (0, ...) tells their shape and kind."""
        self._buffer = empty.copy()
        self._start = 0
        self._stop = len(empty)
        self._first = 0

    @property
    def end(self) -> int:
        """Number of the row that comes next."""
        return self._first + self._stop - self._start

    @property
    def capacity(self) -> int:
        """Rows that there is memory for."""
        return len(self._buffer)

    def append(self, rows: NDArray[Any]) -> None:
        """Add (n, ...) rows."""
        if self._stop + len(rows) > len(self._buffer):
            self._make_room(len(rows))
        self._buffer[self._stop : self._stop + len(rows)] = rows
        self._stop += len(rows)

    def __getitem__(self, span: slice) -> NDArray[Any]:
        """Return rows `span.start` to `span.stop`, which must not be forgotten yet.

        They are a view, which the next `append` may overwrite.
        """
        assert span.start >= self._first, "these rows are forgotten"
        offset = self._start - self._first
        rows: NDArray[Any] = self._buffer[span.start + offset : min(span.stop + offset, self._stop)]
        return rows

    def forget(self, before: int) -> None:
        """Drop the rows with lower numbers."""
        drop = min(max(0, before - self._first), self._stop - self._start)
        self._start += drop
        self._first += drop

    def _make_room(self, count: int) -> None:
        """Move the rows to the front of the buffer, or of a new one where this is too small or large."""
        rows = self._buffer[self._start : self._stop]
        needed = len(rows) + count
        if not needed <= len(self._buffer) <= SPARE * needed:
            self._buffer = np.empty((needed + len(rows), *rows.shape[1:]), rows.dtype)
        self._buffer[: len(rows)] = rows
        self._start, self._stop = 0, len(rows)
