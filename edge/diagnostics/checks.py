"""Checks of the machine, its sound and the model, one function each; none raises or hangs.

Checks of the GPU are in `edge.diagnostics.gpu_checks`; `edge.diagnostics.doctor` runs them all.
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
"""`problem`: a required feature fails. `note`: informational."""

OLDEST_JETSON_LINUX: Final = 36
"""JetPack 6's."""
_FEW_BYTES: Final = 100 * 2**20
_REMOVED: Final = "mmtl profile delete NAME, then mmtl calibrate NAME"


@dataclass(frozen=True)
class Check:
    """The result of a check."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do; empty if there is nothing to do."""
    details: tuple[str, ...] = ()
    """One line for each of several things found."""


@dataclass(frozen=True)
class DiagnosticContext:
    """The subject of the checks: a machine, a model and perhaps a speaker's profile. Caches each answer."""

    probe: SystemProbe
    folder: Path
    """Folder of the bundle."""
    profile: str | None = None
    """Name or file of the speaker's profile to check."""

    @functools.cached_property
    def bundle(self) -> Bundle | BundleError:
        """The model, or why it cannot be loaded."""
        try:
            return load_bundle(self.folder)
        except BundleError as error:
            return error
        except OSError as error:
            return BundleError(
                f"{self.folder} cannot be read ({error.strerror})", remedy="check its owner and permissions"
            )

    @functools.cached_property
    def sound(self) -> Answer:
        """PortAudio and its inputs."""
        return self.probe.ask("sound")

    @functools.cached_property
    def driver(self) -> Answer:
        """The driver and its GPUs."""
        return self.probe.ask("gpu")

    @functools.cached_property
    def engines(self) -> Answer:
        """TensorRT's version and file."""
        return self.probe.ask("tensorrt")

    @functools.cached_property
    def jetson_linux(self) -> str:
        """Version of Jetson Linux; "" if this is not a Jetson."""
        return self.probe.jetson_linux()

    @functools.cached_property
    def gpu_verdict(self) -> Verdict:
        """Verdict on an unusable GPU: a problem only if the machine has one."""
        here = "error" not in self.driver or self.jetson_linux or self.probe.has_gpu_device()
        return "problem" if here else "note"


def failed(name: str, verdict: Verdict, answer: Answer, remedy: str = "") -> Check:
    """Return the check of an answer that is an error."""
    return Check(name, verdict, answer["error"], answer.get("remedy") or remedy)


def python(_: DiagnosticContext) -> Check:
    """Report the versions of Python, mmtl and the system."""
    try:
        mmtl = version("mmtl")
    except PackageNotFoundError:
        mmtl = "(not installed)"
    where = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Check("python", "ok", f"{platform.python_version()} ({sys.executable}), mmtl {mmtl}, {where}")


def jetpack(context: DiagnosticContext) -> Check:
    """Check the JetPack version of a Jetson."""
    linux = context.jetson_linux
    if not linux:
        return Check("jetpack", "ok", "this is not a Jetson")
    package = context.probe.package_version("nvidia-jetpack")
    found = (
        f"Jetson Linux {linux}, JetPack {package or 'unknown: the package nvidia-jetpack is not installed'}"
    )
    major = linux.split(".")[0]
    if major.isdecimal() and int(major) < OLDEST_JETSON_LINUX:
        return Check("jetpack", "problem", found, "install JetPack 6 or newer: TensorRT 10.3 comes with it")
    return Check("jetpack", "ok" if package else "note", found, "" if package else _JETPACK)


_JETPACK: Final = "sudo apt install nvidia-jetpack, unless TensorRT and CUDA are already installed"


def power_mode(context: DiagnosticContext) -> Check:
    """Report the power mode of a Jetson, on which every latency depends."""
    said = context.probe.run("nvpmodel", "-q")
    if said is None:
        verdict: Verdict = "note" if context.jetson_linux else "ok"
        return Check("power mode", verdict, "nvpmodel is not installed; only Jetsons have it")
    if mode := re.search(r"NV Power Mode:\s*(\S.*)", said.out):
        return Check("power mode", "ok", f"{mode[1].strip()}: state it with every latency you report")
    return Check("power mode", "note", "this user cannot read it from nvpmodel", "run sudo nvpmodel -q")


def portaudio(context: DiagnosticContext) -> Check:
    """Check that PortAudio loads, which microphones need."""
    found = context.sound
    if "error" in found:
        return failed(
            "portaudio", "problem", found, "close other programs that use the sound device, and try again"
        )
    return Check("portaudio", "ok", f"{found['version']} ({found['library']})")


def microphones(context: DiagnosticContext) -> Check:
    """List the inputs, and check that they open."""
    name = "microphones"
    if "error" in context.sound:
        return Check(name, "note", "not checked: PortAudio cannot be used")
    inputs = context.sound["inputs"]
    listed = tuple(_described_input(item) for item in inputs)
    default = next((item for item in inputs if item["default"]), None)
    if not inputs:
        return Check(name, "problem", "no microphone found", _PLUG_IN)
    if not any(item["rates"] for item in inputs):
        return Check(name, "problem", "no microphone opens at any sample rate", _BUSY, listed)
    if default is None:
        return Check(name, "note", "no microphone is the default", "choose one with mic:NUMBER", listed)
    if not default["rates"]:
        remedy = f"choose another with mic:NUMBER, or {_BUSY}"
        return Check(
            name, "problem", "the default microphone does not open at any sample rate", remedy, listed
        )
    return Check(
        name, "ok", f"{len(inputs)} found, of which {default['index']} is the default", details=listed
    )


_PLUG_IN: Final = (
    "plug one in and check that arecord -l lists it; files, pipes and mmtl serve need no microphone"
)
_BUSY: Final = "close other programs that record (sudo fuser -v /dev/snd/* lists them)"


def _described_input(item: Answer) -> str:
    channels = f"{item['channels']} channel{'s' if item['channels'] != 1 else ''}"
    rates = f"{' '.join(map(str, item['rates']))} Hz" if item["rates"] else "opens at no rate"
    return f"{item['index']} {item['name']} ({item['host_api']}, {channels}): {rates}"


def recording(context: DiagnosticContext) -> Check:
    """Check that the default microphone delivers sound."""
    name = "recording"
    inputs = context.sound.get("inputs", ())
    if not any(item["default"] and item["rates"] for item in inputs):
        return Check(name, "note", "not checked: no default microphone opens")
    found = context.probe.ask("recording")
    if "error" in found:
        return failed(name, "problem", found, _BUSY)
    if found["silent"]:
        return Check(name, "problem", f"{found['name']} is silent: {found['silent']}", found["remedy"])
    return Check(name, "ok", f"sound arrives from {found['name']}; the recording was discarded")


def sound_group(context: DiagnosticContext) -> Check:
    """Check that this user may record from the sound cards."""
    name = "sound group"
    cards = sorted((context.probe.root / "dev" / "snd").glob("pcm*c"))
    if not cards:
        return Check(name, "ok", "no sound card is restricted to the group audio")
    refused = [card for card in cards if not os.access(card, os.R_OK | os.W_OK)]
    if not refused:
        return Check(name, "ok", "this user may use every sound card")
    said = f"this user may not use {', '.join(card.name for card in refused)} in {cards[0].parent}"
    return Check(name, "note", said, "sudo usermod -aG audio USER, then log out and in again")


def bundle(context: DiagnosticContext) -> Check:
    """Check that the model is complete and unchanged."""
    model = context.bundle
    if isinstance(model, BundleError):
        return failed("bundle", "problem", explained(model))
    licence = f"weights under {model.manifest.licence}"
    found = f"{model.manifest.name}, fingerprint {model.fingerprint[:12]}, {licence}, in {context.folder}"
    return Check("bundle", "ok", found)


def voice(context: DiagnosticContext) -> Check:
    """Check that the voice-activity network runs."""
    found = context.probe.ask("voice")
    if "error" in found:
        return failed("voice", "problem", found, "reinstall mmtl")
    return Check("voice", "ok", "the voice-activity network runs")


def profiles(context: DiagnosticContext) -> Check:
    """Check that the kept profiles can be read and fit the model."""
    try:
        states = {name_of(path): _state(path, context.bundle) for path in kept_profiles()}
    except ProfileError as error:
        return failed("profiles", "problem", explained(error))
    listed = tuple(f"{name}: {state}" for name, state in states.items())
    if "damaged" in states.values():
        return Check("profiles", "problem", "some cannot be read", _REMOVED, listed)
    if "for another model" in states.values():
        remedy = "run mmtl calibrate NAME again for each speaker who uses this model"
        return Check("profiles", "note", "some are for another model", remedy, listed)
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
    """Check that the given speaker's profile can be applied."""
    if context.profile is None:
        return Check("profile", "ok", "none given (--profile NAME)")
    if isinstance(context.bundle, BundleError):
        return Check("profile", "note", "not checked: the bundle cannot be used")
    try:
        found = load_profile(find_profile(context.profile), context.bundle)
    except ModelError as error:
        return failed("profile", "problem", explained(error))
    return Check("profile", "ok", f"{found.name}: {found.verdict}, for this model")


def profile_folder(_: DiagnosticContext) -> Check:
    """Check that profiles can be written."""
    return _folder("profile folder", profiles_folder(), "problem")


def engine_folder(context: DiagnosticContext) -> Check:
    """Check that engines can be written."""
    try:
        return _folder("engine folder", plan_folder(), context.gpu_verdict)
    except UsageError as error:
        return failed("engine folder", context.gpu_verdict, explained(error))


def _folder(name: str, folder: Path, verdict: Verdict) -> Check:
    """Check permission and free space in a folder, or in the one in which it would be created."""
    there = next(path for path in _upwards(folder) if os.access(path, os.F_OK))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check(
            name,
            verdict,
            f"this user cannot write to {folder}",
            f"check the owner and permissions of {there}",
        )
    free = shutil.disk_usage(there).free
    found = f"{folder}: {free / 2**30:.1f} GB free"
    return (
        Check(name, "ok", found)
        if free >= _FEW_BYTES
        else Check(name, verdict, found, "free some space there")
    )


def _upwards(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.absolute().parents
