"""The sentences to read aloud: everyday sentences that suit any emotion, in several languages.

There is one file per language in `calibrate/session/languages`, with one sentence per line; a line has
the same meaning in every language.
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
"""Used if the locale names no available language."""

MOST_TAKES: Final = 10
"""Of each emotion; the number of sentences in each language."""


def languages() -> tuple[str, ...]:
    """List the available languages by their two-letter codes (ISO 639-1)."""
    return tuple(sorted(path.stem for path in _folder().glob("*.txt")))


@functools.cache
def sentences(language: str) -> tuple[str, ...]:
    """Return the sentences of a language.

    Raises:
        UsageError: the language is not available.
    """
    if language not in languages():
        raise UsageError(
            f"there are no sentences in {language!r}",
            remedy=f"choose --language from {', '.join(languages())}",
        )
    return tuple((_folder() / f"{language}.txt").read_text(encoding="utf-8").splitlines())


def language_of_locale(environment: Mapping[str, str] = os.environ) -> str:
    """Choose a language by the locale variables, in the order of POSIX."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if locale := environment.get(variable):
            language = locale[:2].lower()
            return language if language in languages() else FALLBACK
    return FALLBACK


def _folder() -> Path:
    return Path(str(resources.files("calibrate"))) / "session" / "languages"
