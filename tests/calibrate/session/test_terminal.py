"""The guided session at a terminal: the choice of a microphone, and unsuitable terminals."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import calibrate.session.terminal
from calibrate.session.controller import Ending, SessionController
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.terminal import choose_microphone, require_terminal, run_session
from edge.audio.block import Source
from edge.audio.devices import InputDevice
from edge.errors import UsageError


class Screen(io.StringIO):
    """Looks like a terminal."""

    def isatty(self) -> bool:
        return True


def microphone(index: int, *, default: bool = False, rates: tuple[int, ...] = (48_000,)) -> InputDevice:
    return InputDevice(index, f"USB {index}", "ALSA", 1, 48_000, rates, default)


def plug_in(monkeypatch: pytest.MonkeyPatch, *inputs: InputDevice, typed: str = "") -> None:
    monkeypatch.setattr(calibrate.session.terminal, "input_devices", lambda: list(inputs))
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))


def test_the_only_microphone_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, microphone(3), microphone(4, rates=()))
    assert choose_microphone() == "mic:3"


def test_without_a_microphone_the_source_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    assert choose_microphone() == "mic"


@pytest.mark.parametrize(("typed", "chosen"), [("\n", "mic:7"), ("2\n", "mic:2"), ("USB\n9\n2\n", "mic:2")])
def test_of_several_one_is_chosen_by_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, chosen: str
) -> None:
    plug_in(monkeypatch, microphone(2), microphone(7, default=True), typed=typed)
    assert choose_microphone() == chosen
    said = capsys.readouterr()
    assert "*   7  USB 7" in said.err
    assert ("choose one of 2, 7" in said.err) is ("9" in typed)


def test_another_microphone_goes_on_with_the_same_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    plug_in(monkeypatch, microphone(2), microphone(7), typed="7\n")
    names = []

    def converse(controller: SessionController, source: Source) -> None:
        names.append(source.name)
        controller.session = controller.session.without(controller.prompt)
        controller.ending = Ending.OTHER_DEVICE if len(names) == 1 else None

    monkeypatch.setattr(calibrate.session.terminal, "_run_loop", converse)
    session, complete = run_session(Session("anna", "en", 2), SessionFolder("anna"), "mic:2")
    assert names == ["mic:2", "mic:7"]
    assert session.skipped == {0, 1}
    assert not complete


@pytest.mark.parametrize(
    ("term", "streams", "said"),
    [
        ("xterm", (io.StringIO(), Screen()), "needs a terminal, but input or output is redirected"),
        ("xterm", (Screen(), io.StringIO()), "needs a terminal, but input or output is redirected"),
        ("xterm", (None, Screen()), "needs a terminal, but input or output is redirected"),
        ("dumb", (Screen(), Screen()), "TERM is dumb"),
    ],
)
def test_redirected_streams_are_refused_with_an_alternative(
    monkeypatch: pytest.MonkeyPatch, term: str, streams: tuple[io.StringIO | None, io.StringIO], said: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdin", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(UsageError, match=f"{said}.*--from MANIFEST.csv"):
        require_terminal()


def test_a_terminal_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdin", Screen())
    monkeypatch.setattr(sys, "stderr", Screen())
    require_terminal()
