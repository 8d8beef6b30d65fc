"""Is the machine, its sound and the model fit to be used? One small function a check; none raises or hangs.

What only a GPU needs is checked in `edge.diagnostics.gpu_checks`; `edge.diagnostics.doctor` calls them all.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from edge.diagnostics.probes import Answer, SystemProbe, explained
from edge.errors import BundleError, ModelError, ProfileError, UsageError
from edge.gpu.plan import plan_folder
from edge.model.bundle import Bundle, load_bundle
from edge.model.profile import find_profile, kept_profiles, load_profile, profiles_folder, read_profile
from edge.model.profile_names import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Verdict = Literal["ok", "note", "problem"]
"""A note is worth knowing, but nothing fails for it; for a problem, something does that is expected here."""

OLDEST_JETSON_LINUX: Final = 36
"""JetPack 6's."""
_FEW_BYTES: Final = 100 * 2**20
_REMOVED: Final = "mmtl profile delete NAME, then mmtl calibrate NAME"


@dataclass(frozen=True)
class Check:
    """What was looked at, and what came of it."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do; where nothing is to be done, nothing."""
    details: tuple[str, ...] = ()
    """Each of several things that were found."""


@dataclass(frozen=True)
class DiagnosticContext:
    """Who is looked at: a machine, a model on it and perhaps a speaker. Asks each question once."""

    system: SystemProbe
    folder: Path
    """Of the bundle."""
    profile: str | None = None
    """Name or file of a speaker's profile that shall be applied."""

    @functools.cached_property
    def bundle(self) -> Bundle | BundleError:
        """The model, or why it is none."""
        try:
            return load_bundle(self.folder)
        except BundleError as error:
            return error
        except OSError as error:
            return BundleError(f"{self.folder} cannot be read ({error.strerror})", remedy="see who owns it")

    @functools.cached_property
    def sound(self) -> Answer:
        """PortAudio and its inputs."""
        return self.system.ask("sound")

    @functools.cached_property
    def driver(self) -> Answer:
        """The driver and its GPUs."""
        return self.system.ask("gpu")

    @functools.cached_property
    def engines(self) -> Answer:
        """TensorRT's version and file."""
        return self.system.ask("tensorrt")

    @functools.cached_property
    def jetson_linux(self) -> str:
        """A Jetson's Linux; "" where this is none."""
        return self.system.jetson_linux()

    @functools.cached_property
    def gpu_verdict(self) -> Verdict:
        """How bad it is if a GPU cannot be used: no problem where there is none."""
        here = "error" not in self.driver or self.jetson_linux or self.system.has_gpu_device()
        return "problem" if here else "note"


def failed(name: str, verdict: Verdict, answer: Answer, remedy: str = "") -> Check:
    """Return the check of a question that was answered with an error."""
    return Check(name, verdict, answer["error"], answer.get("remedy") or remedy)


def python(_: DiagnosticContext) -> Check:
    """Which Python, mmtl and system are these?"""
    try:
        mmtl = version("mmtl")
    except PackageNotFoundError:
        mmtl = "(not installed)"
    where = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Check("python", "ok", f"{platform.python_version()} ({sys.executable}), mmtl {mmtl}, {where}")


def jetpack(context: DiagnosticContext) -> Check:
    """Is this a Jetson, and of which JetPack?"""
    linux = context.jetson_linux
    if not linux:
        return Check("jetpack", "ok", "this is no Jetson")
    package = context.system.package_version("nvidia-jetpack")
    found = f"Jetson Linux {linux}, JetPack {package or 'unknown: there is no package nvidia-jetpack'}"
    major = linux.split(".")[0]
    if major.isdecimal() and int(major) < OLDEST_JETSON_LINUX:
        return Check("jetpack", "problem", found, "install JetPack 6 or newer: TensorRT 10.3 comes with it")
    return Check("jetpack", "ok" if package else "note", found, "" if package else _JETPACK)


_JETPACK: Final = "sudo apt install nvidia-jetpack, unless TensorRT and CUDA are there without it"


def power_mode(context: DiagnosticContext) -> Check:
    """In which power mode is a Jetson? Every latency depends on it."""
    said = context.system.run("nvpmodel", "-q")
    if said is None:
        verdict: Verdict = "note" if context.jetson_linux else "ok"
        return Check("power mode", verdict, "there is no nvpmodel, which Jetsons have")
    if mode := re.search(r"NV Power Mode:\s*(\S.*)", said.out):
        return Check("power mode", "ok", f"{mode[1].strip()}: write it down beside every latency")
    return Check("power mode", "note", "nvpmodel does not tell it to this user", "ask sudo nvpmodel -q")


def portaudio(context: DiagnosticContext) -> Check:
    """Is the library there that microphones need?"""
    found = context.sound
    if "error" in found:
        return failed("portaudio", "problem", found, "end what else uses the sound, and try again")
    return Check("portaudio", "ok", f"{found['version']} ({found['library']})")


def microphones(context: DiagnosticContext) -> Check:
    """Which inputs are there, and do they open?"""
    name = "microphones"
    if "error" in context.sound:
        return Check(name, "note", "not looked for: PortAudio cannot be used")
    inputs = context.sound["inputs"]
    listed = tuple(_described_input(item) for item in inputs)
    default = next((item for item in inputs if item["default"]), None)
    if not inputs:
        return Check(name, "problem", "there is none", _PLUG_IN)
    if not any(item["rates"] for item in inputs):
        return Check(name, "problem", "none of them opens at any rate", _BUSY, listed)
    if default is None:
        return Check(name, "note", "none of them is the default", "choose one with mic:NUMBER", listed)
    if not default["rates"]:
        remedy = f"choose another with mic:NUMBER, or {_BUSY}"
        return Check(name, "problem", "the default does not open at any rate", remedy, listed)
    return Check(name, "ok", f"{len(inputs)}, of which {default['index']} is the default", details=listed)


_PLUG_IN: Final = (
    "plug one in and see that arecord -l lists it; a file, a pipe and mmtl serve do without a microphone"
)
_BUSY: Final = "end what else uses it: sudo fuser -v /dev/snd/*"


def _described_input(item: Answer) -> str:
    channels = f"{item['channels']} channel{'s' if item['channels'] != 1 else ''}"
    rates = f"{' '.join(map(str, item['rates']))} Hz" if item["rates"] else "opens at no rate"
    return f"{item['index']} {item['name']} ({item['host_api']}, {channels}): {rates}"


def recording(context: DiagnosticContext) -> Check:
    """Does the default microphone deliver sound?"""
    name = "recording"
    inputs = context.sound.get("inputs", ())
    if not any(item["default"] and item["rates"] for item in inputs):
        return Check(name, "note", "not tried: no default microphone opens")
    found = context.system.ask("recording")
    if "error" in found:
        return failed(name, "problem", found, _BUSY)
    if found["silent"]:
        happened, _, remedy = found["silent"].partition(": ")
        return Check(name, "problem", f"{found['name']} is silent: {happened}", remedy)
    return Check(name, "ok", f"sound arrives from {found['name']}; nothing of it was kept")


def sound_group(context: DiagnosticContext) -> Check:
    """May this user record from the sound cards?"""
    name = "sound group"
    cards = sorted((context.system.root / "dev" / "snd").glob("pcm*c"))
    if not cards:
        return Check(name, "ok", "there is no card that only the group audio could use")
    refused = [card for card in cards if not os.access(card, os.R_OK | os.W_OK)]
    if not refused:
        return Check(name, "ok", "this user may use every sound card")
    said = f"this user may not use {', '.join(card.name for card in refused)} in {cards[0].parent}"
    return Check(name, "note", said, "sudo usermod -aG audio USER, then log out and in again")


def bundle(context: DiagnosticContext) -> Check:
    """Is the model whole?"""
    model = context.bundle
    if isinstance(model, BundleError):
        return failed("bundle", "problem", explained(model))
    licence = f"weights under {model.manifest.licence}"
    found = f"{model.manifest.name}, fingerprint {model.fingerprint[:12]}, {licence}, in {context.folder}"
    return Check("bundle", "ok", found)


def voice(context: DiagnosticContext) -> Check:
    """Is the network there that tells speech from noise?"""
    found = context.system.ask("voice")
    if "error" in found:
        return failed("voice", "problem", found, "install mmtl again")
    return Check("voice", "ok", "the network that tells speech from noise runs")


def profiles(context: DiagnosticContext) -> Check:
    """In which state are the profiles that are kept?"""
    try:
        states = {name_of(path): _state(path, context.bundle) for path in kept_profiles()}
    except ProfileError as error:
        return failed("profiles", "problem", explained(error))
    listed = tuple(f"{name}: {state}" for name, state in states.items())
    if "damaged" in states.values():
        return Check("profiles", "problem", "not all can be read", _REMOVED, listed)
    if "for another model" in states.values():
        remedy = "mmtl calibrate NAME again for those who use this model"
        return Check("profiles", "note", "not all are for this model", remedy, listed)
    return Check("profiles", "ok", f"{len(states)} kept" if states else "none yet", details=listed)


def _state(path: Path, model: Bundle | BundleError) -> str:
    try:
        profile = read_profile(path)
    except ProfileError:
        return "damaged"
    if isinstance(model, Bundle) and profile.bundle != model.fingerprint:
        return "for another model"
    return profile.verdict


def profile(context: DiagnosticContext) -> Check:
    """Can the speaker's profile that was named be applied?"""
    if context.profile is None:
        return Check("profile", "ok", "none was named (--profile NAME)")
    if isinstance(context.bundle, BundleError):
        return Check("profile", "note", "not looked at: the bundle cannot be used")
    try:
        found = load_profile(find_profile(context.profile), context.bundle)
    except ModelError as error:
        return failed("profile", "problem", explained(error))
    return Check("profile", "ok", f"{found.name}: {found.verdict}, for this model")


def profile_folder(_: DiagnosticContext) -> Check:
    """Can profiles be kept?"""
    return _folder("profile folder", profiles_folder(), "problem")


def engine_folder(context: DiagnosticContext) -> Check:
    """Can engines be kept?"""
    try:
        return _folder("engine folder", plan_folder(), context.gpu_verdict)
    except UsageError as error:
        return failed("engine folder", context.gpu_verdict, explained(error))


def _folder(name: str, folder: Path, verdict: Verdict) -> Check:
    """Is there room in a folder, or in the one that it would be made in, and may this user write there?"""
    there = next(path for path in _upwards(folder) if os.access(path, os.F_OK))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check(name, verdict, f"{folder} cannot be written by this user", f"see who owns {there}")
    free = shutil.disk_usage(there).free
    found = f"{folder}: {free / 2**30:.1f} GB free"
    return Check(name, "ok", found) if free >= _FEW_BYTES else Check(name, verdict, found, "make room there")


def _upwards(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.absolute().parents
