"""A guided session from the wish to the takes: begun or resumed, held, kept or removed."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import typer

from calibrate.session.sentences import MOST_TAKES, language_of_locale, sentences
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder, copy_takes, require_room
from calibrate.session.terminal import consents, hold, require_microphone, require_terminal
from calibrate.takes import Take
from edge.audio.downmix import AUTO, Channel
from edge.errors import UsageError

DEFAULT_TAKES: Final = 2
"""Of each emotion."""

MORE_TAKES: Final = 2
"""To be added where a session did not help."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What was asked for on the command line."""

    name: str
    takes: int | None = None
    """Of each emotion; None: as before, or `DEFAULT_TAKES`."""
    language: str | None = None
    """Of the sentences; None: as before, or the locale's."""
    device: str | None = None
    """The microphone, as `edge.audio.sources` names it; None: ask where there are several."""
    resume: bool = False
    replace: bool = False
    keep_recordings: Path | None = None
    """Where the recordings go in the end."""
    agreed: bool = False
    """Whether the speaker has agreed to the notice already."""
    bundle: Path | None = None
    picture: Path | None = None
    """Where the judgement is drawn in the end."""
    full: Path | None = None
    """Where the bundle of the whole network, tuned to the speaker, goes; None: it is not tuned."""
    channel: Channel = AUTO
    """Which channel of the microphone to hear, as in `edge.audio.downmix`."""


class GuidedSession:
    """One session, of which the takes outlive anything but its end."""

    def __init__(self, wish: SessionOptions) -> None:
        """Check all that can go wrong before anybody speaks.

        Raises:
            ProfileError: the name could not be a file's name.
            UsageError: there is no terminal, or the wish does not fit what there is.
        """
        self._folder = SessionFolder(wish.name)
        self._wish = wish
        self._session = _resumed(wish, self._folder) if wish.resume else _begun(wish, self._folder)
        require_terminal()
        require_microphone(wish.device or "mic")
        if wish.keep_recordings:
            require_room(wish.keep_recordings)

    def hold(self) -> list[Take]:
        """Hold the session; return its takes, or none if it is not complete."""
        session = self._session
        complete = session.next is None and session.enough and not session.skipped
        if not complete:
            kept_in = str(self._wish.keep_recordings or "")
            discards = self._folder.exists() and not self._wish.resume
            if not consents(session, self._folder, kept_in, agreed=self._wish.agreed, discards=discards):
                _say("Nothing was recorded.")
                return []
            if not self._wish.resume:
                self._folder.remove()
            with self.kept_if_it_fails():
                self._session, complete = hold(session, self._folder, self._wish.device, self._wish.channel)
        if not complete:
            self._say_how_to_go_on()
            return []
        _say("Fitting and judging ...")
        return self._folder.takes(self._session)

    @contextlib.contextmanager
    def kept_if_it_fails(self) -> Iterator[None]:
        """Say that the takes are not lost if what is done with them fails."""
        try:
            yield
        except BaseException:
            self._say_how_to_go_on()
            raise

    def finish(self, *, adopted: bool, outliers: bool = False) -> None:
        """Copy the recordings if they shall be kept and delete them, unless there is more to do with them.

        Args:
            adopted: else more takes may be added.
            outliers: whether a take does not sound like the others, and may be listened to.
        """
        if (outliers and self._wants_to_listen()) or (not adopted and self._wants_more()):
            return
        if self._wish.keep_recordings:
            takes = self._folder.takes(self._session)
            with self._copied_or_kept():
                manifest = copy_takes(takes, self._session.name, self._wish.keep_recordings)
            _say(f"The recordings and their manifest are kept: {manifest}")
        self._folder.remove()
        _say("The session's own recordings are deleted.")

    @contextlib.contextmanager
    def _copied_or_kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UsageError) as error:
            raise UsageError(
                f"the recordings cannot be copied ({error}): they are still in {self._folder.path}"
            ) from error

    def _wants_to_listen(self) -> bool:
        if not self._wants_to_keep("Keep the recordings on this device, to listen to them?"):
            return False
        _say("To record a take again, delete its file there first.")
        _say(f"Go on: {self._command(takes=None, replace=True)}")
        return True

    def _wants_more(self) -> bool:
        more = min(MOST_TAKES, self._session.takes + MORE_TAKES)
        if more == self._session.takes:
            return False
        if not self._wants_to_keep("More takes may help. Keep these on this device, to add to them later?"):
            return False
        _say(f"Add to them: {self._command(takes=more, replace=True)}")
        return True

    def _wants_to_keep(self, question: str) -> bool:
        try:
            wanted = typer.confirm(question, default=False, err=True)
        except typer.Abort:  # Ctrl-C keeps what is done
            _say("")
            wanted = True
        if wanted:
            _say(f"They are kept in {self._folder.path}")
        return wanted

    def _say_how_to_go_on(self) -> None:
        if not self._folder.exists():
            _say("Nothing was recorded.")
            return
        takes = len(self._folder.load().done)
        _say(f"{takes} {'take is' if takes == 1 else 'takes are'} kept in {self._folder.path}")
        _say(f"Go on: {self._command(takes=None, replace=self._wish.replace)}")

    def _command(self, *, takes: int | None, replace: bool) -> str:
        """Write the command that goes on with this session."""
        wish = self._wish
        words = ["mmtl", "calibrate", wish.name, "--resume"]
        words += ["--replace"] if replace else []
        words += ["--takes", str(takes)] if takes else []
        words += ["--device", wish.device] if wish.device else []
        words += ["--bundle", str(wish.bundle)] if wish.bundle else []
        words += ["--keep-recordings", str(wish.keep_recordings)] if wish.keep_recordings else []
        words += ["--picture", str(wish.picture)] if wish.picture else []
        words += ["--full", "--out", str(wish.full)] if wish.full else []
        return shlex.join(words)


def _begun(wish: SessionOptions, folder: SessionFolder) -> Session:
    language = wish.language or language_of_locale()
    sentences(language)
    if folder.exists() and not wish.replace:
        done = len(folder.load().done)
        raise UsageError(
            f"there is an unfinished session of {wish.name} with {done} takes: give --resume to go on with "
            "it, or --replace to discard it and begin anew"
        )
    return Session(wish.name, language, wish.takes or DEFAULT_TAKES)


def _resumed(wish: SessionOptions, folder: SessionFolder) -> Session:
    if not folder.exists():
        raise UsageError(f"there is no unfinished session of {wish.name}: leave --resume out to begin one")
    session = folder.load()
    if wish.language not in (None, session.language):
        raise UsageError(
            f"the unfinished session is in {session.language}, not {wish.language}: leave --language out, "
            "or give --replace instead of --resume to begin anew"
        )
    return replace(session, takes=wish.takes or session.takes)


def _say(message: str) -> None:
    typer.echo(message, err=True)
