"""Where this user's files are kept, by the conventions of the system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.errors import UsageError


def data_folder() -> Path:
    """Return the folder of what cannot be made again: profiles and recordings.

    Raises:
        UsageError: the user has no home folder.
    """
    from platformdirs import user_data_path

    return _found(user_data_path, "XDG_DATA_HOME")


def cache_folder() -> Path:
    """Return the folder of what can be made again: engines.

    Raises:
        UsageError: the user has no home folder.
    """
    from platformdirs import user_cache_path

    return _found(user_cache_path, "XDG_CACHE_HOME")


def _found(find: Callable[..., Path], variable: str) -> Path:
    try:
        # Some versions of platformdirs leave ~ in the path where nothing says what it stands for.
        return find("mmtl", appauthor=False).expanduser()
    except RuntimeError as error:
        raise UsageError(
            "this user has no home folder, where files could be kept", remedy=f"set HOME or {variable}"
        ) from error
