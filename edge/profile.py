"""A speaker's profile: one file that replaces the head, the level and the bin statistics of a bundle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from edge.bundle import Bundle
from edge.errors import ModelError, ProfileError
from edge.files import replacing
from edge.frontend import Array
from edge.head import Head
from edge.normaliser import BinStatistics, Levels

PROFILE_VERSION: Final = 1
_SUFFIX: Final = ".safetensors"
_NAME: Final = re.compile(r"\w[\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Profile:
    """What was learned about one speaker. There is no sound in it."""

    name: str
    bundle: str
    """Fingerprint of the bundle it belongs to."""
    head: Head
    levels: Levels
    statistics: BinStatistics
    verdict: str
    """"adopted", or "rejected": kept to be looked at, never applied."""
    report: dict[str, Any] = field(default_factory=dict)
    """Clip counts and scores before and after, on held-out takes."""


def profiles_folder() -> Path:
    """Return the folder where profiles are kept for this user."""
    from platformdirs import user_data_path

    return user_data_path("mmtl", appauthor=False) / "profiles"


def profile_path(name: str) -> Path:
    """Return where the profile of a name is kept.

    Raises:
        ProfileError: the name could not be a file's name.
    """
    if not _NAME.fullmatch(name) or name.endswith(_SUFFIX):
        raise ProfileError(
            f"{name!r} cannot name a profile: use up to 64 letters, digits, dots, dashes and underscores"
        )
    return profiles_folder() / f"{name}{_SUFFIX}"


def kept_profiles() -> list[Path]:
    """List the files of the profiles that are kept for this user."""
    return sorted(path for path in profiles_folder().glob(f"*{_SUFFIX}") if _NAME.fullmatch(path.stem))


def find_profile(name_or_path: str) -> Path:
    """Find a profile by name, or by the path of its file.

    Raises:
        ProfileError: there is none.
    """
    path = Path(name_or_path) if name_or_path.endswith(_SUFFIX) else profile_path(name_or_path)
    if not path.is_file():
        known = ", ".join(item.stem for item in kept_profiles()) or "none"
        raise ProfileError(f"there is no profile {name_or_path} (there is: {known}): run mmtl calibrate")
    return path


def save_profile(path: Path, profile: Profile) -> None:
    """Write a profile in one piece, readable by its owner only."""
    tensors = profile.head.tensors() | profile.statistics.tensors()
    described = {
        "profile_version": PROFILE_VERSION,
        "name": profile.name,
        "bundle": profile.bundle,
        "levels": asdict(profile.levels),
        "verdict": profile.verdict,
        "report": profile.report,
    }
    text = json.dumps(described)
    with replacing(path, mode=0o600) as partial:
        save_file(tensors, partial, {"mmtl": text, "sha256": _sha256(text, tensors)})


def read_profile(path: Path) -> Profile:
    """Read a profile, whatever bundle and verdict it has.

    Raises:
        ProfileError: it is missing, damaged or of another version.
    """
    described, tensors = _read(path)
    if described.get("profile_version") != PROFILE_VERSION:
        raise ProfileError(
            f"{path} is a profile of version {described.get('profile_version')}, this program reads "
            f"{PROFILE_VERSION}: run mmtl calibrate again"
        )
    try:
        return Profile(
            name=described["name"],
            bundle=described["bundle"],
            head=Head.from_tensors(tensors),
            levels=Levels(**described["levels"]),
            statistics=BinStatistics.from_tensors(tensors),
            verdict=described["verdict"],
            report=described["report"],
        )
    except (ModelError, KeyError, TypeError) as error:
        raise ProfileError(f"{path} is not a whole profile ({error}): run mmtl calibrate again") from error


def load_profile(path: Path, bundle: Bundle) -> Profile:
    """Read a profile to apply it.

    Raises:
        ProfileError: it cannot be read, belongs to another bundle, or was rejected.
    """
    profile = read_profile(path)
    if profile.bundle != bundle.fingerprint:
        raise ProfileError(
            f"the profile {profile.name} was made for another model than {bundle.manifest.name}: "
            "run mmtl calibrate again with this one"
        )
    if profile.verdict != "adopted":
        raise ProfileError(
            f"the profile {profile.name} was rejected because it did not help: go on without it, "
            "or run mmtl calibrate with more takes"
        )
    return profile


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    if not path.is_file():
        raise ProfileError(f"there is no profile {path}: run mmtl calibrate")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(metadata["mmtl"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(described, dict) or metadata.get("sha256") != _sha256(metadata["mmtl"], tensors):
        raise _damaged(path)
    return described, tensors


def _damaged(path: Path) -> ProfileError:
    return ProfileError(f"{path} is not a profile, or is damaged: run mmtl calibrate again")


def _sha256(text: str, tensors: Mapping[str, Array]) -> str:
    """Hash all that a profile says: safetensors itself would not notice a changed number."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} ".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
