"""The folder that stores an unfinished session."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder, copy_takes, require_no_recordings
from calibrate.takes import Ratings, read_takes
from edge.audio.sound_file import read_clip
from edge.errors import ProfileError, UsageError
from tests.calibrate.session.synthetic_voices import speech

RATINGS: Ratings = (4.0, None, 1.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store sessions in a folder of the test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def recorded(count: int, language: str = "en") -> tuple[SessionFolder, Session]:
    folder, session = SessionFolder("anna"), Session("anna", language, 2)
    for index in range(count):
        session = folder.keep(session, session.prompts[index], speech(0.1 + 0.05 * index), RATINGS)
    return folder, session


def test_nothing_is_on_disk_before_the_first_take(home: Path) -> None:
    folder, session = recorded(0)
    folder.save(session.without(session.prompts[0]))
    assert not folder.exists()
    assert not home.exists()


def test_a_saved_session_is_loaded_unchanged() -> None:
    folder, session = recorded(3, "ko")
    session = session.without(session.prompts[3])
    folder.save(session)
    assert SessionFolder("anna").load() == session


def test_a_half_written_take_is_removed_when_the_session_is_resumed() -> None:
    folder, session = recorded(2)
    leftover = folder.path / ".02-neutral.wav.mmtl-abcd1234"
    leftover.mkdir()
    (leftover / "02-neutral.wav").write_bytes(b"half")
    assert SessionFolder("anna").load() == session
    assert not leftover.exists()


def test_takes_are_the_very_samples_that_were_recorded() -> None:
    folder, session = recorded(8)
    takes = folder.takes(session)
    assert [take.emotion for take in takes] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert takes[0].ratings == RATINGS
    assert takes[4].text == session.prompts[4].sentence
    np.testing.assert_array_equal(read_clip(takes[3].path), speech(0.25))


def test_only_the_owner_can_read_it() -> None:
    folder, _ = recorded(1)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()} == {0o600}


def test_removing_leaves_nothing() -> None:
    folder, _ = recorded(2)
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


def test_recordings_that_cannot_be_deleted_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = recorded(2)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("calibrate.session.session_folder.shutil.rmtree", refuse)
    with pytest.raises(UsageError, match=r"cannot delete the recordings in .*anna \(Permission denied\)"):
        folder.remove()


def test_a_full_disk_is_said_and_costs_no_take_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, session = recorded(2)

    def fill(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fill)
        with pytest.raises(UsageError, match=r"02-sad.wav \(No space left on device\): make room"):
            folder.keep(session, session.prompts[2], speech(), RATINGS)
        with pytest.raises(UsageError, match=r"session.json \(No space left on device\): make room"):
            folder.save(session)
    assert SessionFolder("anna").load() == session
    assert len(list(folder.path.iterdir())) == 3


def test_a_take_whose_file_is_lost_is_to_be_recorded_again() -> None:
    folder, session = recorded(3)
    folder.takes(recorded(8)[1])[1].path.unlink()
    assert folder.load().next == session.prompts[1]


@pytest.mark.parametrize("name", ["../anna", "", "a/b", "x" * 65])
def test_a_name_that_no_profile_can_have_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        SessionFolder(name)


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "[]",
        '{"session_version": 2}',
        '{"session_version": 1, "language": "xx", "takes": 2, "done": {}, "skipped": []}',
        '{"session_version": 1, "language": "../en", "takes": 2, "done": {}, "skipped": []}',
        '{"session_version": 1, "language": "en", "takes": 1, "done": {}, "skipped": []}',
        '{"session_version": 1, "language": "en", "takes": "2", "done": {}, "skipped": []}',
        '{"session_version": 1, "language": "en", "takes": 2, "done": {"a": []}, "skipped": []}',
        '{"session_version": 1, "language": "en", "takes": 2, "done": {"0": ["x", 9, 1, 1]}, "skipped": []}',
        '{"session_version": 1, "language": "en", "takes": 2, "done": {"-1": ["x", 1, 1, 1]}, "skipped": []}',
    ],
)
def test_a_damaged_session_is_refused_with_the_remedy(spoilt: str) -> None:
    folder, _ = recorded(1)
    (folder.path / "session.json").write_text(spoilt)
    with pytest.raises(UsageError, match="give --replace to discard it"):
        folder.load()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_power_loss_in_the_middle_of_a_take_leaves_the_session_before_it(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    folder, session = recorded(2)
    calls = 0

    def lose_power(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", lose_power)
    with pytest.raises(KeyboardInterrupt):
        folder.keep(session, session.prompts[2], speech(), RATINGS)
    assert SessionFolder("anna").load() == session
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]


def test_kept_recordings_are_what_a_manifest_can_name(tmp_path: Path) -> None:
    folder, session = recorded(8, "ko")
    manifest = copy_takes(folder.takes(session), "anna", tmp_path / "kept")
    takes = read_takes(manifest)
    assert [(take.emotion, take.text, take.ratings) for take in takes] == [
        (take.emotion, take.text, take.ratings) for take in folder.takes(session)
    ]
    np.testing.assert_array_equal(read_clip(takes[5].path), read_clip(folder.takes(session)[5].path))
    header, first, *_ = manifest.read_text("utf-8").splitlines()
    assert header == "path,emotion,valence,arousal,dominance,derived,text,speaker"
    assert first.startswith("00-neutral.wav,neutral,4,,1,arousal,")
    assert {stat.S_IMODE(path.stat().st_mode) for path in manifest.parent.iterdir()} == {0o600}


def test_room_for_recordings_is_made_or_refused_before_there_are_any(tmp_path: Path) -> None:
    require_no_recordings(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "manifest.csv").write_text("")
    with pytest.raises(UsageError, match="holds recordings already"):
        require_no_recordings(tmp_path)
    with pytest.raises(UsageError, match="cannot write to"):
        require_no_recordings(tmp_path / "manifest.csv" / "below")
    (tmp_path / "manifest.csv").rename(tmp_path / "00-neutral.wav")
    with pytest.raises(UsageError, match="holds recordings already"):
        require_no_recordings(tmp_path)
    (tmp_path / "00-neutral.wav").rename(tmp_path / "holiday.wav")
    require_no_recordings(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="cannot write"):
        recorded(1)


def test_the_session_file_has_the_documented_keys_only() -> None:
    folder, _ = recorded(1)
    kept = json.loads((folder.path / "session.json").read_text("utf-8"))
    assert set(kept) == {"session_version", "language", "takes", "done", "skipped", "ordinary"}
