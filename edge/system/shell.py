"""Quoting for commands in messages, so that they can be pasted into a shell."""

from __future__ import annotations

import os
import shlex


def quoted(word: object) -> str:
    """Quote a word for bash, zsh and dash; a leading dash is protected from being read as an option.

    Characters that are not printable, and bytes that are not text, are escaped as $'...' for bash and zsh.
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
