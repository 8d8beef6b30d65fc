"""A speaker's profile: one file that replaces the head, the level and the bin statistics of a bundle.

The content of the file is validated, because it may come from elsewhere. A profile's name is that of
its file; the name inside is informational.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal
from unicodedata import normalize

from safetensors import SafetensorError
from safetensors.numpy import save_file

from edge.arrays import Array
from edge.bounds import (
    UNREADABLE,
    build,
    one_line,
    read_tensors,
    require_shallow,
    require_size,
    shown,
    tensor,
)
from edge.errors import ModelError, ProfileError, UsageError
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.features.normaliser import BinStatistics, GainConfig
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.profile_names import PROFILE_SUFFIX, is_name, is_portable, name_of, profile_name
from edge.system.files import atomic_write, is_file, is_writable, remove_leftovers
from edge.system.shell import quoted
from edge.system.user_folders import data_folder

PROFILE_VERSION: Final = 1
Verdict = Literal["adopted", "rejected"]
ADOPTED: Final = "adopted"
REJECTED: Final = "rejected"
LABELLED: Final = "labelled"
ORDINARY: Final = "ordinary"
"""The report's `kind`: fitted to labelled takes, or to ordinary speech without labels. An older report has
none, and is of labelled takes."""
LARGEST_BYTES: Final = 2**24
"""No profile is larger: 16 MiB."""
LARGEST_MEAN: Final = 1e4
"""Largest magnitude of a mean or spread in a file."""
LEAST_SPREAD: Final = 1e-4
"""Smallest spread in a file."""


@dataclass(frozen=True)
class Reference:
    """Statistics of a calibration session: mean and spread over its windows, each (2 + X,) float32.

    The order: level in dBFS, entropy of the posterior in nats, the X inputs of the head
    (`edge.recognition.drift.observe`).
    """

    mean: Array
    spread: Array

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, as they are stored."""
        return {"reference.mean": self.mean, "reference.spread": self.spread}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Array]) -> Reference | None:
        """Read what `tensors` wrote; None if there is no reference.

        Raises:
            ModelError: one array is missing or has another type, their shapes differ, or a number is out of
                range.
        """
        mean, spread = tensors.get("reference.mean"), tensors.get("reference.spread")
        if mean is None and spread is None:
            return None
        try:
            mean = tensor(tensors, "reference.mean", 1, -LARGEST_MEAN, LARGEST_MEAN)
            spread = tensor(tensors, "reference.spread", 1, LEAST_SPREAD, LARGEST_MEAN)
        except ModelError as error:
            raise ModelError(f"the statistics of the calibration session are not usable: {error}") from error
        if mean.shape != spread.shape:
            raise ModelError(
                "the statistics of the calibration session have the shapes "
                f"{mean.shape} and {spread.shape}, expected one shape"
            )
        return Reference(mean, spread)


@dataclass(frozen=True)
class Profile:
    """A speaker's own head and statistics. It contains no sound."""

    name: str
    bundle: str
    """Fingerprint of the bundle it belongs to."""
    head: Head
    levels: GainConfig
    statistics: BinStatistics
    verdict: Verdict
    """`ADOPTED`, or `REJECTED`: kept for inspection, never applied."""
    report: dict[str, Any] = field(default_factory=dict)
    """Clip counts and scores before and after, on held-out takes."""
    reference: Reference | None = None
    """Statistics of the session; without them drift is not reported."""
    made: datetime | None = field(default=None, compare=False)
    """When it was first saved; None in older profiles."""


def profiles_folder() -> Path:
    """Return the folder where profiles are kept for this user.

    Raises:
        UsageError: the user has no home folder.
    """
    return data_folder() / "profiles"


def profile_path(name: str) -> Path:
    """Return the path of the profile of a name; of an existing file, in the spelling of the file system.

    Raises:
        ProfileError: the name cannot be the name of a file.
    """
    name = profile_name(name)
    path = profiles_folder() / f"{name}{PROFILE_SUFFIX}"
    if os.path.lexists(path):
        return path
    if not is_portable(name):
        raise ProfileError(
            f"{name!r} cannot name a profile, since other systems refuse such a file name",
            remedy="choose another",
        )
    with contextlib.suppress(ProfileError):  # some systems decompose the characters of a file's name
        return next((item for item in kept_profiles() if name_of(item) == name), path)
    return path


def session_folder(name: str) -> Path:
    """Return the folder of the recordings of an unfinished calibration session of a name.

    Raises:
        ProfileError: the name cannot be the name of a file.
    """
    return profiles_folder().parent / "sessions" / name_of(profile_path(name))


def kept_profiles() -> list[Path]:
    """List the files of the profiles that are kept for this user.

    Raises:
        ProfileError: their folder cannot be read.
    """
    folder = profiles_folder()
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProfileError(
            f"cannot read the profiles in {folder} ({error.strerror})",
            remedy="see that it is a folder of this user's",
        ) from error
    return sorted(path for path in paths if path.suffix == PROFILE_SUFFIX and is_name(name_of(path)))


def find_profile(name_or_path: str) -> Path:
    """Find a profile by name, or by the path of its file.

    Raises:
        ProfileError: there is none.
    """
    if name_or_path.endswith(PROFILE_SUFFIX):
        spelt = [Path(name_or_path), *(Path(normalize(form, name_or_path)) for form in ("NFC", "NFD"))]
        path = next(filter(is_file, spelt), spelt[0])
    else:
        path = profile_path(name_or_path)
    if not is_file(path):
        known = ", ".join(map(name_of, kept_profiles())) or "none"
        name = quoted(name_of(path)) if path.parent == profiles_folder() else "NAME"
        raise ProfileError(
            f"there is no profile {name_or_path} (there is: {known})", remedy=f"run mmtl calibrate {name}"
        )
    return path


def require_place(path: Path) -> None:
    """Check that a profile can be written, before it is made; remove leftovers of killed programs.

    Raises:
        ProfileError: this user may not write to its folder, or make it.
    """
    remove_leftovers(path.parent)
    if not is_writable(path.parent):
        raise ProfileError(
            f"cannot write the profile {path}",
            remedy="see that this user may write there, or name another folder in XDG_DATA_HOME",
        )


def save_profile(path: Path, profile: Profile) -> None:
    """Write a profile atomically, readable by its owner only.

    Raises:
        ProfileError: it cannot be written; a profile that existed before is unchanged.
    """
    tensors = profile.head.tensors() | profile.statistics.tensors()
    if profile.reference:
        tensors |= profile.reference.tensors()
    made = profile.made or datetime.now(timezone.utc).replace(microsecond=0)
    described = {
        "profile_version": PROFILE_VERSION,
        "name": profile.name,
        "bundle": profile.bundle,
        "levels": asdict(profile.levels),
        "verdict": profile.verdict,
        "report": profile.report,
        "made": made.isoformat(),
    }
    text = json.dumps(described)
    with writing(path) as partial:
        save_file(tensors, partial, {"mmtl": text, "sha256": _sha256(text, tensors)})


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write a profile to, and move it into place when it is complete.

    Raises:
        ProfileError: it cannot be written; a profile that existed before is unchanged.
    """
    try:
        with atomic_write(path, mode=0o600) as partial:
            yield partial
    except (UsageError, OSError, SafetensorError) as error:
        cause = error.__cause__ or error
        raise ProfileError(
            f"cannot write the profile {path} ({getattr(cause, 'strerror', None) or cause})",
            remedy="make room, and see that this user may write there; nothing was changed",
        ) from error


def read_profile(path: Path) -> Profile:
    """Read a profile of any bundle and verdict.

    Raises:
        ProfileError: it is missing, damaged or has another version.
    """
    described, tensors = _read(path)
    version = described.get("profile_version")
    if version != PROFILE_VERSION or type(version) is not int:
        raise ProfileError(
            f"{path} is a profile of version {shown(version)}, this program reads {PROFILE_VERSION}",
            remedy="run mmtl calibrate again",
        )
    try:
        return _profile(name_of(path), described, tensors)
    except (ModelError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProfileError(
            f"{path} is not a complete profile ({one_line(error)})", remedy="run mmtl calibrate again"
        ) from error


def load_profile(path: Path, bundle: Bundle) -> Profile:
    """Read a profile to apply it.

    Raises:
        ProfileError: it cannot be read, belongs to another bundle, or was rejected.
    """
    profile = read_profile(path)
    require_applicable(profile, bundle)
    return profile


def require_applicable(profile: Profile, bundle: Bundle) -> None:
    """Check that a profile may be applied to a bundle.

    Raises:
        ProfileError: it belongs to another bundle, or was rejected.
    """
    require_fit(profile, bundle)
    if profile.verdict != ADOPTED:
        raise ProfileError(
            f"the profile {profile.name} was rejected because it did not help",
            remedy="go on without it, or run mmtl calibrate with more takes",
        )


def require_fit(profile: Profile, bundle: Bundle) -> None:
    """Check that a profile was made for a bundle and has its sizes.

    Raises:
        ProfileError: it was made for another bundle, or has other sizes.
    """
    require_bundle(profile, bundle)
    head, size = profile.head, bundle.head.input_size
    fits = {
        "head": head.input_size in (size, size + SPECTRUM_SIZE)
        and len(head.fc3_bias) == len(bundle.head.fc3_bias),
        "statistics": profile.statistics.mean.shape == bundle.statistics.mean.shape,
        "reference": not profile.reference or len(profile.reference.mean) == 2 + head.input_size,
    }
    wrong = [what for what, fit in fits.items() if not fit]
    if wrong:
        raise ProfileError(
            f"the profile {profile.name} does not have this model's sizes ({', '.join(wrong)})",
            remedy="run mmtl calibrate again",
        )


def require_bundle(profile: Profile, bundle: Bundle) -> None:
    """Check that a profile names a bundle as its own.

    Raises:
        ProfileError: it names another.
    """
    if profile.bundle != bundle.fingerprint:
        raise ProfileError(
            f"the profile {profile.name} was made for another model than {bundle.manifest.name}",
            remedy="name that one with --bundle, or run mmtl calibrate again with this one",
        )


def _profile(name: str, described: Mapping[str, Any], tensors: dict[str, Array]) -> Profile:
    """Build a profile; raise a ModelError, KeyError, TypeError or ValueError if it is invalid."""
    bundle, verdict, report = described["bundle"], described["verdict"], described["report"]
    if verdict not in (ADOPTED, REJECTED) or not isinstance(bundle, str) or not isinstance(report, dict):
        raise ValueError("its bundle, verdict or report is invalid")
    require_shallow("report", report)
    made = described.get("made")
    return Profile(
        name=name,
        bundle=bundle,
        head=Head.from_tensors(tensors),
        levels=build(GainConfig, described["levels"]),
        statistics=BinStatistics.from_tensors(tensors),
        verdict=verdict,
        report=report,
        reference=Reference.from_tensors(tensors),
        made=datetime.fromisoformat(made).astimezone(timezone.utc) if made is not None else None,
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    if not is_file(path):
        raise ProfileError(f"there is no profile {path}", remedy="run mmtl calibrate")
    if not os.access(path, os.R_OK):
        raise ProfileError(f"cannot read the profile {path}", remedy="see that this user may")
    try:
        require_size(path, LARGEST_BYTES)
        tensors, metadata = read_tensors(path)
        described = json.loads(metadata["mmtl"])
    except (*UNREADABLE, KeyError) as error:
        raise _damaged(path) from error
    if not isinstance(described, dict) or metadata.get("sha256") != _sha256(metadata["mmtl"], tensors):
        raise _damaged(path)
    return described, tensors


def _damaged(path: Path) -> ProfileError:
    return ProfileError(
        f"{path} is not a profile, or is damaged", remedy="copy it again, or run mmtl calibrate again"
    )


def _sha256(text: str, tensors: Mapping[str, Array]) -> str:
    """Hash the whole content: safetensors itself does not detect a changed number."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} ".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
