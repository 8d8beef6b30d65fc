from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.errors import MmtlError, ProfileError, UsageError
from edge.model.bundle import Bundle
from edge.model.profile import Profile, load_profile, profile_path, save_profile, session_folder
from edge.model.profile_store import Deleted, delete_profile, export_profile, import_profile


@pytest.fixture
def profile(bundle: Bundle) -> Profile:
    manifest = bundle.manifest
    return Profile("anna", bundle.fingerprint, bundle.head, manifest.levels, bundle.statistics, "adopted")


@pytest.fixture
def anna(profile: Profile) -> Path:
    """A kept profile."""
    save_profile(profile_path("anna"), profile)
    return profile_path("anna")


@pytest.fixture
def file(profile: Profile, tmp_path: Path) -> Path:
    """A profile that was brought here."""
    save_profile(tmp_path / "stick" / "bob.safetensors", replace(profile, name="../../evil"))
    return tmp_path / "stick" / "bob.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_what_is_exported_and_imported_is_the_same_byte_for_byte(
    anna: Path, bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "anna.safetensors"
    assert export_profile("anna", out).name == "anna"
    assert out.read_bytes() == anna.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    kept = import_profile(out, bundle, name="anna2")
    path = profile_path("anna2")
    assert (kept.name, load_profile(path, bundle).name) == ("anna2", "anna2")
    assert path.read_bytes() == anna.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(files(path.parent)) == ["anna.safetensors", "anna2.safetensors"]
    assert sorted(files(out.parent)) == ["anna.safetensors"]


def test_the_name_is_that_of_the_file_and_never_the_one_inside(
    file: Path, bundle: Bundle, folder: Path
) -> None:
    assert import_profile(file, bundle).name == "bob"
    assert sorted(files(folder)) == ["bob.safetensors"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".hidden", "x.safetensors", "a\x1b[2J", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(
    file: Path, anna: Path, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    before = files(anna.parent)
    with pytest.raises(ProfileError, match="cannot name a profile"):
        import_profile(file, bundle, name=name)
    with pytest.raises(ProfileError, match="cannot name a profile"):
        import_profile(file.rename(file.with_name(".hidden.safetensors")), bundle)
    with pytest.raises(ProfileError, match="cannot name a profile"):
        export_profile(name, tmp_path / "out")
    with pytest.raises(ProfileError, match="cannot name a profile"):
        delete_profile(name)
    assert files(anna.parent) == before
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unless_told_to(
    anna: Path, file: Path, profile: Profile, bundle: Bundle
) -> None:
    save_profile(anna, replace(profile, report={"mine": True}))
    kept, brought = anna.read_bytes(), file.read_bytes()
    with pytest.raises(UsageError, match="already: give --replace"):
        import_profile(file, bundle, name="anna")
    with pytest.raises(UsageError, match="already: give --replace"):
        export_profile("anna", file)
    assert (anna.read_bytes(), file.read_bytes()) == (kept, brought)
    import_profile(file, bundle, name="anna", overwrite=True)
    assert anna.read_bytes() == brought
    export_profile("anna", file, overwrite=True)
    assert file.read_bytes() == brought


def test_a_profile_is_not_copied_over_itself(anna: Path, bundle: Bundle, tmp_path: Path) -> None:
    link, before = tmp_path / "link", anna.read_bytes()
    link.hardlink_to(anna)
    for target in (anna, link):
        with pytest.raises(UsageError, match="would overwrite"):
            export_profile("anna", target, overwrite=True)
    with pytest.raises(UsageError, match="would overwrite"):
        import_profile(link, bundle, name="anna", overwrite=True)
    assert anna.read_bytes() == before


def test_a_dangling_link_occupies_a_name(anna: Path, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    out.symlink_to(nowhere)
    with pytest.raises(UsageError, match="already"):
        export_profile("anna", out)
    export_profile("anna", out, overwrite=True)
    assert not out.is_symlink()
    assert not nowhere.exists()


def test_a_link_is_replaced_and_what_it_leads_to_is_not_touched(
    anna: Path, file: Path, bundle: Bundle, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    anna.unlink()
    anna.symlink_to(precious)
    import_profile(file, bundle, name="anna", overwrite=True)
    assert not anna.is_symlink()
    assert precious.read_text() == "mine"


def test_deleting_a_link_keeps_what_it_leads_to(anna: Path, file: Path) -> None:
    anna.unlink()
    anna.symlink_to(file)
    delete_profile("anna")
    assert not anna.is_symlink()
    assert file.exists()


def test_a_link_to_nowhere_can_be_deleted(anna: Path, tmp_path: Path) -> None:
    anna.unlink()
    anna.symlink_to(tmp_path / "nowhere")
    assert delete_profile("anna") == Deleted(profile=True, recordings=False)
    assert not anna.is_symlink()


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """What an unfinished session of anna has left, beside somebody else's."""
    for name in ("anna", "bob"):
        (tmp_path / "sessions" / name).mkdir(parents=True)
        (tmp_path / "sessions" / name / "00-neutral.wav").write_bytes(b"a voice")
    return tmp_path / "sessions" / "anna"


def test_the_recordings_of_an_unfinished_session_go_with_the_profile(anna: Path, recordings: Path) -> None:
    assert recordings == session_folder("anna")
    assert delete_profile("anna") == Deleted(profile=True, recordings=True)
    assert not anna.exists()
    assert [path.name for path in recordings.parent.iterdir()] == ["bob"]


def test_what_a_power_loss_left_of_a_profile_goes_with_it(anna: Path) -> None:
    left = anna.with_name(".anna.safetensors.k3_x9a2b.safetensors")
    other = anna.with_name(".anna.safetensors.b.safetensors.k3_x9a2b.safetensors")
    for path in (left, other):
        path.write_bytes(anna.read_bytes())
    workspace = anna.with_name(".anna.safetensors.mmtl-k3_x9a2b")
    workspace.mkdir()
    (workspace / anna.name).write_bytes(b"half")
    assert delete_profile("anna").profile
    assert list(anna.parent.iterdir()) == [other]
    left.write_bytes(b"half")
    assert delete_profile("anna").profile
    assert list(anna.parent.iterdir()) == [other]


def test_recordings_are_deleted_where_there_is_no_profile_yet(recordings: Path) -> None:
    assert delete_profile("anna") == Deleted(profile=False, recordings=True)
    with pytest.raises(ProfileError, match="there is no profile anna"):
        delete_profile("anna")
    assert [path.name for path in recordings.parent.iterdir()] == ["bob"]


def test_recordings_that_are_a_link_are_left_where_it_leads(recordings: Path) -> None:
    session_folder("eve").symlink_to(recordings)
    assert delete_profile("eve").recordings
    assert (recordings / "00-neutral.wav").exists()
    assert not session_folder("eve").is_symlink()


def test_what_cannot_be_deleted_is_said(
    anna: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("edge.model.profile_store.shutil.rmtree", refuse)
    with pytest.raises(ProfileError, match=r"cannot delete .*sessions/anna \(Permission denied\)"):
        delete_profile("anna")
    assert anna.exists(), "what was not reached is not lost"


def test_a_profile_for_another_bundle_is_refused_with_the_remedy(
    profile: Profile, bundle: Bundle, file: Path, folder: Path
) -> None:
    save_profile(file, replace(profile, bundle="0" * 64))
    with pytest.raises(ProfileError, match=r"profile anna was made for another model .* --bundle"):
        import_profile(file, bundle, name="anna")
    few = np.ones(3, np.float32)
    save_profile(file, replace(profile, statistics=replace(profile.statistics, mean=few, std=few)))
    with pytest.raises(ProfileError, match="sizes"):
        import_profile(file, bundle)
    assert files(folder) == {}


def test_a_profile_that_was_rejected_can_be_taken_along(profile: Profile, bundle: Bundle, file: Path) -> None:
    save_profile(file, replace(profile, verdict="rejected"))
    assert import_profile(file, bundle).verdict == "rejected"
    with pytest.raises(ProfileError, match="did not help"):
        load_profile(profile_path("bob"), bundle)


@pytest.mark.parametrize("content", [b"", b"RIFF" * 99, "cut", "changed"])
def test_a_damaged_file_is_neither_imported_nor_exported(
    anna: Path, file: Path, bundle: Bundle, tmp_path: Path, content: bytes | str
) -> None:
    for path in (anna, file):
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        spoilt = {"cut": bytes(whole[:-9]), "changed": bytes(whole)}
        path.write_bytes(spoilt[content] if isinstance(content, str) else content)
    before = files(anna.parent)
    with pytest.raises(ProfileError, match=r"bob.safetensors is not a profile, or is damaged: copy it again"):
        import_profile(file, bundle)
    with pytest.raises(ProfileError, match="damaged"):
        export_profile("anna", tmp_path / "out")
    assert files(anna.parent) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_file_is_refused(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    {"missing": lambda _: None, "folder": os.mkdir, "fifo": os.mkfifo}[kind](path)
    with pytest.raises(ProfileError, match="there is no profile"):
        import_profile(path, bundle)


def test_an_unknown_profile_is_not_exported_nor_deleted(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no profile anna"):
        export_profile("anna", tmp_path / "out")
    with pytest.raises(ProfileError, match="there is no profile anna"):
        delete_profile("anna")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_all_as_it_was(anna: Path, file: Path, bundle: Bundle, tmp_path: Path) -> None:
    before, limits = files(anna.parent), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, limits[1]))
    try:
        with pytest.raises(ProfileError, match=r"cannot write the profile .* make room"):
            import_profile(file, bundle, name="anna", overwrite=True)
        with pytest.raises(ProfileError, match=r"cannot write the profile .* make room"):
            export_profile("anna", tmp_path / "out" / "anna.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(anna.parent) == before
    assert files(tmp_path / "out") == {}


def test_a_folder_in_the_way_stays(anna: Path, file: Path, bundle: Bundle, tmp_path: Path) -> None:
    anna.unlink()
    for path in (anna, tmp_path / "out"):
        (path / "kept").mkdir(parents=True)
    with pytest.raises(MmtlError, match="already"):
        import_profile(file, bundle, name="anna")
    with pytest.raises(ProfileError, match="cannot write the profile"):
        import_profile(file, bundle, name="anna", overwrite=True)
    with pytest.raises(ProfileError, match="there is no profile anna"):
        export_profile("anna", tmp_path / "out", overwrite=True)
    assert (anna / "kept").is_dir()
    assert (tmp_path / "out" / "kept").is_dir()


def test_a_profile_that_cannot_be_deleted_is_reported(anna: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)  # root may delete anything
    with pytest.raises(ProfileError, match=r"cannot delete .* \(Permission denied\): see that"):
        delete_profile("anna")
    assert anna.exists()
