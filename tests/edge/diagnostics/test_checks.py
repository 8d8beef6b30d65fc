"""Each thing that can be wrong with sound, model or machine is told from the others, and has its remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edge.audio.dead_input import REMEDIES, STUCK, ZEROS
from edge.diagnostics import checks
from edge.diagnostics.checks import DiagnosticContext
from edge.diagnostics.probes import Answer, SystemProbe
from edge.model import profile as profile_module
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import ENCODER
from edge.model.profile import Profile, profile_path, save_profile
from tests.cnn_lstm import CNN_LSTM

ORIN = "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic\n"
XAVIER = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\n"


@dataclass(frozen=True)
class Told(SystemProbe):
    """A machine that answers what a test tells it to, and that nothing else is there."""

    answers: dict[str, Answer] = field(default_factory=dict)

    def ask(self, question: str, *arguments: str) -> Answer:
        return self.answers.get(question, {"error": f"no {question}"})


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., DiagnosticContext]:
    """Make a machine with these answers."""

    def make(folder: Path | None = None, profile: str | None = None, **answers: Any) -> DiagnosticContext:
        probe = Told(tmp_path / "root", str(tmp_path / "bin"), answers=answers)
        return DiagnosticContext(probe, folder or CNN_LSTM, profile)

    return make


MakeContext = Callable[..., DiagnosticContext]


def jetson(tmp_path: Path, release: str = ORIN, jetpack: str = "6.2.1+b38", mode: str = "") -> None:
    """Give the machine what a Jetson has."""
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "nv_tegra_release").write_text(release)
    program(tmp_path, "dpkg-query", f"for last; do :; done\n[ $last = nvidia-jetpack ] && printf '{jetpack}'")
    if mode:
        program(tmp_path, "nvpmodel", mode)


def program(tmp_path: Path, name: str, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / name).chmod(0o755)


# Machine


def test_python_and_mmtl_are_named(make_context: MakeContext) -> None:
    found = checks.python(make_context()).found
    assert "3." in found
    assert "mmtl " in found


def test_what_is_no_jetson_needs_nothing_of_one(make_context: MakeContext) -> None:
    assert checks.jetpack(make_context()).verdict == "ok"
    assert checks.power_mode(make_context()).verdict == "ok"


def test_a_jetson_is_described(make_context: MakeContext, tmp_path: Path) -> None:
    jetson(tmp_path, mode="printf 'NV Power Mode: MAXN_SUPER\\n2\\n'")
    found = checks.jetpack(make_context())
    assert (found.verdict, found.found) == ("ok", "Jetson Linux 36.4.4, JetPack 6.2.1+b38")
    assert checks.power_mode(make_context()).found.startswith("MAXN_SUPER: state it with")


def test_a_jetpack_that_is_too_old_or_incomplete_is_told(make_context: MakeContext, tmp_path: Path) -> None:
    jetson(tmp_path, XAVIER)
    assert checks.jetpack(make_context()).verdict == "problem"
    (tmp_path / "bin" / "dpkg-query").unlink()
    (tmp_path / "root" / "etc" / "nv_tegra_release").write_text(ORIN)
    incomplete = checks.jetpack(make_context())
    assert incomplete.verdict == "note"
    assert "apt install nvidia-jetpack" in incomplete.remedy


@pytest.mark.parametrize("script", ["exit 1", "echo NVPM ERROR >&2; exit 4", "sleep 600"])
def test_a_power_mode_that_is_not_told_is_a_note(
    make_context: MakeContext, tmp_path: Path, script: str
) -> None:
    jetson(tmp_path, mode=script)
    hasty = replace(make_context(), probe=Told(tmp_path / "root", f"{tmp_path}/bin:/bin", timeout_s=0.2))
    found = checks.power_mode(hasty)
    assert (found.verdict, found.remedy) == ("note", "run sudo nvpmodel -q")


def test_a_jetson_without_nvpmodel_is_a_note(make_context: MakeContext, tmp_path: Path) -> None:
    jetson(tmp_path)
    assert checks.power_mode(make_context()).verdict == "note"


# Sound


def device(index: int, *, default: bool = False, rates: tuple[int, ...] = (16_000, 48_000)) -> Answer:
    return {
        "index": index,
        "name": f"USB {index}",
        "host_api": "ALSA",
        "channels": 1 + index,
        "default": default,
        "rates": list(rates),
    }


def sound(*inputs: Answer) -> Answer:
    return {"version": "PortAudio V19.7.0", "library": "libportaudio.so.2", "inputs": list(inputs)}


def test_portaudio_that_is_missing_is_one_problem_not_two(make_context: MakeContext) -> None:
    without = make_context(sound={"error": "PortAudio is missing", "remedy": "apt install libportaudio2"})
    found = checks.portaudio(without)
    assert (found.verdict, found.remedy) == ("problem", "apt install libportaudio2")
    assert checks.microphones(without).verdict == "note"


def test_each_microphone_is_listed_with_what_opens(make_context: MakeContext) -> None:
    there = make_context(sound=sound(device(0, default=True), device(1, rates=())))
    assert "V19.7.0" in checks.portaudio(there).found
    found = checks.microphones(there)
    assert (found.verdict, found.found) == ("ok", "2 found, of which 0 is the default")
    assert found.details == (
        "0 USB 0 (ALSA, 1 channel): 16000 48000 Hz",
        "1 USB 1 (ALSA, 2 channels): opens at no rate",
    )


@pytest.mark.parametrize(
    ("inputs", "verdict", "found", "remedy"),
    [
        ([], "problem", "no microphone found", "arecord -l"),
        ([device(0)], "note", "no microphone is the default", "mic:NUMBER"),
        ([device(0, rates=())], "problem", "no microphone opens", "fuser"),
        (
            [device(0), device(1, default=True, rates=())],
            "problem",
            "the default microphone does not open",
            "mic:NUMBER",
        ),
    ],
)
def test_what_is_wrong_with_the_microphones_is_told(
    make_context: MakeContext, inputs: list[Answer], verdict: str, found: str, remedy: str
) -> None:
    check = checks.microphones(make_context(sound=sound(*inputs)))
    assert check.verdict == verdict
    assert found in check.found
    assert remedy in check.remedy


def silent(reason: str) -> Answer:
    return {"name": "USB 0", "silent": reason, "remedy": REMEDIES[reason]}


@pytest.mark.parametrize(
    ("answer", "verdict", "found", "remedy"),
    [
        ({"name": "USB 0", "silent": ""}, "ok", "sound arrives from USB 0", ""),
        (silent(ZEROS), "problem", "USB 0 is silent: only zeros arrive", "not muted"),
        (silent(STUCK), "problem", "USB 0 is silent: one constant value", "plug it in"),
        ({"error": "it does not open", "remedy": "close it"}, "problem", "it does not open", "close it"),
        ({"error": "no answer within 30 s"}, "problem", "no answer", "fuser"),
    ],
)
def test_what_the_default_microphone_delivers_is_told(
    make_context: MakeContext, answer: Answer, verdict: str, found: str, remedy: str
) -> None:
    check = checks.recording(make_context(sound=sound(device(0, default=True)), recording=answer))
    assert check.verdict == verdict
    assert found in check.found
    assert remedy in check.remedy


@pytest.mark.parametrize("inputs", [[], [device(0)], [device(0, default=True, rates=())]])
def test_nothing_is_recorded_where_no_default_microphone_opens(
    make_context: MakeContext, inputs: list[Answer]
) -> None:
    check = checks.recording(make_context(sound=sound(*inputs), recording={"error": "asked for nothing"}))
    assert (check.verdict, check.found) == ("note", "not checked: no default microphone opens")


def test_a_user_who_may_not_use_the_cards_is_told_the_group(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.sound_group(make_context()).verdict == "ok"
    cards = tmp_path / "root" / "dev" / "snd"
    cards.mkdir(parents=True)
    (cards / "pcmC1D0c").touch()
    (cards / "pcmC0D0p").touch()
    assert checks.sound_group(make_context()).found == "this user may use every sound card"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused = checks.sound_group(make_context())
    assert refused.verdict == "note"
    assert "pcmC1D0c" in refused.found
    assert "pcmC0D0p" not in refused.found
    assert "usermod -aG audio" in refused.remedy


# Model


def test_a_whole_bundle_is_named_with_its_licence(make_context: MakeContext) -> None:
    found = checks.bundle(make_context())
    model = load_bundle(CNN_LSTM)
    assert found.verdict == "ok"
    assert f"fingerprint {model.fingerprint[:12]}, weights under {model.manifest.licence}" in found.found


def test_a_damaged_bundle_is_a_problem_with_its_remedy(
    make_context: MakeContext, bundle_folder: Path
) -> None:
    (bundle_folder / ENCODER).write_bytes(b"not what was exported")
    found = checks.bundle(make_context(bundle_folder))
    assert found.verdict == "problem"
    assert f"{ENCODER} in the bundle {bundle_folder} is not what was exported" in found.found
    assert found.remedy == "copy it again or export it again"


def test_a_bundle_that_cannot_be_read_is_a_problem(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> Bundle:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "load_bundle", refuse)
    found = checks.bundle(make_context())
    assert (found.verdict, found.remedy) == ("problem", "check its owner and permissions")


def test_the_voice_network_that_ships_runs_and_a_missing_one_is_a_problem(make_context: MakeContext) -> None:
    assert checks.voice(replace(make_context(), probe=SystemProbe(timeout_s=600.0))).verdict == "ok"
    missing = checks.voice(make_context(voice={"error": "it is missing", "remedy": "pip install it"}))
    assert (missing.verdict, missing.remedy) == ("problem", "pip install it")


@pytest.fixture
def keep(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Keep a profile for the shipped model, in a folder of this test's own."""
    folder = tmp_path / "profiles"
    monkeypatch.setattr(profile_module, "profiles_folder", lambda: folder)
    monkeypatch.setattr(checks, "profiles_folder", lambda: folder)
    model = load_bundle(CNN_LSTM)
    made = Profile(
        "", model.fingerprint, bundle.head, bundle.manifest.levels, bundle.statistics, verdict="adopted"
    )

    def save(name: str, **changed: Any) -> Path:
        save_profile(profile_path(name), replace(made, name=name, **changed))
        return profile_path(name)

    return save


def test_kept_profiles_are_listed_with_their_state(
    make_context: MakeContext, keep: Callable[..., Path]
) -> None:
    assert checks.profiles(make_context()).found == "none yet"
    keep("anna")
    keep("bob", verdict="rejected")
    found = checks.profiles(make_context())
    assert (found.verdict, found.found) == ("ok", "2 kept")
    assert found.details == ("anna: adopted", "bob: rejected")


def test_profiles_for_another_model_are_a_note_and_damaged_ones_a_problem(
    make_context: MakeContext, keep: Callable[..., Path]
) -> None:
    keep("anna", bundle="0" * 64)
    other = checks.profiles(make_context())
    assert (other.verdict, other.details) == ("note", ("anna: for another model",))
    keep("eve").write_bytes(b"spoiled")
    damaged = checks.profiles(make_context())
    assert (damaged.verdict, damaged.details) == ("problem", ("anna: for another model", "eve: damaged"))
    assert "mmtl profile delete" in damaged.remedy


def test_profiles_that_another_user_keeps_are_a_problem_with_a_remedy(
    make_context: MakeContext, keep: Callable[..., Path]
) -> None:
    keep("anna").parent.rename(keep("anna").parent.with_name("moved"))
    profile_module.profiles_folder().write_text("a file is in the way")
    found = checks.profiles(make_context())
    assert (found.verdict, found.remedy) == ("problem", "see that it is a folder of this user's")


def test_the_profile_that_was_named_must_fit(
    make_context: MakeContext, keep: Callable[..., Path], bundle_folder: Path
) -> None:
    keep("anna")
    keep("bob", verdict="rejected")
    assert checks.profile(make_context()).verdict == "ok"
    assert checks.profile(make_context(profile="anna")).found == "anna: adopted, for this model"
    assert "was rejected" in checks.profile(make_context(profile="bob")).found
    unknown = checks.profile(make_context(profile="carl"))
    assert (unknown.verdict, unknown.remedy) == ("problem", "run mmtl calibrate carl")
    (bundle_folder / ENCODER).unlink()
    assert checks.profile(make_context(bundle_folder, profile="anna")).verdict == "note"


def test_a_folder_that_is_yet_to_be_made_is_judged_by_the_one_above(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "not" / "yet"))
    assert checks.engine_folder(make_context()).verdict == "ok"
    (tmp_path / "not").write_text("a file in the way")
    refused = checks.engine_folder(make_context(gpu={"gpus": []}))
    assert (refused.verdict, refused.remedy) == (
        "problem",
        f"check the owner and permissions of {tmp_path / 'not'}",
    )


def test_no_room_for_engines_is_a_problem_only_where_there_is_a_gpu(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Callable[..., Path]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    assert checks.engine_folder(make_context()).verdict == "note"
    assert checks.engine_folder(make_context(gpu={"gpus": []})).verdict == "problem"
    full = checks.profile_folder(make_context())
    assert (full.verdict, full.remedy) == ("problem", "free some space there")
