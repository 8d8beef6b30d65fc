from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unicodedata import is_normalized, normalize

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from edge.errors import ProfileError
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.features.normaliser import BinStatistics
from edge.model import profile as profile_module
from edge.model.bundle import Bundle
from edge.model.profile import (
    LARGEST_BYTES,
    Profile,
    Reference,
    find_profile,
    kept_profiles,
    load_profile,
    profile_path,
    read_profile,
    require_place,
    save_profile,
    session_folder,
)
from tests.edge.conftest import random_head

ROOT = Path(__file__).parents[3]


@pytest.fixture
def profile(bundle: Bundle) -> Profile:
    return Profile(
        name="anna",
        bundle=bundle.fingerprint,
        head=replace(bundle.head, temperature=1.25),
        levels=replace(bundle.manifest.levels, reference=-0.5),
        statistics=replace(bundle.statistics, mean=bundle.statistics.mean + 1),
        verdict="adopted",
        report={"clips": {"happy": 2}, "before": 0.5, "after": 0.75},
    )


def rewrite(profile: Profile, path: Path, **changes: object) -> None:
    """Save a profile with changed content, as a file from elsewhere might have; None removes a field."""
    save_profile(path, profile)
    with safe_open(path, "numpy") as file:
        described = {**json.loads(file.metadata()["mmtl"]), **changes}
    text = json.dumps({key: value for key, value in described.items() if value is not None})
    tensors = profile.head.tensors() | profile.statistics.tensors()
    save_file(tensors, path, {"mmtl": text, "sha256": profile_module._sha256(text, tensors)})


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


SCRIPTS = ["Jürgen", "Zoë", "Łukasz", "Ольга", "민수", "美咲", "प्रिया", "محمد", "Ngọc_2"]


@pytest.mark.parametrize("name", ["anna", "Anna_2", "a.b-c", "7", "x" * 64, "console", "민" * 64, *SCRIPTS])
def test_a_name_becomes_a_file_in_the_folder(name: str, folder: Path) -> None:
    path = profile_path(name)
    assert path.parent == folder
    assert path.name == f"{name}.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "/etc/x", "a/b", "a\\b", ".hidden", "-x", "x" * 65),
        *(
            "a b",
            "a\n",
            "a\0",
            "~",
            "$HOME",
            "x.safetensors",
            "x.SafeTensors",
            "a\u202eb",
            "a\u200b",
            "\udc80",
        ),
        *("민" * 65, "𐐷" * 49, "\u0301a", "a😀", "a\uff0fb", "CON", "nul.anna", "lpt1", "anna."),
    ],
)
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        profile_path(name)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if not is_normalized("NFD", name)])
def test_a_name_is_the_same_however_its_letters_are_composed(
    profile: Profile, folder: Path, name: str
) -> None:
    decomposed = normalize("NFD", name)
    assert decomposed != name
    for kept_as, asked_as in ((name, decomposed), (decomposed, name)):
        save_profile(folder / f"{kept_as}.safetensors", profile)  # as another system may have spelt it
        path = find_profile(asked_as)
        assert path.is_file()
        assert read_profile(path).name == name
        assert session_folder(asked_as) == folder.parent / "sessions" / name
        assert [path] == kept_profiles()
        assert find_profile(str(folder / f"{asked_as}.safetensors")) == path
        path.unlink()


def test_a_name_of_an_older_program_is_found_where_it_would_be_refused_today(
    profile: Profile, folder: Path
) -> None:
    for name in ("con", "anna."):
        save_profile(folder / f"{name}.safetensors", profile)
        assert find_profile(name) == folder / f"{name}.safetensors"


@pytest.mark.parametrize("name", ["\\ubbfc", "\\udceb\\udcaf\\udcbc"])
def test_a_system_that_cannot_spell_a_name_says_so(name: str) -> None:
    body = f"from edge.model.profile import profile_path\nprofile_path('{name}')"
    environment = {"PATH": "", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", body]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert f"ProfileError: '{name}' cannot name a profile where text is in ascii: set a locale" in done.stderr


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
    assert "another model than cnn-lstm" in refused(path, bundle)
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


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", '"x"', pytest.param("[" * 100_000, id="deep")])
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
    save_profile(path, replace(profile, head=replace(profile.head, temperature=0.0)))
    assert "not usable" in refused(path, bundle)


def test_there_is_nothing_in_it_but_weights_and_metadata(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    with safe_open(path, "numpy") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == set(profile.head.tensors()) | {"statistics.mean", "statistics.std"}
    described = json.loads(metadata["mmtl"])
    known = {"profile_version", "name", "bundle", "levels", "verdict", "report", "made"}
    assert set(described) == known


def test_the_reference_of_the_session_is_kept_and_checked(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    size = 2 + bundle.head.input_size
    reference = Reference(np.arange(size, dtype=np.float32), np.ones(size, np.float32))
    save_profile(path, replace(profile, reference=reference))
    again = load_profile(path, bundle).reference
    assert again is not None
    assert (again.mean == reference.mean).all()
    assert (again.spread == reference.spread).all()
    save_profile(path, replace(profile, reference=Reference(reference.mean, 0 * reference.mean)))
    assert "calibration session are not usable" in refused(path, bundle)
    save_profile(path, replace(profile, reference=Reference(reference.mean[:9], reference.spread[:9])))
    assert "(reference)" in refused(path, bundle)


@pytest.mark.parametrize(
    ("head_size", "reference_size", "said"),
    [
        (256 + SPECTRUM_SIZE, 2 + 256 + SPECTRUM_SIZE, ""),
        (256 + SPECTRUM_SIZE, 2 + 256, "(reference)"),
        (256, 2 + 256 + SPECTRUM_SIZE, "(reference)"),
        (257, 2 + 257, "(head)"),
    ],
)
def test_a_head_reads_the_embedding_and_may_read_the_spectrum(
    profile: Profile, bundle: Bundle, head_size: int, reference_size: int, said: str
) -> None:
    path = profile_path("anna")
    reference = Reference(*np.ones((2, reference_size), np.float32))
    save_profile(path, replace(profile, head=random_head(size=head_size), reference=reference))
    if said:
        assert said in refused(path, bundle)
    else:
        assert load_profile(path, bundle).head.input_size == head_size


def test_a_profile_of_an_older_program_has_neither_reference_nor_date(
    profile: Profile, bundle: Bundle
) -> None:
    path = profile_path("anna")
    rewrite(profile, path, made=None)
    older = load_profile(path, bundle)
    assert (older.reference, older.made) == (None, None)
    assert older == replace(profile, head=older.head, statistics=older.statistics)


def test_it_remembers_when_it_was_first_saved(profile: Profile) -> None:
    path = profile_path("anna")
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    save_profile(path, profile)
    made = read_profile(path).made
    assert made is not None
    assert before <= made <= datetime.now(timezone.utc)
    earlier = replace(profile, made=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc))
    save_profile(path, earlier)
    assert read_profile(path).made == earlier.made


def test_its_name_is_that_of_its_file(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "bob.v2.safetensors"
    save_profile(path, replace(profile, name="../../anna\x1b[2J"))
    assert read_profile(path).name == "bob.v2"


@pytest.mark.parametrize(
    "change",
    [
        *({"verdict": "adopted\x1b[2J"}, {"verdict": ["adopted"]}, {"verdict": None}),
        *({"report": []}, {"bundle": 3}, {"made": "soon"}, {"made": 3}, {"levels": {"loudness": 1.0}}),
        *({"levels": {"reference": "0"}}, {"levels": {"eps": float("nan")}}, {"levels": [1.0]}),
    ],
)
def test_the_content_of_a_file_is_validated(
    profile: Profile, bundle: Bundle, change: dict[str, object]
) -> None:
    path = profile_path("anna")
    rewrite(profile, path, **change)
    assert "not a complete profile" in refused(path, bundle)


def test_tensors_of_other_sizes_are_refused(profile: Profile, bundle: Bundle) -> None:
    path = profile_path("anna")
    few = np.ones(3, np.float32)
    save_profile(path, replace(profile, statistics=BinStatistics(few, few)))
    assert "does not have this model's sizes (statistics)" in refused(path, bundle)


def test_a_file_that_is_too_large_is_not_read(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    assert "damaged" in refused(path, bundle)


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "a\0b.safetensors"])
def test_a_path_that_cannot_be_is_no_profile(name: str, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no profile"):
        find_profile(f"{tmp_path}/{name}")
    assert "there is no profile" in refused(tmp_path / name, bundle)


def test_a_profile_without_read_permission_is_reported(
    profile: Profile, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    monkeypatch.setattr("edge.model.profile.os.access", lambda *_: False)  # root may read anything
    with pytest.raises(ProfileError, match=r"cannot read .* see that this user may"):
        load_profile(path, bundle)


@contextmanager
def full_disk() -> Iterator[None]:
    """As good as a full disk: files may not grow beyond 8 kB, the one that tests report to included."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def unwritten(path: Path, profile: Profile) -> str:
    """Check that a profile cannot be saved and that this is said in one line; return the line."""
    with pytest.raises(ProfileError, match="cannot write the profile") as caught:
        save_profile(path, profile)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_what_a_killed_program_left_of_a_profile_goes_when_one_is_to_be_made(folder: Path) -> None:
    (folder / ".anna.safetensors.mmtl-abcd1234").mkdir(parents=True)
    require_place(profile_path("bob"))
    assert list(folder.iterdir()) == []


def test_a_full_disk_keeps_the_profile_that_was_there(profile: Profile, bundle: Bundle, folder: Path) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    with full_disk():
        assert "make room" in unwritten(path, replace(profile, verdict="rejected"))
    assert load_profile(path, bundle).verdict == "adopted"
    assert list(folder.iterdir()) == [path]


def test_a_folder_in_the_way_stays(profile: Profile, folder: Path) -> None:
    path = profile_path("anna")
    (path / "kept").mkdir(parents=True)
    assert "directory" in unwritten(path, profile).lower()
    assert (path / "kept").is_dir()
    assert list(folder.iterdir()) == [path]


def test_a_file_where_the_folder_should_be_stays(profile: Profile, folder: Path) -> None:
    folder.write_text("mine")
    unwritten(profile_path("anna"), profile)
    assert folder.read_text() == "mine"
    for look in (kept_profiles, lambda: find_profile("anna")):
        with pytest.raises(ProfileError, match=r"cannot read the profiles in .*Not a directory"):
            look()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_keeps_what_is_in_it(profile: Profile, bundle: Bundle, folder: Path) -> None:
    path = profile_path("anna")
    save_profile(path, profile)
    folder.chmod(0o500)
    try:
        assert "Permission denied" in unwritten(path, replace(profile, verdict="rejected"))
    finally:
        folder.chmod(0o700)
    assert load_profile(path, bundle).verdict == "adopted"


def test_a_link_is_replaced_and_what_it_leads_to_is_not_touched(
    profile: Profile, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    folder.mkdir()
    precious, path = tmp_path / "precious", profile_path("anna")
    precious.write_text("mine")
    path.symlink_to(precious)
    assert "damaged" in refused(path, bundle)
    save_profile(path, profile)
    assert not path.is_symlink()
    assert precious.read_text() == "mine"
    assert load_profile(path, bundle).name == "anna"
