"""What the page needs of a package that makes profiles; such a package offers it by an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Final, Protocol

from edge.model.bundle import Bundle

GROUP: Final = "mmtl.enrolment"
"""Entry point group; its entry "browser" makes an `EnrolmentService` of a `Bundle`."""

Reply = str | bytes
"""A line of JSON, or the data that the line before it announced."""


class Enrolment(Protocol):
    """The calibration sessions of one browser, one after the other. Used by one thread at a time."""

    def take(self, message: str | bytes) -> Iterator[Reply]:
        """Take a request or sound, and yield the answers; the work is done as they are asked for.

        Never raises for what a browser sends.
        """

    def close(self) -> None:
        """End the session; the browser has left."""


class EnrolmentService(Protocol):
    """Makes profiles from the sound of browsers."""

    def describe(self) -> Mapping[str, object]:
        """Return what a person can choose, for the page; values for JSON."""

    def open(self, saved: Callable[[], None]) -> Enrolment:
        """Serve a browser.

        Args:
            saved: called once a profile was written.
        """


def find_enrolment(bundle: Bundle) -> EnrolmentService | None:
    """Return the installed service for profiles of a bundle; None if there is none."""
    entry = next(iter(entry_points(group=GROUP, name="browser")), None)
    if entry is None:
        return None
    make: Callable[[Bundle], EnrolmentService] = entry.load()
    return make(bundle)
