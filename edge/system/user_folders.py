"""The user's data and cache folders, by the conventions of the system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.errors import UsageError


def data_folder() -> Path:
    """Return the folder for data that cannot be regenerated: profiles and recordings.

    Raises:
        UsageError: the user has no home folder.
    """
    from platformdirs import user_data_path

    return _user_folder(user_data_path, "XDG_DATA_HOME")


def cache_folder() -> Path:
    """Return the folder for data that can be rebuilt: engines.

    Raises:
        UsageError: the user has no home folder.
    """
    from platformdirs import user_cache_path

    return _user_folder(user_cache_path, "XDG_CACHE_HOME")


def _user_folder(find: Callable[..., Path], variable: str) -> Path:
    try:
        # Some versions of platformdirs leave ~ in the path if the home folder is unknown.
        return find("mmtl", appauthor=False).expanduser()
    except RuntimeError as error:
        raise UsageError(
            "this user has no home folder, where files could be kept", remedy=f"set HOME or {variable}"
        ) from error
