"""A speaker's profile: one file that replaces the head, the level and the bin statistics of a bundle."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from edge.bundle import Bundle
from edge.errors import ProfileError
from edge.files import replacing
from edge.frontend import Array
from edge.head import Head
from edge.normaliser import BinStatistics, Levels

PROFILE_VERSION: Final = 1
_NAME = re.compile(r"[\w][\w.-]{0,63}", re.ASCII)


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
    if not _NAME.fullmatch(name):
        raise ProfileError(
            f"{name!r} cannot name a profile: use up to 64 letters, digits, dots, dashes and underscores"
        )
    return profiles_folder() / f"{name}.safetensors"


def find_profile(name_or_path: str) -> Path:
    """Find a profile by name, or by the path of its file.

    Raises:
        ProfileError: there is none.
    """
    path = Path(name_or_path) if name_or_path.endswith(".safetensors") else profile_path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in profiles_folder().glob("*.safetensors"))) or "none"
        raise ProfileError(f"there is no profile {name_or_path} (there is: {known}): run mmtl calibrate")
    return path


def save_profile(path: Path, profile: Profile) -> None:
    """Write a profile in one piece, readable by its owner only."""
    arrays = {"statistics.mean": profile.statistics.mean, "statistics.std": profile.statistics.std}
    described = {
        "profile_version": PROFILE_VERSION,
        "name": profile.name,
        "bundle": profile.bundle,
        "levels": asdict(profile.levels),
        "verdict": profile.verdict,
        "report": profile.report,
    }
    with replacing(path, mode=0o600) as partial:
        save_file(profile.head.tensors() | arrays, partial, {"mmtl": json.dumps(described)})


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
            statistics=BinStatistics(tensors["statistics.mean"], tensors["statistics.std"]),
            verdict=described["verdict"],
            report=described["report"],
        )
    except (KeyError, TypeError) as error:
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
            described: dict[str, Any] = json.loads((file.metadata() or {})["mmtl"])
            return described, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise ProfileError(f"{path} is not a profile, or is damaged: run mmtl calibrate again") from error
