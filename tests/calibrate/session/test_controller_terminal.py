"""The guided session end to end: a terminal, a virtual microphone, a synthetic voice, and keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from calibrate.session.sentences import sentences
from edge.labels import EMOTIONS
from edge.model.profile import Profile, read_profile
from tests.calibrate.session.pseudo_terminal import CHILD, HIDE, LEAVE, SHELL, SHOW, Terminal
from tests.cnn_lstm import CNN_LSTM
from tests.edge.audio.pulse import VirtualMicrophone

MANNERS = {
    "neutral": ("-v", "en+m1", "-p", "40", "-s", "180", "-a", "90"),
    "happy": ("-v", "en+f2", "-p", "99", "-s", "230", "-a", "120"),
    "sad": ("-v", "en+whisper", "-p", "0", "-s", "140", "-a", "60"),
    "angry": ("-v", "en+f5", "-p", "70", "-s", "280", "-a", "190"),
}
"""Voice, pitch, words per minute and loudness of espeak-ng for each emotion: easy to tell apart."""


class Speaker:
    """A user who calibrates `mmtl` to a synthetic voice."""

    def __init__(self, pulse: VirtualMicrophone, folder: Path) -> None:
        self._pulse = pulse
        self._folder = folder
        self.home = folder / "home"

    @contextmanager
    def calibrating(self, *options: str) -> Iterator[Terminal]:
        """Run `mmtl calibrate anna`, and end it in any case."""
        environment = {**self._pulse.environment, "XDG_DATA_HOME": str(self.home)}
        terminal = Terminal(["calibrate", "anna", "--bundle", str(CNN_LSTM), *options], environment)
        try:
            yield terminal
        finally:
            terminal.close()

    def says(self, terminal: Terminal, emotion: str, number: int, key: str = " ") -> None:
        """Press a key and say a sentence in the manner of an emotion; again if a busy machine lost a part."""
        path = self._folder / "said.wav"
        voice = ["espeak-ng", *MANNERS[emotion], "-w", str(path), sentences("en")[number]]
        subprocess.run(voice, check=True)
        offered = ""
        while offered != "Enter keep it":
            terminal.press(key)
            terminal.wait_for_one("Speak now", "● Recording")  # it may record the end of the playback
            self._pulse.play(path)
            key, offered = " ", terminal.wait_for_one("Enter keep it", "Space record again", "Press Space")

    def does(self, terminal: Terminal, number: int, emotion: str, ratings: str = "345") -> None:
        """Complete one prompt."""
        terminal.wait_for(emotion.upper(), sentences("en")[number], "Press Space")
        self.says(terminal, emotion, number)
        terminal.wait_for("Good: ", "Enter keep it")
        terminal.press("\r")
        for question, rating in enumerate(ratings, 1):
            terminal.wait_for(f"{question} of 3")
            terminal.press(rating)


def refuse_silence(terminal: Terminal) -> None:
    """Say nothing at the first prompt, and read the refusal."""
    terminal.wait_for("NEUTRAL", "Press Space")
    terminal.press(" ")
    terminal.wait_for("Speak now")
    terminal.press(" ")
    terminal.wait_for("Not usable. Nothing was heard", "Space record again")


def record_twice(terminal: Terminal, speaker: Speaker) -> None:
    """Say the first sentence, listen to it, say it again, and rate it."""
    speaker.says(terminal, "sad", 0)
    terminal.wait_for("Good: ", "r record again")
    terminal.press("p")
    terminal.wait_for("Playing ...")
    speaker.says(terminal, "neutral", 0, key="r")
    terminal.wait_for("Good: ", "Enter keep it")
    terminal.press("\r")
    for question in (1, 2, 3):
        terminal.wait_for(f"{question} of 3")
        terminal.press("3")


def calibrated_from(manifest: Path, folder: Path) -> Profile:
    """Calibrate on the kept recordings, and read the profile."""
    home = folder / "again"
    command = [
        sys.executable,
        "-c",
        "from edge.cli.main import main; main()",
        "calibrate",
        "anna",
        "--bundle",
        str(CNN_LSTM),
    ]
    subprocess.run(
        [*command, "--from", str(manifest)],
        env={**os.environ, "XDG_DATA_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    return read_profile(home / "mmtl" / "profiles" / "anna.safetensors")


@pytest.mark.mic
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_session_from_consent_to_verdict(pulse: VirtualMicrophone, tmp_path: Path) -> None:
    speaker = Speaker(pulse, tmp_path)
    unfinished = speaker.home / "mmtl" / "sessions" / "anna"
    profile = speaker.home / "mmtl" / "profiles" / "anna.safetensors"
    kept = tmp_path / "kept"
    picture = tmp_path / "anna.png"
    options = ("--device", "mic:default", "--keep-recordings", str(kept), "--picture", str(picture))

    with speaker.calibrating("--language", "en", "--takes", "2", *options) as terminal:
        terminal.wait_for("Nothing leaves this device", "mmtl profile delete anna", "agree? [y/N]")
        terminal.press("y\r")
        terminal.wait_for("Microphone check", "Enter continue")
        terminal.press("\r")
        refuse_silence(terminal)
        record_twice(terminal, speaker)
        speaker.does(terminal, 0, "happy", "4s5")
        terminal.wait_for("SAD", "2 of 8 done")
        terminal.press("\x03")
        terminal.wait_for("2 takes are kept", "mmtl calibrate anna --resume")
        assert terminal.leave() == 0
        assert terminal.after == terminal.before
    assert sorted(path.name for path in unfinished.glob("*.wav")) == ["00-neutral.wav", "01-happy.wav"]
    assert not profile.exists()

    with speaker.calibrating("--resume", "--yes", *options) as terminal:
        terminal.wait_for("Microphone check", "2 of 8 done")
        terminal.press("\r")
        for prompt in range(2, 8):
            speaker.does(terminal, prompt // 4, EMOTIONS[prompt % 4])
        terminal.wait_for("recognised", "recordings and their manifest are kept")
        terminal.wait_for("adopted", "mmtl monitor --profile anna", "recordings are deleted")
        assert terminal.leave() == 0
        assert terminal.after == terminal.before
    assert not unfinished.exists()
    found = read_profile(profile)
    assert found.verdict == "adopted"
    assert found.reference is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert found.report["takes"] == dict.fromkeys(EMOTIONS, 2)
    assert found.report["ratings"] == {"given": 23, "derived": 1}
    recalibrated = calibrated_from(kept / "manifest.csv", tmp_path)
    for name, tensor in found.head.tensors().items():
        np.testing.assert_array_equal(recalibrated.head.tensors()[name], tensor)


@contextmanager
def at_the_level(pulse: VirtualMicrophone, home: Path, program: str) -> Iterator[Terminal]:
    """Begin a session with a microphone that is silent."""
    environment = {**pulse.environment, "XDG_DATA_HOME": str(home)}
    arguments = [
        "calibrate",
        "anna",
        "--bundle",
        str(CNN_LSTM),
        "--yes",
        "--language",
        "en",
        "--device",
        "mic:default",
    ]
    terminal = Terminal(arguments, environment, program=program)
    try:
        terminal.wait_for("Microphone check", "Enter continue")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.mic
def test_ctrl_z_gives_the_shell_its_terminal_and_fg_goes_on(pulse: VirtualMicrophone, tmp_path: Path) -> None:
    with at_the_level(pulse, tmp_path, SHELL) as terminal:
        terminal.press("\x1a")
        terminal.wait_for("STOPPED as before")
        shown = terminal.written.partition("STOPPED")[0].rpartition(HIDE)[2]
        assert shown.count(LEAVE) == shown.count(SHOW) == 1
        terminal.goes_on()
        terminal.wait_for("Microphone check")
        terminal.press("\r")
        terminal.wait_for("NEUTRAL", "Press Space")
        terminal.press("\x03")
        assert terminal.leave() == 0
        terminal.wait_for("Nothing was recorded.")
        assert terminal.after == terminal.before


@pytest.mark.mic
def test_a_window_that_is_closed_ends_the_session(pulse: VirtualMicrophone, tmp_path: Path) -> None:
    with at_the_level(pulse, tmp_path, CHILD) as terminal:
        terminal.hang_up()
        assert terminal.leave() == 0


@pytest.mark.parametrize("size", [(80, 24), (20, 5)])
def test_without_agreement_nothing_is_recorded(tmp_path: Path, size: tuple[int, int]) -> None:
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    terminal = Terminal(
        ["calibrate", "anna", "--bundle", str(CNN_LSTM), "--language", "en"], environment, size
    )
    try:
        terminal.wait_for("agree? [y/N]")
        terminal.press("n\r")
        terminal.wait_for("Nothing was recorded.")
        assert terminal.leave() == 0
    finally:
        terminal.close()
    assert list(tmp_path.iterdir()) == []
