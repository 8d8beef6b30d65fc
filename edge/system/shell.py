"""Words of commands that messages suggest, written so that they can be pasted into a shell."""

from __future__ import annotations

import os
import shlex


def quoted(word: object) -> str:
    """Return a word as bash, zsh and dash read it back; a file's name is never taken for an option.

    Characters that cannot be shown, and bytes that are no text, are escaped as bash and zsh understand it.
    """
    text = str(word)
    if text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    escaped = (c if c.isprintable() and c not in "\\'" else _hexadecimal(c) for c in text)
    return f"$'{''.join(escaped)}'"


def _hexadecimal(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
