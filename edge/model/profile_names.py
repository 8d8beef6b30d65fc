"""Names of profiles: letters of any script, and safe as names of files."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Final

from edge.errors import ProfileError

LONGEST_NAME: Final = 64
"""Characters."""
LONGEST_NAME_BYTES: Final = 192
"""Bytes in UTF-8: the name of a file has at most 255, including the suffix and that of temporary files."""
PROFILE_SUFFIX: Final = ".safetensors"

_SPECIAL: Final = "._-"
_OF_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)
"""Names that Windows reserves for devices, or would shorten."""


def profile_name(text: str) -> str:
    """Return a name in its stored form: composed characters (Unicode NFC).

    Valid are letters with their marks and digits of all scripts, dots, dashes and underscores; the first
    must be a letter, a digit or an underscore.

    Raises:
        ProfileError: it has other characters, or is too long.
    """
    name = unicodedata.normalize("NFC", text)
    try:
        name.encode()  # fails on what the command line could not decode
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ProfileError(
            f"{text!r} cannot name a profile where text is in {sys.getfilesystemencoding()}",
            remedy="set a locale in UTF-8, for example LC_ALL=C.UTF-8",
        ) from error
    if not is_name(name):
        raise ProfileError(
            f"{text!r} cannot name a profile",
            remedy=f"use up to {LONGEST_NAME} letters, digits, dots, dashes and "
            f"underscores ({LONGEST_NAME_BYTES} bytes), the first a letter or a digit",
        )
    return name


def is_name(name: str) -> bool:
    """Return whether a normalised text can name a profile."""
    return (
        0 < len(name) <= LONGEST_NAME
        and all(character in _SPECIAL or _is_of_a_word(character) for character in name)
        and name[0] not in ".-"
        and not unicodedata.category(name[0]).startswith("M")
        and not name.lower().endswith(PROFILE_SUFFIX)
        and len(name.encode()) <= LONGEST_NAME_BYTES
    )


def is_portable(name: str) -> bool:
    """Return whether every system can have a file of that name."""
    return not _OF_DEVICES.fullmatch(name)


def name_of(path: Path) -> str:
    """Return the name of a profile's file in composed characters."""
    return unicodedata.normalize("NFC", path.stem)


def _is_of_a_word(character: str) -> bool:
    """Return whether it is a letter, a mark or a digit."""
    return unicodedata.category(character)[0] in "LMN"
