"""What the page of `mmtl serve --web` is offered: the entry point of `edge.web.enrolment`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from calibrate.session.sentences import MOST_TAKES, language_of_locale, languages
from calibrate.session.workflow import DEFAULT_TAKES
from calibrate.takes import FEWEST_TAKES
from calibrate.web.enrolment import BrowserEnrolment
from calibrate.web.requests import Kind
from edge.model.bundle import Bundle


class EnrolmentOffer:
    """Makes profiles of a bundle from the sound of browsers."""

    def __init__(self, bundle: Bundle) -> None:
        """Prepare for a bundle; one whose head reads no baseline has no use for ordinary speech alone."""
        self._bundle = bundle
        reads_baseline = bundle.head.baseline_weight is not None
        self._kinds: tuple[Kind, ...] = ("ordinary", "labelled") if reads_baseline else ("labelled",)

    def describe(self) -> Mapping[str, object]:
        """Return what a person can choose."""
        return {
            "kinds": self._kinds,
            "languages": languages(),
            "language": language_of_locale(),
            "takes": DEFAULT_TAKES,
            "fewest_takes": FEWEST_TAKES,
            "most_takes": MOST_TAKES,
        }

    def open(self, saved: Callable[[], None]) -> BrowserEnrolment:
        """Serve a browser."""
        return BrowserEnrolment(self._bundle, self._kinds, saved)
