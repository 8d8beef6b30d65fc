"""Profiles on their way in, out and away: copied byte for byte and checked on both sides, or deleted."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edge.errors import ProfileError
from edge.model.bundle import Bundle
from edge.model.profile import (
    Profile,
    find_profile,
    profile_path,
    read_profile,
    require_fit,
    session_folder,
    writing,
)
from edge.model.profile_names import PROFILE_SUFFIX, name_of
from edge.system.files import leftovers_of
from edge.system.outputs import require_distinct_files, require_free


@dataclass(frozen=True)
class Deleted:
    """What there was of a name."""

    profile: bool
    recordings: bool
    """Of an unfinished calibration session."""


def export_profile(name: str, target: Path, *, overwrite: bool = False) -> Profile:
    """Copy a kept profile to a file of the user's, byte for byte, and read the copy back.

    Args:
        name: of the profile.
        target: the file.
        overwrite: whether there may be one already.

    Raises:
        ProfileError: there is no such profile, it is damaged, or the file cannot be written.
    """
    source = profile_path(name)
    find_profile(name)
    return _copy(source, target, overwrite=overwrite)


def import_profile(source: Path, bundle: Bundle, *, name: str = "", overwrite: bool = False) -> Profile:
    """Keep a copy of a file as a profile, byte for byte, and read the copy back.

    Refused for another bundle: it could never be applied, and its name would be taken.

    Args:
        source: the file.
        bundle: the model that it has to be for.
        name: of the profile; that of the file, if empty.
        overwrite: whether there may be one of that name already.

    Raises:
        ProfileError: the file is not such a profile, the name is none, or it cannot be written.
    """
    target = profile_path(name or source.name.removesuffix(PROFILE_SUFFIX))
    require_fit(replace(read_profile(source), name=name_of(target)), bundle)
    return _copy(source, target, overwrite=overwrite)


def delete_profile(name: str) -> Deleted:
    """Delete for good what is kept of a name: the profile, and an unfinished session's recordings.

    What a power loss in the middle of a write has left of the profile goes too.

    Raises:
        ProfileError: there is nothing of that name, or it cannot be deleted.
    """
    # A name only: never a path, which could be any file.
    path, recordings = profile_path(name), session_folder(name)
    files = [file for file in (path, *leftovers_of(path)) if os.path.lexists(file)]
    found = Deleted(bool(files), os.path.lexists(recordings))
    if not found.profile and not found.recordings:
        find_profile(name)  # says what there is
    if found.recordings:
        with _deleting(recordings):
            _remove(recordings)
    for file in files:
        with _deleting(file):
            _remove(file)
    return found


@contextlib.contextmanager
def _deleting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProfileError(
            f"cannot delete {path} ({error.strerror})", remedy="see that this user may write to its folder"
        ) from error


def _remove(path: Path) -> None:
    """Delete a file, or a folder and what is in it; of a link, only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy(source: Path, target: Path, *, overwrite: bool) -> Profile:
    """Copy a profile that is whole; put in place only once the copy was found whole too."""
    read_profile(source)
    require_distinct_files({"the copy": target}, [source])
    require_free(target, replace=overwrite)
    with writing(target) as partial:
        partial.write_bytes(source.read_bytes())
        return replace(read_profile(partial), name=name_of(target))
