"""Which recordings the sources of a report name, and who speaks in them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unicodedata import normalize

from edge.audio.sources import demo_clip
from edge.errors import SourceError, UsageError
from edge.file_formats.manifest import manifest_rows, recording_path
from edge.system.files import is_file

SOUND_SUFFIXES: Final = frozenset(
    {
        *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd"),
        *(".caf", ".w64", ".rf64", ".nist", ".sph", ".voc", ".sf"),
        *(".m4a", ".aac", ".wma", ".amr", ".3gp", ".ape", ".wv"),
    }
)
"""Suffixes of the files of a folder that are taken for recordings. Those of the last row cannot be read:
such a file is reported, not left out."""
MANIFEST_SUFFIX: Final = ".csv"


@dataclass(frozen=True)
class Recording:
    """A sound file, and who speaks in it."""

    path: Path
    speaker: str = ""
    """Empty if nothing names the speaker."""

    @property
    def key(self) -> str:
        """The real path, which tells recordings apart."""
        return os.path.realpath(self.path)

    @property
    def size(self) -> int:
        """Bytes; 0 for a file that is missing."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def find_recordings(
    sources: Sequence[str], note: Callable[[str], None] = lambda line: None
) -> list[Recording]:
    """List the recordings that sources name, each once, in the order of the sources.

    Args:
        sources: each a folder (all sound files in it, by their suffix), a pattern such as
            `"calls/**/*.wav"`, a sound file, a manifest (.csv with the column path, and perhaps speaker), or
            "demo". Below a folder, or the part of a pattern without wildcards, the first subfolder names the
            speaker.
        note: takes a line about folders that cannot be entered.

    Raises:
        SourceError: a source names no recording.
        UsageError: a source is a microphone or a pipe, or a manifest is invalid.
    """
    found: dict[str, Recording] = {}
    for source in sources:
        recordings = list(_recordings_of(source, note))
        if not recordings:
            raise SourceError(f"{source} names no recording", remedy="name a folder with sound files in it")
        for recording in recordings:
            known = found.get(recording.key)
            if known is None or not known.speaker:
                found[recording.key] = recording
    return list(found.values())


def _recordings_of(source: str, note: Callable[[str], None]) -> Iterator[Recording]:
    path = Path(source)
    if source in {"", "-", "mic"} or source.startswith("mic:"):
        raise UsageError(
            f"{source or 'an empty name'} cannot be in a report",
            remedy="name folders, patterns or sound files",
        )
    if path.is_dir():
        yield from (Recording(file, _speaker(file, path)) for file in _files_below(path, note))
    elif is_file(path) and path.suffix.lower() == MANIFEST_SUFFIX:
        yield from _listed(path)
    elif source == "demo" and not path.exists():
        yield Recording(demo_clip())
    elif os.path.lexists(path):
        yield Recording(path)
    elif glob.has_magic(source):
        root = _fixed_part(path)
        for found in sorted(root.glob(str(path.relative_to(root)))):
            if not found.is_dir() and not found.name.startswith("."):
                yield Recording(found, _speaker(found, root))
    else:
        raise SourceError(f"{source} does not exist", remedy="name a folder, a pattern or a sound file")


def _files_below(folder: Path, note: Callable[[str], None]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        note(f"cannot enter {error.filename} ({error.strerror}): its recordings are left out")

    for where, folders, files in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SOUND_SUFFIXES:
                yield Path(where, name)


def _listed(manifest: Path) -> Iterator[Recording]:
    for _, row in manifest_rows(manifest, ["path"]):
        yield Recording(recording_path(row, manifest.parent), row.get("speaker", ""))


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above the first part of a pattern that has a wildcard."""
    parts = pattern.parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _speaker(file: Path, root: Path) -> str:
    """Return the name of the first folder below the root; empty for a file directly in the root."""
    folders = file.relative_to(root).parts[:-1]
    return normalize("NFC", os.fsencode(folders[0]).decode("utf-8", "replace")) if folders else ""
