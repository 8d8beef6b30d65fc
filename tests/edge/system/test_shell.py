"""Commands in messages can be pasted: a shell reads back the same words."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.system.shell import quoted

BASH = shutil.which("bash")

needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")


def read_back(word: str) -> bytes:
    """Return the word that a shell reads from the pasted text."""
    command = [str(BASH), "--norc", "-c", f"printf '%s\\0' {quoted(word)}"]
    return subprocess.run(command, capture_output=True, check=True).stdout.removesuffix(b"\0")


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("rec/clip.wav", "rec/clip.wav"),
        ("rec/New Recording 5.m4a", "'rec/New Recording 5.m4a'"),
        ("Jürgen", "'Jürgen'"),
        ("-x.wav", "./-x.wav"),
        ("a\nb", r"$'a\x0ab'"),
        ("it's \udcff\\", r"$'it\x27s \xff\x5c'"),
        ("", "''"),
    ],
)
def test_a_word_is_quoted_only_where_that_is_needed(word: str, written: str) -> None:
    assert quoted(word) == written


@needs_bash
@settings(max_examples=50)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_a_shell_reads_back_every_name_a_file_can_have(name: str) -> None:
    assert read_back(name) in (name.encode(), b"./" + name.encode())


@needs_bash
def test_a_name_that_is_no_text_is_read_back_byte_for_byte() -> None:
    name = bytes(range(1, 256)).replace(b"/", b"")
    assert read_back(os.fsdecode(name)) == name
