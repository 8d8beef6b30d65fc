"""`mmtl doctor` as a person meets it: whatever is broken, all is looked at, and the exit code says what."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.audio.sources import demo_clip
from edge.diagnostics import checks, doctor, probes
from edge.diagnostics.checks import Check, DiagnosticContext, Verdict
from edge.diagnostics.doctor import AREAS, Area, Examined, described, examine, exit_code, lines
from edge.diagnostics.probes import Answer, SystemProbe
from edge.errors import EngineError, ModelError, SourceError, UsageError
from edge.model.manifest import ENCODER
from tests.command_line import exit_code_of
from tests.edge.audio.pulse import VirtualMicrophone, virtual_microphone

CARD = """
import random
import threading
import types

SOUND = lambda size: bytes(random.randrange(60) for _ in range(size))

class PortAudioError(Exception):
    pass

_libname = "libportaudio.so.2"
_entry = {"index": 0, "name": "USB", "hostapi": 0, "max_input_channels": 1, "default_samplerate": 48000.0}

def get_portaudio_version():
    return 1, "PortAudio V19.7.0"

def query_devices(device=0, kind=None):
    if device:
        raise PortAudioError
    return _entry

def query_hostapis(index):
    return {"name": "ALSA"}

def check_input_settings(*, device, channels, dtype, samplerate):
    if samplerate != 48000:
        raise PortAudioError

class RawInputStream:
    def __init__(self, *, samplerate, channels, callback, **options):
        check_input_settings(device=0, channels=channels, dtype="", samplerate=samplerate)
        self._callback, self._ended = callback, threading.Event()
        self._thread = threading.Thread(target=self._deliver)

    def start(self):
        self._thread.start()

    def close(self, ignore_errors=True):
        self._ended.set()
        self._thread.join()

    def _deliver(self):
        now = types.SimpleNamespace(inputBufferAdcTime=0.0)
        while not self._ended.wait(0.02):
            self._callback(SOUND(3840), 960, now, types.SimpleNamespace(input_overflow=False))
"""
"""Stands for sounddevice, and one card."""

MUTED = CARD.replace("bytes(random.randrange(60) for _ in range(size))", "bytes(size)")
MISSING = "raise OSError('PortAudio library not found')"


@dataclass(frozen=True)
class Broken(SystemProbe):
    """A machine on which every question ends in something that nobody thought of."""

    def run(self, program: str, *arguments: str) -> None:
        raise RuntimeError("nobody\nthought of this")

    def ask(self, question: str, *arguments: str) -> Answer:
        raise RecursionError


def examined(*verdicts: tuple[Area, Verdict]) -> list[Examined]:
    return [Examined(area, Check("check", verdict, "found")) for area, verdict in verdicts]


# The whole


def test_every_check_is_made_even_where_all_of_them_fail(tmp_path: Path) -> None:
    made = list(examine(DiagnosticContext(Broken(), tmp_path)))
    assert len(made) == sum(len(area.checks) for area in AREAS)
    failures = [item.check for item in made if item.check.found.startswith("the check failed")]
    assert len(failures) > 8
    assert all(check.verdict == "problem" and check.remedy for check in failures)
    assert not any("\n" in check.found for check in failures)


def test_a_check_has_the_name_of_its_function(tmp_path: Path) -> None:
    functions = [check for area in AREAS for check in area.checks]
    made = [item.check.name for item in examine(DiagnosticContext(SystemProbe(tmp_path, ""), tmp_path))]
    assert made == [check.__name__.replace("_", " ") for check in functions]
    assert len(set(made)) == len(made)


def test_a_check_that_fails_for_no_known_reason_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(_: DiagnosticContext) -> Check:
        raise ZeroDivisionError("of something")

    def second(_: DiagnosticContext) -> Check:
        return Check("second", "ok", "fine")

    monkeypatch.setattr(doctor, "AREAS", (Area("sound", SourceError, (first, second)),))
    made = [item.check for item in examine(DiagnosticContext(SystemProbe(), tmp_path))]
    assert made[0].found == "the check failed: ZeroDivisionError: of something"
    assert made[1].verdict == "ok"


SOUND, MODEL, ENGINE = (
    Area("sound", SourceError, ()),
    Area("model", ModelError, ()),
    Area("engine", EngineError, ()),
)


def test_ctrl_c_says_what_had_no_answer(tmp_path: Path) -> None:
    class Frozen(Broken):
        def ask(self, question: str, *arguments: str) -> Answer:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="stopped during the check of portaudio"):
        list(examine(DiagnosticContext(Frozen(), tmp_path)))


def test_a_check_that_cannot_be_made_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(context: DiagnosticContext) -> Check:
        raise UsageError("this user has no home folder", remedy="set HOME")

    monkeypatch.setattr(doctor, "AREAS", (Area("model", ModelError, (homeless,)),))
    (made,) = examine(DiagnosticContext(Broken(), tmp_path))
    assert made.check == Check("homeless", "problem", "this user has no home folder", "set HOME")


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ([], 0),
        ([(SOUND, "ok"), (MODEL, "note")], 0),
        ([(SOUND, "note"), (MODEL, "problem"), (ENGINE, "problem")], 4),
        ([(SOUND, "problem"), (ENGINE, "problem")], 3),
        ([(SOUND, "ok"), (ENGINE, "problem")], 5),
    ],
)
def test_the_exit_code_is_that_of_the_first_problem(made: list[tuple[Area, Verdict]], code: int) -> None:
    assert exit_code(examined(*made)) == code
    assert described(examined(*made))["exit_code"] == code


# How it reads


WORDS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=30).map(" ".join)


@given(found=WORDS, remedy=WORDS, width=st.integers(52, 120))
def test_no_line_is_wider_than_the_terminal(found: str, remedy: str, width: int) -> None:
    check = Check("profile folder", "problem", found, remedy, (found,))
    text = list(lines([Examined(SOUND, check)], width))
    assert all(len(line) <= width for line in text)
    assert all(line.isprintable() for line in text)


def test_a_path_is_never_broken() -> None:
    path = "/a-long-way" * 20
    text = list(lines([Examined(SOUND, Check("bundle", "ok", f"it lies in {path}"))], 80))
    assert any(path in line for line in text)


def test_verdicts_are_words_and_remedies_have_an_arrow() -> None:
    checks = [
        Check("portaudio", "ok", "V19"),
        Check("microphones", "note", "no default", "choose one", ("0 USB", "1 HDMI")),
        Check("sound group", "problem", "refused", "join it"),
    ]
    assert list(lines([Examined(SOUND, check) for check in checks], 80)) == [
        "sound",
        "  ok      portaudio       V19",
        "  note    microphones     no default",
        "                          - 0 USB",
        "                          - 1 HDMI",
        "                          -> choose one",
        "  PROBLEM sound group     refused",
        "                          -> join it",
        "1 problem and 1 note: the lines after -> say what to do",
    ]


def test_where_nothing_is_to_be_done_it_says_so() -> None:
    assert list(lines(examined((SOUND, "ok")), 80))[-1] == "no problems found"


def test_each_check_of_the_json_has_the_same_keys(tmp_path: Path) -> None:
    made = described(examine(DiagnosticContext(Broken(), tmp_path)))
    assert set(made) == {"v", "exit_code", "checks"}
    assert {tuple(check) for check in made["checks"]} == {
        ("area", "name", "verdict", "found", "remedy", "details")
    }


# The command


@pytest.fixture
def mmtl(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Run the command line on a machine without a GPU, whose sound is as a test wants it."""
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")  # nor is that of this machine taken
    monkeypatch.setattr(probes, "SystemProbe", functools.partial(SystemProbe, timeout_s=600.0))
    for name in ("LD_LIBRARY_PATH", "XDG_DATA_HOME", "STATE_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path))

    def run(*arguments: str, sound: str = CARD) -> tuple[int, str]:
        (tmp_path / "sounddevice.py").write_text(sound)
        monkeypatch.syspath_prepend(tmp_path)
        code = exit_code_of("doctor", *arguments)
        out, err = capfd.readouterr()
        assert err == ""
        return code, out

    return run


Mmtl = Callable[..., tuple[int, str]]


def verdicts(text: str) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(text)["checks"]}


def test_a_machine_without_a_gpu_lacks_nothing(mmtl: Mmtl) -> None:
    code, out = mmtl("--json")
    found = verdicts(out)
    assert [name for name, check in found.items() if check["verdict"] == "problem"] == []
    assert code == json.loads(out)["exit_code"] == 0
    assert found["microphones"]["details"] == ["0 USB (ALSA, 1 channel): 48000 Hz"]
    assert found["recording"]["found"] == "sound arrives from USB; the recording was discarded"
    assert found["provider"]["found"].startswith("auto selects cpu: there is no NVIDIA driver here")
    assert found["gpu"]["verdict"] == "note"


def test_a_muted_microphone_is_a_problem_with_a_remedy(mmtl: Mmtl) -> None:
    code, out = mmtl("--json", sound=MUTED)
    check = verdicts(out)["recording"]
    assert (code, check["verdict"], check["found"]) == (3, "problem", "USB is silent: only zeros arrive")
    assert check["remedy"].startswith("see that it is not muted")


def test_without_portaudio_there_is_a_line_and_code_3(mmtl: Mmtl) -> None:
    code, out = mmtl(sound=MISSING)
    assert code == 3
    assert "  PROBLEM portaudio       a microphone needs the PortAudio library" in out
    assert "-> apt install libportaudio2" in out
    assert out.splitlines()[-1].startswith("1 problem and ")


def test_a_damaged_bundle_is_code_4_and_the_rest_is_still_looked_at(mmtl: Mmtl, bundle_folder: Path) -> None:
    (bundle_folder / ENCODER).write_bytes(b"spoiled")
    code, out = mmtl(str(bundle_folder), "--json")
    found = verdicts(out)
    assert (code, found["bundle"]["verdict"]) == (4, "problem")
    assert found["provider"]["found"] == "not checked: the bundle cannot be used"
    assert found["onnxruntime"]["verdict"] == "ok"


def test_a_profile_that_is_not_there_is_code_4(mmtl: Mmtl) -> None:
    code, out = mmtl("--profile", "anna", "--json")
    assert (code, verdicts(out)["profile"]["remedy"]) == (4, "run mmtl calibrate anna")


def test_a_bundle_that_is_not_there_is_code_4(mmtl: Mmtl, tmp_path: Path) -> None:
    assert mmtl(str(tmp_path / "nowhere"))[0] == 4


# A real microphone


@pytest.fixture
def pulse(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualMicrophone]:
    """A PulseAudio null sink in the place of a microphone, for this process."""
    with virtual_microphone() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.mark.mic
def test_a_real_microphone_is_found_with_the_rates_that_open(
    pulse: VirtualMicrophone, tmp_path: Path
) -> None:
    context = DiagnosticContext(SystemProbe(timeout_s=600.0), tmp_path)
    sound = next(area for area in AREAS if area.name == "sound")
    portaudio, microphones, recording, _ = [check(context) for check in sound.checks]
    assert (portaudio.verdict, microphones.verdict) == ("ok", "ok")
    assert (recording.verdict, recording.found) == ("problem", "default is silent: only zeros arrive")
    with pulse.playing(demo_clip()):
        assert checks.recording(context).verdict == "ok"
    assert any("16000" in detail for detail in microphones.details)
