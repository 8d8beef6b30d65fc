from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.files import half_written, may_write, replacing, require_writable


def test_the_file_appears_whole_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profile.bin"
    with replacing(path, mode=0o600) as partial:
        partial.write_text("all of it")
        assert not path.exists()
        assert partial.parent == path.parent
    assert path.read_text() == "all of it"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="choose a folder"), replacing(tmp_path / "file" / "model.json"):
        pass


def test_a_folder_in_the_way_is_a_usage_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="taken"), replacing(tmp_path / "taken") as partial:
        partial.write_text("new")
    assert [item.name for item in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in its folders")
def test_a_device_or_pipe_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="device or a pipe"), replacing(pipe) as partial:
        partial.write_text("new")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    require_writable(folder, mode=0o700)
    require_writable(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot write to .*file"):
            require_writable(folder)


def test_what_a_killed_program_has_left_is_found_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as if there were no time for it
    for name in ("anna.bin", "anna.bin.x.bin", "ann.bin"):
        with pytest.raises(ZeroDivisionError), replacing(tmp_path / name) as partial:
            partial.write_text(str(1 / 0))
        assert half_written(tmp_path / name) == [partial]
    (tmp_path / ".anna.bin").write_text("")
    assert len(half_written(tmp_path / "anna.bin")) == 1
    assert half_written(tmp_path / "nowhere" / "anna.bin") == []


def test_whether_a_folder_could_be_written_is_told_without_making_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert may_write(tmp_path / "new" / "folder")
    assert not may_write(tmp_path / "file" / "folder")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    assert not may_write(tmp_path / "new" / "folder")


def test_a_disk_without_room_is_said_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("old")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UsageError, match=r"events\.csv: No space left on device; make room"), replacing(path):
        raise full
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_failure_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "copy"):
        tmp_path.read_bytes()
