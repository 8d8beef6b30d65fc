"""The newest rows of a stream."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SPARE: Final = 4
"""A buffer more than this many times larger than its content is replaced by a smaller one."""


class StreamBuffer:
    """Rows that are appended at the end and dropped from the front, addressed by their number.

    Remembers the rows since the last `forget`; row numbers count from the beginning of the stream.
    They are contiguous in one buffer, with free rows behind them; when these are used up, the rows move to
    its front. So a stream of steady size allocates nothing.
    """

    def __init__(self, empty: NDArray[Any]) -> None:
        """Start with the rows of an array, usually none: (0, ...) defines their shape and type."""
        self._buffer = empty.copy()
        self._start = 0
        self._stop = len(empty)
        self._first = 0

    @property
    def end(self) -> int:
        """Number of the next row."""
        return self._first + self._stop - self._start

    @property
    def capacity(self) -> int:
        """Rows for which memory is allocated."""
        return len(self._buffer)

    def append(self, rows: NDArray[Any]) -> None:
        """Add (n, ...) rows."""
        if self._stop + len(rows) > len(self._buffer):
            self._make_room(len(rows))
        self._buffer[self._stop : self._stop + len(rows)] = rows
        self._stop += len(rows)

    def __getitem__(self, span: slice) -> NDArray[Any]:
        """Return a view of rows `span.start` to `span.stop`, which must not be dropped yet.

        The next `append` may overwrite it.
        """
        assert span.start >= self._first, "these rows are dropped"
        offset = self._start - self._first
        rows: NDArray[Any] = self._buffer[span.start + offset : min(span.stop + offset, self._stop)]
        return rows

    def forget(self, before: int) -> None:
        """Drop the rows with lower numbers."""
        drop = min(max(0, before - self._first), self._stop - self._start)
        self._start += drop
        self._first += drop

    def _make_room(self, count: int) -> None:
        """Move the rows to the front of the buffer, or of a new one if this one is too small or too large."""
        rows = self._buffer[self._start : self._stop]
        needed = len(rows) + count
        if not needed <= len(self._buffer) <= SPARE * needed:
            self._buffer = np.empty((needed + len(rows), *rows.shape[1:]), rows.dtype)
        self._buffer[: len(rows)] = rows
        self._start, self._stop = 0, len(rows)
