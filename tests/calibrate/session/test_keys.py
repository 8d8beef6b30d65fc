"""Keys from a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.session.keys import END, Keys, named


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The keyboard's end and the program's end of a terminal."""
    keyboard, program = pty.openpty()
    yield keyboard, program
    os.close(program)
    os.close(keyboard)


def test_keys_are_read_without_enter_and_without_waiting(terminal: tuple[int, int]) -> None:
    keyboard, program = terminal
    with Keys(program) as keys:
        assert keys.pressed() == []
        os.write(keyboard, b"s 3\r\x7f")
        assert keys.pressed() == ["s", "space", "3", "enter", "backspace"]
        assert keys.pressed() == []


def test_the_terminal_is_as_it_was_also_after_an_error(terminal: tuple[int, int]) -> None:
    _, program = terminal
    before = termios.tcgetattr(program)
    keys = Keys(program)
    with contextlib.suppress(KeyboardInterrupt), keys:
        assert termios.tcgetattr(program) != before
        raise KeyboardInterrupt
    assert termios.tcgetattr(program) == before


def test_nothing_typed_is_echoed_and_ctrl_c_and_ctrl_z_stay_signals(terminal: tuple[int, int]) -> None:
    _, program = terminal
    with Keys(program):
        mode = termios.tcgetattr(program)
        assert not mode[3] & (termios.ECHO | termios.ICANON)
        assert mode[3] & termios.ISIG
        assert mode[6][termios.VINTR] == b"\x03"
        assert mode[6][termios.VSUSP] == b"\x1a"


def test_a_character_that_arrives_in_two_parts_is_one_key(terminal: tuple[int, int]) -> None:
    keyboard, program = terminal
    first, second = "é".encode()[:1], "é".encode()[1:]
    with Keys(program) as keys:
        os.write(keyboard, first)
        assert keys.pressed() == []
        os.write(keyboard, second)
        assert keys.pressed() == ["é"]


def test_a_closed_terminal_is_read_as_the_end() -> None:
    keyboard, program = pty.openpty()
    keys = Keys(program)
    keys.__enter__()
    os.close(keyboard)
    assert keys.pressed() == [END]
    os.close(program)


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("\x1b[A", []),
        ("\x1bOP", []),
        ("\x1b[15;2~r", ["r"]),
        ("\x1b", ["escape"]),
        ("R", ["r"]),
        ("\n\x08", ["enter", "backspace"]),
    ],
)
def test_arrows_and_function_keys_are_left_out(typed: str, keys: list[str]) -> None:
    assert named(typed) == keys


@given(st.text(max_size=20))
def test_anything_may_be_typed(typed: str) -> None:
    assert all(named(typed))
