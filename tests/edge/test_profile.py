from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from edge import profile as profile_module
from edge.bundle import Bundle
from edge.errors import ProfileError
from edge.normaliser import BinStatistics
from edge.profile import (
    Profile,
    find_profile,
    kept_profiles,
    load_profile,
    profile_path,
    read_profile,
    save_profile,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where profiles are kept during a test."""
    monkeypatch.setattr(profile_module, "profiles_folder", lambda: tmp_path / "profiles")
    return tmp_path / "profiles"


@pytest.fixture
def profile(bundle: Bundle) -> Profile:
    return Profile(
        name="anna",
        bundle=bundle.fingerprint,
        head=bundle.head.with_temperature(1.25),
        levels=replace(bundle.manifest.levels, reference=-0.5),
        statistics=replace(bundle.statistics, mean=bundle.statistics.mean + 1),
        verdict="adopted",
        report={"clips": {"happy": 2}, "before": 0.5, "after": 0.75},
    )


def refused(path: Path, bundle: Bundle) -> str:
    """Check that a profile is refused in one line, with a remedy, and return the line."""
    with pytest.raises(ProfileError) as caught:
        load_profile(path, bundle)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    assert "run mmtl calibrate" in message
    return message


def test_it_is_read_back_as_it_was_stored(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    again = load_profile(path, bundle)
    for name, array in (profile.head.tensors() | profile.statistics.tensors()).items():
        assert ((again.head.tensors() | again.statistics.tensors())[name] == array).all()
    arrays = {"head": profile.head, "statistics": profile.statistics}
    assert replace(again, **arrays) == profile  # type: ignore[arg-type]
    assert again.head.temperature == 1.25


def test_only_its_owner_may_read_it(profile: Profile, folder: Path) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("name", ["anna", "Anna_2", "a.b-c", "7", "x" * 64])
def test_a_name_becomes_a_file_in_the_folder(name: str, folder: Path) -> None:
    path = profile_path(name)
    assert path.parent == folder
    assert path.name == f"{name}.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "/etc/x", "a/b", "a\\b", ".hidden", "-x", "x" * 65),
        *("a b", "a\n", "a\0", "Zoë", "~", "$HOME", "x.safetensors"),
    ],
)
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        profile_path(name)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ""])
def test_a_path_is_not_a_name(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        find_profile(name)


def test_a_profile_is_found_by_name_and_by_file(profile: Profile, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.safetensors"
    save_profile(profile_path("anna"), profile)
    save_profile(elsewhere, profile)
    assert find_profile("anna") == profile_path("anna")
    assert find_profile(str(elsewhere)) == elsewhere


def test_an_unknown_name_is_refused_with_those_there_are(profile: Profile, folder: Path) -> None:
    with pytest.raises(ProfileError, match="there is: none"):
        find_profile("anna")
    save_profile(profile_path("bob"), profile)
    save_profile(profile_path("anna"), profile)
    (folder / ".anna.safetensors.x1y2.safetensors").write_text("left by a crash")
    with pytest.raises(ProfileError, match=r"no profile carla \(there is: anna, bob\)"):
        find_profile("carla")
    assert kept_profiles() == [profile_path("anna"), profile_path("bob")]


def test_a_missing_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    assert "there is no profile" in refused(tmp_path / "none.safetensors", bundle)
    assert "there is no profile" in refused(tmp_path, bundle)


def test_a_profile_for_another_bundle_is_refused(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    save_profile(path, replace(profile, bundle="0" * 64))
    assert "another model than default" in refused(path, bundle)
    assert read_profile(path).bundle == "0" * 64


def test_a_rejected_profile_is_never_applied(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    save_profile(path, replace(profile, verdict="rejected"))
    assert "did not help" in refused(path, bundle)
    assert read_profile(path).verdict == "rejected"


@pytest.mark.parametrize("part", [0.001, 0.3, 0.5, 0.9, 0.9999])
def test_a_changed_byte_is_noticed(profile: Profile, bundle: Bundle, part: float) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 1
    path.write_bytes(content)
    refused(path, bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 100, b"RIFF" * 30])
def test_what_is_no_profile_is_refused(bundle: Bundle, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "damaged" in refused(path, bundle)


def test_a_truncated_file_is_refused(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged" in refused(path, bundle)


def test_other_weights_are_no_profile(profile: Profile, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(profile.head.tensors(), path)
    assert "damaged" in refused(path, bundle)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", '"x"'])
def test_other_metadata_is_no_profile(profile: Profile, bundle: Bundle, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    tensors = profile.head.tensors() | profile.statistics.tensors()
    digest = profile_module._sha256(text, tensors)
    save_file(tensors, path, {"mmtl": text, "sha256": digest})
    assert "damaged" in refused(path, bundle)


def test_a_profile_of_another_version_is_refused(
    profile: Profile, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = profile_path("anna")
    with monkeypatch.context() as patched:
        patched.setattr(profile_module, "PROFILE_VERSION", 2)
        save_profile(path, profile)
    assert "version 2, this program reads 1" in refused(path, bundle)


def test_numbers_that_cannot_be_used_are_refused(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    mean = np.full_like(bundle.statistics.mean, np.nan)
    save_profile(path, replace(profile, statistics=BinStatistics(mean, bundle.statistics.std)))
    assert "not usable" in refused(path, bundle)
    save_profile(path, replace(profile, head=profile.head.with_temperature(0.0)))
    assert "not usable" in refused(path, bundle)


def test_there_is_nothing_in_it_but_weights_and_metadata(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    with safe_open(path, "numpy") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == set(profile.head.tensors()) | {"statistics.mean", "statistics.std"}
    described = json.loads(metadata["mmtl"])
    assert set(described) == {"profile_version", "name", "bundle", "levels", "verdict", "report"}
