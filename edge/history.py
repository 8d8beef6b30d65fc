"""The recent rows of an endless array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class History:
    """Rows that are appended at the end and forgotten from the front, addressed by their number.

    Remembers the rows since the last `forget`; row numbers count from the beginning of the stream.
    """

    def __init__(self, empty: NDArray[Any]) -> None:
        """Start with no rows, of the shape and kind of the (0, ...) array given."""
        self._rows = empty
        self._first = 0

    @property
    def end(self) -> int:
        """Number of the row that comes next."""
        return self._first + len(self._rows)

    def append(self, rows: NDArray[Any]) -> None:
        """Add (n, ...) rows."""
        self._rows = np.concatenate([self._rows, rows])

    def __getitem__(self, span: slice) -> NDArray[Any]:
        """Return rows `span.start` to `span.stop`, which must not be forgotten yet."""
        assert span.start >= self._first, "these rows are forgotten"
        rows: NDArray[Any] = self._rows[span.start - self._first : span.stop - self._first]
        return rows

    def forget(self, before: int) -> None:
        """Drop the rows with lower numbers."""
        drop = min(max(0, before - self._first), len(self._rows))
        self._rows = self._rows[drop:]
        self._first += drop
