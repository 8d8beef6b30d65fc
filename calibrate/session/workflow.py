"""The life of a guided session: start or resume it, record the takes, then keep or delete them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import typer

from calibrate.session.sentences import MOST_TAKES, language_of_locale, sentences
from calibrate.session.session import OrdinaryState, Session
from calibrate.session.session_folder import (
    SessionFolder,
    copy_ordinary,
    copy_takes,
    require_no_recordings,
)
from calibrate.session.terminal import (
    INSTEAD,
    INSTEAD_ORDINARY,
    ask_consent,
    require_microphone,
    require_terminal,
    run_session,
)
from calibrate.takes import Take
from edge.audio.downmix import AUTO, Channel
from edge.errors import UsageError

DEFAULT_TAKES: Final = 2
"""Of each emotion."""

OrdinarySpeech = Literal["none", "first", "only"]
"""Recorded before the takes, in place of them, or not: the model does not use it."""

MORE_TAKES: Final = 2
"""Suggested as an addition if a session did not help."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """The command line options of a guided session."""

    name: str
    takes: int | None = None
    """Of each emotion; None: as in the resumed session, else `DEFAULT_TAKES`."""
    language: str | None = None
    """Of the sentences; None: as in the resumed session, else the locale's."""
    ordinary: OrdinarySpeech = "none"
    device: str | None = None
    """The microphone, as `edge.audio.sources` names it; None: ask if there are several."""
    resume: bool = False
    replace: bool = False
    keep_recordings: Path | None = None
    """Folder that the recordings are moved to at the end."""
    agreed: bool = False
    """Whether the speaker has agreed to the privacy notice already."""
    bundle: Path | None = None
    picture: Path | None = None
    """PNG file of the judgement."""
    full: Path | None = None
    """Folder of the tuned network's bundle; None: the network is not tuned."""
    channel: Channel = AUTO
    """Channel of the microphone to use, as in `edge.audio.downmix`."""


class GuidedSession:
    """A guided session. Its takes stay on disk until `finish`, whatever fails before."""

    def __init__(self, options: SessionOptions) -> None:
        """Check everything that can be checked before the first take.

        Raises:
            ProfileError: the name cannot name a profile.
            UsageError: there is no terminal, or an option does not fit the unfinished session or the system.
        """
        self._folder = SessionFolder(options.name)
        self._options = options
        self._session = (
            resumed_session(options, self._folder) if options.resume else new_session(options, self._folder)
        )
        instead = INSTEAD_ORDINARY if options.ordinary == "only" else INSTEAD
        require_terminal(instead)
        require_microphone(options.device or "mic", instead)
        if options.keep_recordings:
            require_no_recordings(options.keep_recordings)

    def record_takes(self) -> list[Take]:
        """Run the session; return its takes, or none if it is not complete."""
        return self._folder.takes(self._session) if self._run() else []

    def record_ordinary(self) -> Path | None:
        """Run a session of ordinary speech alone; return the recording, or None if it is not complete."""
        return self.ordinary_recording if self._run() else None

    @property
    def ordinary_recording(self) -> Path | None:
        """The recording of ordinary speech; None if there is none."""
        return self._folder.ordinary(self._session)

    def _run(self) -> bool:
        """Run the session; return whether it is complete."""
        session = self._session
        complete = session.next is None and session.enough and not session.skipped
        if not complete:
            kept_in = str(self._options.keep_recordings or "")
            discards = self._folder.exists() and not self._options.resume
            if not ask_consent(
                session, self._folder, kept_in, agreed=self._options.agreed, discards=discards
            ):
                _say("Nothing was recorded.")
                return False
            if not self._options.resume:
                self._folder.remove()
            with self.takes_kept_on_error():
                self._session, complete = run_session(
                    session, self._folder, self._options.device, self._options.channel
                )
        if not complete:
            self._say_how_to_continue()
            return False
        _say("Fitting and judging ..." if self._session.takes else "Fitting ...")
        return True

    @contextlib.contextmanager
    def takes_kept_on_error(self) -> Iterator[None]:
        """If the block fails, say where the takes are kept and how to continue.

        Ordinary speech alone is quickly recorded again, so it is deleted.
        """
        try:
            yield
        except BaseException:
            self._say_how_to_continue()
            raise

    def finish(self, *, adopted: bool, outliers: bool = False) -> None:
        """Move or delete the recordings, unless the speaker wants to go on with them.

        Args:
            adopted: whether the profile was adopted; if not, the speaker may add takes.
            outliers: whether some takes do not sound like the others; the speaker may listen to them.
        """
        if (outliers and self._wants_to_listen()) or (not adopted and self._wants_more()):
            return
        if self._options.keep_recordings:
            with self._copied_or_kept():
                self._copy_recordings(self._options.keep_recordings)
        self._folder.remove()
        _say("The session's recordings are deleted.")

    def _copy_recordings(self, folder: Path) -> None:
        if self.ordinary_recording:
            kept = copy_ordinary(self.ordinary_recording, folder)
            _say(f"The recording of ordinary speech is kept: {kept}")
        if self._session.takes:
            manifest = copy_takes(self._folder.takes(self._session), self._session.name, folder)
            _say(f"The recordings and their manifest are kept: {manifest}")

    @contextlib.contextmanager
    def _copied_or_kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UsageError) as error:
            raise UsageError(
                f"the recordings cannot be copied ({error})", remedy=f"they are still in {self._folder.path}"
            ) from error

    def _wants_to_listen(self) -> bool:
        if not self._wants_to_keep("Keep the recordings on this device, to listen to them?"):
            return False
        _say("To record a take again, delete its file there first.")
        _say(f"Continue: {self._command(takes=None, replace=True)}")
        return True

    def _wants_more(self) -> bool:
        more = min(MOST_TAKES, self._session.takes + MORE_TAKES)
        if more == self._session.takes:
            return False
        if not self._wants_to_keep("More takes may help. Keep these on this device, to add more later?"):
            return False
        _say(f"Add takes: {self._command(takes=more, replace=True)}")
        return True

    def _wants_to_keep(self, question: str) -> bool:
        try:
            wanted = typer.confirm(question, default=False, err=True)
        except typer.Abort:  # Ctrl-C keeps the takes
            _say("")
            wanted = True
        if wanted:
            _say(f"They are kept in {self._folder.path}")
        return wanted

    def _say_how_to_continue(self) -> None:
        if not self._session.takes:
            self._folder.remove()
            _say("Nothing is kept of the recording.")
            return
        if not self._folder.exists():
            _say("Nothing was recorded.")
            return
        takes = len(self._folder.load().done)
        _say(f"{takes} {'take is' if takes == 1 else 'takes are'} kept in {self._folder.path}")
        _say(f"Continue: {self._command(takes=None, replace=self._options.replace)}")

    def _command(self, *, takes: int | None, replace: bool) -> str:
        """Write the command that continues this session."""
        options = self._options
        words = ["mmtl", "calibrate", options.name, "--resume"]
        words += ["--replace"] if replace else []
        words += ["--takes", str(takes)] if takes else []
        words += ["--device", options.device] if options.device else []
        words += ["--bundle", str(options.bundle)] if options.bundle else []
        words += ["--keep-recordings", str(options.keep_recordings)] if options.keep_recordings else []
        words += ["--picture", str(options.picture)] if options.picture else []
        words += ["--full", "--out", str(options.full)] if options.full else []
        return shlex.join(words)


def new_session(options: SessionOptions, folder: SessionFolder) -> Session:
    """Begin a session; nothing is written yet.

    Raises:
        UsageError: there are no sentences in the language, or an unfinished session is not to be replaced.
    """
    language = options.language or language_of_locale()
    sentences(language)
    if folder.exists() and not options.replace:
        done = len(folder.load().done)
        raise UsageError(
            f"there is an unfinished session of {options.name} with {done} takes",
            remedy="give --resume to continue it, or --replace to discard it and start again",
        )
    if options.ordinary == "only":
        return Session(options.name, language, 0, ordinary="open")
    ordinary: OrdinaryState = "open" if options.ordinary == "first" else "none"
    return Session(options.name, language, options.takes or DEFAULT_TAKES, ordinary=ordinary)


def resumed_session(options: SessionOptions, folder: SessionFolder) -> Session:
    """Read the unfinished session, with the options applied.

    Raises:
        UsageError: there is none, it is damaged, or it is in another language.
    """
    if not folder.exists():
        raise UsageError(
            f"there is no unfinished session of {options.name}", remedy="leave --resume out to begin one"
        )
    session = folder.load()
    if options.language not in (None, session.language):
        raise UsageError(
            f"the unfinished session is in {session.language}, not {options.language}",
            remedy="leave --language out, or give --replace instead of --resume to start again",
        )
    ordinary = session.ordinary
    if options.ordinary == "none" or ordinary == "none":
        ordinary = "none" if options.ordinary == "none" else "open"
    return replace(session, takes=options.takes or session.takes, ordinary=ordinary)


def _say(message: str) -> None:
    typer.echo(message, err=True)
