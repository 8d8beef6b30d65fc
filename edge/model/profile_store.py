"""Import, export and deletion of profiles. Copies are byte for byte, and read before and after."""

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
    """What was deleted of a name."""

    profile: bool
    recordings: bool
    """Of an unfinished calibration session."""


def export_profile(name: str, target: Path, *, overwrite: bool = False) -> Profile:
    """Copy a kept profile to a file, byte for byte, and read the copy back.

    Args:
        name: of the profile.
        target: the file.
        overwrite: replace an existing file.

    Raises:
        ProfileError: there is no such profile, it is damaged, or the file cannot be written.
    """
    source = profile_path(name)
    find_profile(name)
    return _copy(source, target, overwrite=overwrite)


def import_profile(source: Path, bundle: Bundle, *, name: str = "", overwrite: bool = False) -> Profile:
    """Keep a copy of a file as a profile, byte for byte, and read the copy back.

    A profile of another bundle is refused: it could not be applied, but would occupy its name.

    Args:
        source: the file.
        bundle: that the profile must be made for.
        name: of the profile; if empty, that of the file.
        overwrite: replace an existing profile of that name.

    Raises:
        ProfileError: the file is no profile of the bundle, the name is invalid, or it cannot be written.
    """
    target = profile_path(name or source.name.removesuffix(PROFILE_SUFFIX))
    require_fit(replace(read_profile(source), name=name_of(target)), bundle)
    return _copy(source, target, overwrite=overwrite)


def delete_profile(name: str) -> Deleted:
    """Delete the profile of a name, and the recordings of an unfinished session.

    Temporary files that an interrupted write of the profile left are deleted too.

    Raises:
        ProfileError: nothing is kept of that name, or it cannot be deleted.
    """
    # Only names are accepted: a path could be any file.
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
    """Delete a file, or a folder with its content; of a link, only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy(source: Path, target: Path, *, overwrite: bool) -> Profile:
    """Copy a valid profile; move the copy into place when it has been read back."""
    read_profile(source)
    require_distinct_files({"the copy": target}, [source])
    require_free(target, replace=overwrite)
    with writing(target) as partial:
        partial.write_bytes(source.read_bytes())
        return replace(read_profile(partial), name=name_of(target))
