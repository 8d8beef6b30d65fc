"""What people are asked to say: everyday sentences that suit any emotion, in several languages.

One file a language in `calibrate/session/languages`, a sentence a line, of the same meaning in each.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from edge.errors import UsageError

FALLBACK: Final = "en"
"""Asked for where the locale names no language that there is."""

MOST_TAKES: Final = 10
"""Of each emotion: there are so many sentences in each language."""


def languages() -> tuple[str, ...]:
    """List the languages there are, by their two-letter codes (ISO 639-1)."""
    return tuple(sorted(path.stem for path in _folder().glob("*.txt")))


@functools.cache
def sentences(language: str) -> tuple[str, ...]:
    """Return the sentences of a language.

    Raises:
        UsageError: there are none in it.
    """
    if language not in languages():
        raise UsageError(
            f"there are no sentences in {language!r}: choose --language from {', '.join(languages())}"
        )
    return tuple((_folder() / f"{language}.txt").read_text(encoding="utf-8").splitlines())


def language_of_locale(environment: Mapping[str, str] = os.environ) -> str:
    """Choose a language by the variables that set the locale, as POSIX ranks them."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if locale := environment.get(variable):
            language = locale[:2].lower()
            return language if language in languages() else FALLBACK
    return FALLBACK


def _folder() -> Path:
    return Path(str(resources.files("calibrate"))) / "session" / "languages"
