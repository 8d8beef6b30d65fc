"""A browser's sessions: begin, record, fit, then keep or delete the recordings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from calibrate.session.controller import Ending
from calibrate.session.sentences import MOST_TAKES
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.session_lock import session_lock
from calibrate.session.workflow import SessionOptions, new_session, resumed_session
from calibrate.speaker import calibrate_ordinary, calibrate_speaker
from calibrate.web.page_session import PageSession, to_line
from calibrate.web.requests import Beginning, read_beginning, read_request
from calibrate.web.results import judgement_picture, labelled_result, ordinary_result
from edge.errors import MmtlError, UsageError
from edge.model.bundle import Bundle
from edge.model.profile import profile_path, require_place
from edge.model.profile_names import profile_name
from edge.output.anonymous import without_names

MORE_HELPS: Final = "More takes may help. Keep these on the device, to add more later?"
LISTEN: Final = "Keep the recordings on the device, to listen to them?"
FAILED: Final = "Keep the recordings on the device, to try again later?"

Recordings = Literal["deleted", "kept", "none"]
"""What became of the recordings of a session."""


@dataclass
class _Current:
    """The session of the browser."""

    name: str
    path: Path
    """Of the profile."""
    folder: SessionFolder
    keep: bool
    replace: bool
    continued: bool
    """Whether it was unfinished before: its takes stay if it is not completed."""
    page: PageSession | None
    """None once everything is recorded."""

    @property
    def session(self) -> Session:
        """The progress."""
        assert self.page
        return self.page.controller.session


class BrowserEnrolment:
    """The sessions of one browser, one after the other; the `Enrolment` of `edge.web.enrolment`.

    The recordings lie in the private folder that the terminal's session uses, and the lock is the same. They
    are deleted when the session ends, however it ends, unless the person has asked to keep them.
    """

    def __init__(self, bundle: Bundle, kinds: Collection[str], saved: Callable[[], None]) -> None:
        """Prepare; nothing is recorded yet.

        Args:
            bundle: the model.
            kinds: of sessions that it can be used for: "ordinary", "labelled".
            saved: called once a profile was written.
        """
        self._bundle, self._kinds, self._saved = bundle, kinds, saved
        self._current: _Current | None = None
        self._lock = contextlib.ExitStack()

    def take(self, message: str | bytes) -> Iterator[str | bytes]:
        """Take a request or sound, and yield the answers. Never raises for what a browser sends."""
        try:
            if isinstance(message, bytes):
                yield from self._hear(message)
            else:
                yield from self._obey(read_request(message))
        except MmtlError as error:
            yield to_line({"page": "refused", "message": _without_paths(error)})

    def close(self) -> None:
        """End the session: what was recorded is deleted, unless it is to be kept."""
        with contextlib.suppress(MmtlError):
            self._end()

    def _obey(self, request: dict[str, Any]) -> Iterator[str | bytes]:
        match request:
            case {"do": "begin", **rest}:
                yield from self._begin(read_beginning(rest))
            case {"do": "press", "key": key, **rest} if not rest:
                yield from self._with_page(lambda page: page.press(key))
            case {"do": "lost", "seconds": seconds, **rest} if not rest:
                yield from self._with_page(lambda page: page.report_gap(seconds))
            case {"do": "keep", "keep": bool() as keep, **rest} if not rest:
                if self._current:
                    self._current.keep = keep
            case {"do": "stop", **rest} if not rest:
                yield to_line({"page": "ended", "recordings": self._end()})
            case _:
                raise UsageError("a request is not as expected")

    def _hear(self, data: bytes) -> Iterator[str | bytes]:
        yield from self._with_page(lambda page: page.hear(data))

    def _with_page(self, do: Callable[[PageSession], None]) -> Iterator[str | bytes]:
        """Do something with the recording session; what comes after its end is ignored."""
        current = self._current
        if current is None or current.page is None:
            return
        do(current.page)
        if current.page.controller.ending is Ending.COMPLETE:
            yield from self._fit(current)
        else:
            yield from current.page.changes()

    def _begin(self, beginning: Beginning) -> Iterator[str | bytes]:
        if self._current:
            raise UsageError("a session is open already", remedy="finish or stop it first")
        if beginning.kind not in self._kinds:
            raise UsageError(f"the model has no use for {beginning.kind} speech alone")
        name = profile_name(beginning.name)
        path = profile_path(name)
        require_place(path)
        with contextlib.ExitStack() as locked:
            locked.enter_context(session_lock(name))
            question = _question(beginning, name, path)
            if question:
                yield to_line(question)
                return
            self._current = self._opened(beginning, name, path)
            self._lock = locked.pop_all()
        assert self._current.page
        yield from self._current.page.changes()

    def _opened(self, beginning: Beginning, name: str, path: Path) -> _Current:
        folder = SessionFolder(name)
        continued = folder.exists() and beginning.unfinished == "continue"
        reads_baseline = self._bundle.head.baseline_weight is not None
        options = SessionOptions(
            name=name,
            takes=max(beginning.takes, folder.load().takes) if continued else beginning.takes,
            language=None if continued else beginning.language,
            ordinary="only" if beginning.kind == "ordinary" else "first" if reads_baseline else "none",
            replace=True,
        )
        session = resumed_session(options, folder) if continued else new_session(options, folder)
        if not continued:
            folder.remove()
        return _Current(
            name=name,
            path=path,
            folder=folder,
            keep=beginning.keep,
            replace=beginning.replace,
            continued=continued,
            page=PageSession(session, folder, beginning.rate),
        )

    def _fit(self, current: _Current) -> Iterator[str | bytes]:
        """Fit, judge and save the profile; then tell the page, and draw the picture."""
        session, current.page = current.session, None
        yield to_line({"page": "fitting", "message": "Fitting and judging" if session.takes else "Fitting"})
        try:
            yield from (
                self._fit_labelled(current, session)
                if session.takes
                else self._fit_ordinary(current, session)
            )
        except MmtlError as error:
            question = FAILED if session.takes and not current.continued else ""
            told = {"page": "failed", "message": _without_paths(error)}
            yield to_line({**told, **self._finished(question)})
        if self._current is None:
            yield to_line({"page": "over"})

    def _fit_ordinary(self, current: _Current, session: Session) -> Iterator[str | bytes]:
        recording = current.folder.ordinary(session)
        assert recording
        calibration = calibrate_ordinary(current.name, [recording], self._bundle)
        calibration.save(current.path, replace=current.replace)
        current.continued = False
        self._saved()
        yield to_line({"page": "result", **ordinary_result(calibration), **self._finished("")})

    def _fit_labelled(self, current: _Current, session: Session) -> Iterator[str | bytes]:
        takes, ordinary = current.folder.takes(session), current.folder.ordinary(session)
        calibration = calibrate_speaker(current.name, takes, self._bundle, ordinary=ordinary)
        earlier = calibration.save(current.path, replace=current.replace)
        current.continued = False
        self._saved()
        more = not calibration.adopted and session.takes < MOST_TAKES
        question = LISTEN if calibration.outliers else MORE_HELPS if more else ""
        result = labelled_result(calibration, earlier)
        yield to_line({"page": "result", **result, **self._finished(question)})
        if picture := judgement_picture(calibration):
            yield to_line({"page": "picture"})
            yield picture

    def _finished(self, question: str) -> Mapping[str, object]:
        """End the session, or ask whether the recordings are to be kept; return what the page is told."""
        current = self._current
        assert current
        if question and not current.keep:
            return {"recordings": None, "question": question}
        return {"recordings": self._end(), "question": ""}

    def _end(self) -> Recordings:
        """End the session; return what became of its recordings."""
        current, self._current = self._current, None
        with self._lock:
            if current is None:
                return "none"
            recorded = current.folder.path.exists()
            if recorded and (current.keep or current.continued):
                return "kept"
            current.folder.remove()
            return "deleted" if recorded else "none"


def _question(beginning: Beginning, name: str, path: Path) -> Mapping[str, object] | None:
    """Return what has to be asked before a session can begin; None: nothing."""
    if os.path.lexists(path) and not beginning.replace:
        return {"page": "exists", "name": name}
    folder = SessionFolder(name)
    if not folder.exists() or beginning.unfinished == "discard":
        return None
    takes = None
    with contextlib.suppress(UsageError):  # damaged: it can only be discarded
        takes = len(folder.load().done)
    resumable = takes is not None and beginning.kind == "labelled"
    if beginning.unfinished == "continue" and resumable:
        return None
    return {"page": "unfinished", "name": name, "takes": takes, "resumable": resumable}


def _without_paths(error: MmtlError) -> str:
    return without_names(str(error))
