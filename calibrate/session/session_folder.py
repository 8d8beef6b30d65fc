"""Storage of an unfinished session: a private folder with its takes, deleted when the profile is written."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from calibrate.session.sentences import MOST_TAKES, sentences
from calibrate.session.session import OrdinaryState, Prompt, RecordedTake, Session, emotion_of
from calibrate.takes import FEWEST_TAKES, Ratings, Take
from edge.arrays import SAMPLE_RATE, Array
from edge.errors import UsageError
from edge.labels import DIMENSIONS, EMOTIONS, dimension_class
from edge.model.profile import session_folder
from edge.system.files import atomic_write, remove_leftovers, require_writable
from edge.system.signals import interrupts_deferred

SESSION_VERSION: Final = 1

MANIFEST: Final = "manifest.csv"

ORDINARY: Final = "ordinary.wav"
"""The recording of ordinary speech."""

COLUMNS: Final = ("path", "emotion", *DIMENSIONS, "derived", "text", "speaker")
"""`derived` lists the dimensions that the speaker skipped; their cells are empty."""


class SessionFolder:
    """The stored session of one name. After each take the stored session is complete and consistent.

    Readable by its owner only (mode 0700). Nothing is written before the first take.
    """

    def __init__(self, name: str) -> None:
        """Choose the folder of a speaker.

        Raises:
            ProfileError: the name cannot name a profile.
        """
        self.name = name
        self.path = session_folder(name)

    def exists(self) -> bool:
        """Whether there is an unfinished session."""
        return self._record.is_file()

    def load(self) -> Session:
        """Read the session.

        Raises:
            UsageError: it is damaged, or was written by another version.
        """
        remove_leftovers(self.path)
        try:
            return self._parsed(json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise UsageError(
                f"the unfinished session in {self.path} is damaged or was written by another version",
                remedy="give --replace to discard it and start again",
            ) from error

    def save(self, session: Session) -> None:
        """Write the progress of the session atomically, if there is any that can be resumed.

        Raises:
            UsageError: the folder cannot be written to, or the disk is full.
        """
        begun = session.done or (session.takes and session.ordinary == "done")
        if not begun and not self.exists():
            return
        described = {
            "session_version": SESSION_VERSION,
            "language": session.language,
            "takes": session.takes,
            "done": {index: [take.text, *take.ratings] for index, take in session.done.items()},
            "skipped": sorted(session.skipped),
            "ordinary": session.ordinary,
        }
        _write(self._record, json.dumps(described, ensure_ascii=False).encode())

    def keep(self, session: Session, prompt: Prompt, sound: Array, ratings: Ratings) -> Session:
        """Write a take, then the progress.

        Args:
            session: without the take.
            prompt: of the take.
            sound: (N,) samples at 16 kHz.
            ratings: by the speaker.

        Raises:
            UsageError: the folder cannot be written to, or the disk is full.
        """
        self._make()
        _write(self._sound(prompt.index), _wav(sound))
        session = session.with_take(prompt, ratings)
        self.save(session)
        return session

    def keep_ordinary(self, session: Session, sound: Array) -> Session:
        """Write the recording of ordinary speech, then the progress.

        Args:
            session: without the recording.
            sound: (N,) samples at 16 kHz.

        Raises:
            UsageError: the folder cannot be written to, or the disk is full.
        """
        self._make()
        _write(self.path / ORDINARY, _wav(sound))
        session = session.with_ordinary("done")
        self.save(session)
        return session

    def ordinary(self, session: Session) -> Path | None:
        """Return the recording of ordinary speech; None if there is none."""
        return self.path / ORDINARY if session.ordinary == "done" else None

    def takes(self, session: Session) -> list[Take]:
        """List the takes that can be fitted on; their files hold exactly the recorded samples."""
        return [
            Take(
                self._sound(index),
                emotion_of(index),
                session.done[index].text,
                session.done[index].ratings,
            )
            for index in session.usable
        ]

    def remove(self) -> None:
        """Delete the recordings and the progress.

        Raises:
            UsageError: they cannot be deleted.
        """
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(
                f"cannot delete the recordings in {self.path} ({error.strerror or error})",
                remedy="delete that folder",
            ) from error

    @property
    def _record(self) -> Path:
        return self.path / "session.json"

    def _sound(self, index: int) -> Path:
        return self.path / f"{index:02d}-{EMOTIONS[emotion_of(index)]}.wav"

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write {self.path} ({error.strerror})", remedy="name another folder in XDG_DATA_HOME"
            ) from error

    def _parsed(self, described: dict[str, Any]) -> Session:
        takes = described["takes"]
        if described["session_version"] != SESSION_VERSION or not FEWEST_TAKES <= takes <= MOST_TAKES:
            raise ValueError
        done = {_index(index): _recorded(take) for index, take in described["done"].items()}
        present = {index: take for index, take in done.items() if self._sound(index).is_file()}
        skipped = frozenset(map(_index, described["skipped"]))
        sentences(described["language"])
        ordinary = described.get("ordinary", "none")
        if ordinary not in get_args(OrdinaryState):
            raise ValueError
        if ordinary == "done" and not (self.path / ORDINARY).is_file():
            ordinary = "open"
        return Session(self.name, described["language"], takes, present, skipped, ordinary)


def require_no_recordings(folder: Path) -> None:
    """Check that recordings can be kept in a folder, before any are made.

    Raises:
        UsageError: it holds the manifest or recordings of a session, or cannot be written to.
    """
    ours = re.compile(rf"{re.escape(MANIFEST)}|{re.escape(ORDINARY)}|[0-9]{{2}}-({'|'.join(EMOTIONS)})\.wav")
    if folder.is_dir() and any(ours.fullmatch(item.name) for item in folder.iterdir()):
        raise UsageError(
            f"{folder} holds recordings already",
            remedy="name an empty folder, or one that does not exist yet",
        )
    require_writable(folder, mode=0o700)


def copy_ordinary(recording: Path, folder: Path) -> Path:
    """Copy the recording of ordinary speech to a folder; return its path there."""
    with atomic_write(folder / ORDINARY, mode=0o600) as partial:
        shutil.copyfile(recording, partial)
    return folder / ORDINARY


def copy_takes(takes: Sequence[Take], speaker: str, folder: Path) -> Path:
    """Copy takes to a folder, with a manifest that `--from` reads; return its path."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(COLUMNS)
    for take in takes:
        with atomic_write(folder / take.path.name, mode=0o600) as partial:
            shutil.copyfile(take.path, partial)
        cells = ["" if rating is None else f"{rating:g}" for rating in take.ratings]
        derived = [name for name, rating in zip(DIMENSIONS, take.ratings, strict=True) if rating is None]
        table.writerow(
            [take.path.name, EMOTIONS[take.emotion], *cells, " ".join(derived), take.text, speaker]
        )
    with atomic_write(folder / MANIFEST, mode=0o600) as partial:
        partial.write_text(rows.getvalue(), encoding="utf-8")
    return folder / MANIFEST


def _index(text: str | int) -> int:
    index = int(text)
    if not 0 <= index < MOST_TAKES * len(EMOTIONS):
        raise ValueError
    return index


def _recorded(take: list[Any]) -> RecordedTake:
    text, valence, arousal, dominance = take
    for rating in (valence, arousal, dominance):
        if rating is not None:
            dimension_class(rating)
    return RecordedTake(str(text), (valence, arousal, dominance))


def _wav(sound: Array) -> bytes:
    import soundfile

    file = io.BytesIO()
    # Floats, so that the samples are read back unchanged.
    with interrupts_deferred():
        soundfile.write(file, sound, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, mode=0o600) as partial:
        partial.write_bytes(data)
