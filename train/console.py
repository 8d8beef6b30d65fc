"""How far long work is, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")


class ConsoleProgress:
    """Progress bars with the time left, on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        """Pass the items on under a bar that disappears at the end."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield from progress.track(items, total=total, description=label)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, highlight=False)
