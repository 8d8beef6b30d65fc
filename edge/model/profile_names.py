"""Names of profiles: of people in any script, and safe as names of files."""

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
"""Bytes in UTF-8: a file's name has at most 255, of which our suffix and temporary names take some."""
PROFILE_SUFFIX: Final = ".safetensors"

_SPECIAL: Final = "._-"
_OF_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)
"""Names that Windows keeps for devices, or would shorten."""


def profile_name(text: str) -> str:
    """Return a name as it is kept: with composed characters (Unicode NFC), however it was typed.

    Letters with their marks and digits of all scripts, dots, dashes and underscores; the first is a letter,
    a digit or an underscore.

    Raises:
        ProfileError: it is something else, or too long.
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
    """Tell whether a normalised text could name a profile."""
    return (
        0 < len(name) <= LONGEST_NAME
        and all(character in _SPECIAL or _is_of_a_word(character) for character in name)
        and name[0] not in ".-"
        and not unicodedata.category(name[0]).startswith("M")
        and not name.lower().endswith(PROFILE_SUFFIX)
        and len(name.encode()) <= LONGEST_NAME_BYTES
    )


def is_portable(name: str) -> bool:
    """Tell whether every system can have a file of that name."""
    return not _OF_DEVICES.fullmatch(name)


def name_of(path: Path) -> str:
    """Return the name that a profile's file has, however the file system spells it."""
    return unicodedata.normalize("NFC", path.stem)


def _is_of_a_word(character: str) -> bool:
    """Tell whether it is a letter, a mark of one, or a digit."""
    return unicodedata.category(character)[0] in "LMN"
