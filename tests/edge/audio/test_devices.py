from __future__ import annotations

import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from edge.audio.devices import InputDevice, find_same_input, input_devices, rescan_devices
from edge.audio.microphone import Microphone
from edge.cli import machine as machine_commands
from edge.output.text import printable
from tests.edge.audio.portaudio import FakeError, FakePortAudio, desk, device, error_of

ROOT = Path(__file__).parents[3]


# Which inputs there are


def test_inputs_are_listed_with_the_rates_that_really_open() -> None:
    portaudio = desk()
    portaudio.rates = (44_100, 48_000)
    assert input_devices(portaudio)[1] == InputDevice(
        index=2,
        name="USB Camera: Audio (hw:2,0)",
        host_api="ALSA",
        channels=2,
        default_rate=48_000,
        rates=(44_100, 48_000),
        default=False,
    )


def test_outputs_are_not_listed_and_one_input_is_the_default() -> None:
    portaudio = desk()
    portaudio.default = 3
    listed = input_devices(portaudio)
    assert [(entry.index, entry.default) for entry in listed] == [(0, False), (2, False), (3, True)]


def test_without_inputs_or_a_default_the_list_is_still_made() -> None:
    assert input_devices(FakePortAudio([], default=-1)) == []
    portaudio = desk()
    portaudio.default = -1
    assert not any(entry.default for entry in input_devices(portaudio))


def test_trying_rates_keeps_the_libraries_quiet_and_gives_the_terminal_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = (
        "import os, sys; from edge.system.standard_streams import native_stderr_silenced\n"
        "with native_stderr_silenced(): os.write(2, b'ALSA lib pcm.c: noise')\n"
        "os.write(2, b'diagnostics')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert capfd.readouterr().err == "diagnostics"


NAMES = (
    "mic [usb]",
    "mic [/usb]",
    "[bold]loud",
    ":microphone: emoji",
    "Mikrofon für 민수 🎤",
    "a name that is longer than most terminals are wide " * 3,
    "bell \a and escape \x1b[2J and\nbreak",
)


def test_every_name_is_shown_as_it_is_but_for_what_steers_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portaudio = FakePortAudio([device(index, name) for index, name in enumerate(NAMES)])
    monkeypatch.setitem(sys.modules, "sounddevice", portaudio)
    machine_commands.devices()
    shown = capsys.readouterr().out
    assert "".join(shown.split()).count("ALSA") == len(NAMES)
    for name in NAMES:
        assert all(word in shown for word in printable(name).split()), name
    assert not {"\x1b", "\a"} & set(shown)


def test_a_name_that_is_not_utf_8_hides_no_device() -> None:
    portaudio = desk()
    portaudio.devices[0] = device(0, b"mic \xff")
    assert [(item.index, item.name, item.default) for item in input_devices(portaudio)] == [
        (0, "mic \ufffd", True),
        (2, "USB Camera: Audio (hw:2,0)", False),
        (3, "HDA Intel PCH (hw:0,0)", False),
    ]


def test_real_names_are_listed_by_the_program(tmp_path: Path) -> None:
    if not find_library("portaudio"):
        pytest.skip("libportaudio2 is not installed")
    names = ["mic [usb]", "mic [/usb]", "[bold] tab\tbed", "민수 🎤"]
    lines = [f'pcm."{name}" {{ type null hint {{ show on description "x" }} }}\n'.encode() for name in names]
    lines.append(b'pcm."mic \xff\xfe" { type null hint { show on description "x" } }\n')
    (tmp_path / ".asoundrc").write_bytes(b"".join(lines))
    done = subprocess.run(
        [sys.executable, "-c", "from edge.cli.main import main; main()", "devices"],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in (*map(printable, names), "mic \ufffd\ufffd"):
        assert name in done.stdout


# Choosing


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (None, "USB Headset: Audio (hw:1,0)"),
        (2, "USB Camera: Audio (hw:2,0)"),
        ("2", "USB Camera: Audio (hw:2,0)"),
        ("intel pch", "HDA Intel PCH (hw:0,0)"),
        ("CAMERA", "USB Camera: Audio (hw:2,0)"),
    ],
)
def test_an_input_is_chosen_by_default_index_or_part_of_its_name(wanted: int | str | None, name: str) -> None:
    portaudio = desk()
    with Microphone(wanted, portaudio=portaudio) as microphone:
        assert microphone.name == name
        assert name == portaudio.devices[portaudio.streams[0].options["device"]]["name"]


def test_a_whole_name_wins_over_the_longer_ones_it_is_part_of() -> None:
    portaudio = FakePortAudio([device(0, "default:extra"), device(1, "default")])
    with Microphone("Default", portaudio=portaudio) as microphone:
        assert microphone.name == "default"


@pytest.mark.parametrize("wanted", ["bluetooth", "1", "17"])
def test_an_unknown_input_is_refused_with_the_list(wanted: str) -> None:
    message = error_of(Microphone(wanted, portaudio=desk()).__enter__)
    assert f"there is no input {wanted}: choose one with mic:INDEX from 0 (USB Headset" in message
    assert "3 (HDA Intel PCH (hw:0,0))" in message
    assert "HDMI" not in message


def test_an_ambiguous_name_is_refused_with_its_matches() -> None:
    message = error_of(Microphone("usb", portaudio=desk()).__enter__)
    assert "usb means several inputs" in message
    assert "0 (USB Headset" in message
    assert "2 (USB Camera" in message
    assert "Intel" not in message


def test_without_a_default_input_the_list_is_shown() -> None:
    portaudio = desk()
    portaudio.default = -1
    assert "no default input: choose one with mic:INDEX from 0 (" in error_of(
        Microphone(portaudio=portaudio).__enter__
    )


@pytest.mark.parametrize("wanted", [None, "usb"])
def test_without_any_input_it_says_what_to_check(wanted: str | None) -> None:
    portaudio = FakePortAudio([device(0, "HDMI", inputs=0)], default=-1)
    assert "arecord -l" in error_of(Microphone(wanted, portaudio=portaudio).__enter__)


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
        (None, "pip install sounddevice"),
    ],
)
def test_without_portaudio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, failure: OSError | None, remedy: str
) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise failure or ImportError(name)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert remedy in error_of(Microphone().__enter__)
    assert remedy in error_of(input_devices)


# Finding one again


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ("Headset (hw:1,0)", ["HDMI (hw:0,3)", "Headset (hw:1,0)"], 1),
        ("Headset (hw:1,0)", ["HDMI (hw:1,0)", "Headset (hw:2,0)"], 1),
        ("Headset (hw:1,0)", ["Headset (hw:0,0)", "Headset (hw:1,0)"], 1),
        ("Headset (hw:1,0)", ["Headset Pro (hw:1,0)", "HDMI (hw:0,3)"], None),
        ("default", ["pulse", "default"], 1),
    ],
)
def test_a_device_is_found_again_by_its_name_wherever_it_was_plugged_in(
    before: str, now: list[str], found: int | None
) -> None:
    portaudio = FakePortAudio([device(index, name) for index, name in enumerate(now)])
    again = find_same_input(portaudio, device(0, before))
    assert (again and again["index"]) == found


def test_of_two_of_the_same_name_the_one_that_differs_least_is_found() -> None:
    portaudio = FakePortAudio([device(0, "Headset", host=1), device(1, "Headset"), device(2, "Headset")])
    for index in (1, 2):
        again = find_same_input(portaudio, device(index, "Headset"))
        assert again
        assert again["index"] == index


def test_an_output_of_the_same_name_is_not_taken_for_it() -> None:
    assert find_same_input(FakePortAudio([device(0, "Headset", inputs=0)]), device(0, "Headset")) is None


def test_looking_again_starts_portaudio_anew() -> None:
    portaudio = desk()
    rescan_devices(portaudio)
    assert (portaudio.starts, portaudio.running) == (2, True)


def test_portaudio_that_did_not_start_is_started_the_next_time() -> None:
    def refuse(fake: FakePortAudio) -> None:
        if fake.starts == 2:
            raise FakeError("Unanticipated host error")

    portaudio = desk()
    portaudio.plan = refuse
    with pytest.raises(FakeError):
        rescan_devices(portaudio)
    rescan_devices(portaudio)
    assert portaudio.running
