"""A lock that allows one session of a name at a time: two would overwrite each other's takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge.errors import UsageError
from edge.model.profile import session_folder
from edge.system.files import is_same_file, try_lock


@contextlib.contextmanager
def session_lock(name: str) -> Iterator[None]:
    """Lock the sessions of a name; the lock file is deleted afterwards.

    The operating system releases the lock when the program ends for any reason.

    Raises:
        ProfileError: the name cannot name a profile.
        UsageError: a session of that name is running, or the folder cannot be written to.
    """
    folder = session_folder(name)
    path = folder.with_name(f".{folder.name}.lock")
    made = [above for above in path.parents if not above.exists()]
    descriptor = _locked(path, name)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for above in made:
            with contextlib.suppress(OSError):  # it is not empty
                above.rmdir()


def _locked(path: Path, name: str) -> int:
    """Open a file, lock it if the system has locks, and return its descriptor."""
    while True:
        descriptor = _opened(path)
        if try_lock(descriptor) is False:
            os.close(descriptor)
            raise UsageError(
                f"a session of {name} is already running, perhaps in another window",
                remedy="continue or end it there",
            )
        if is_same_file(path, descriptor):
            return descriptor
        os.close(descriptor)  # its last owner deleted it between our opening and locking it


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot write to {path.parent} ({error.strerror})", remedy="name another folder in XDG_DATA_HOME"
        ) from error
