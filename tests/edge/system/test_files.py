from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.system.files import (
    atomic_write,
    atomic_write_folder,
    is_writable,
    leftovers_of,
    read_text,
    remove_leftovers,
    require_writable,
)

ROOT = Path(__file__).parents[3]


def test_the_file_appears_whole_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profile.bin"
    with atomic_write(path, mode=0o600) as partial:
        partial.write_text("all of it")
        assert not path.exists()
        assert partial.parent.parent == path.parent
    assert path.read_text() == "all of it"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as partial:
        partial.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="choose a folder"), atomic_write(tmp_path / "file" / "model.json"):
        pass


def test_a_folder_in_the_way_is_a_usage_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="taken"), atomic_write(tmp_path / "taken") as partial:
        partial.write_text("new")
    assert [item.name for item in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in its folders")
def test_a_device_or_pipe_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="device or a pipe"), atomic_write(pipe) as partial:
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
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if there were no time for it
    for name in ("anna.bin", "anna.bin.x.bin", "ann.bin"):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / name) as partial:
            partial.write_text(str(1 / 0))
        assert leftovers_of(tmp_path / name) == [partial.parent]
    (tmp_path / ".anna.bin").write_text("")
    assert len(leftovers_of(tmp_path / "anna.bin")) == 1
    (tmp_path / ".anna.bin.k3_x9a2b.bin").write_text("of an older version")
    assert len(leftovers_of(tmp_path / "anna.bin")) == 2
    assert leftovers_of(tmp_path / "nowhere" / "anna.bin") == []


def test_whether_a_folder_could_be_written_is_told_without_making_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert is_writable(tmp_path / "new" / "folder")
    assert not is_writable(tmp_path / "file" / "folder")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    assert not is_writable(tmp_path / "new" / "folder")


def test_a_disk_without_room_is_said_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("old")
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(UsageError, match=r"events\.csv \(No space left on device\): make room"),
        atomic_write(path),
    ):
        raise full
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_failure_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path / "copy"):
        tmp_path.read_bytes()


WRITER = """
import sys, time
from pathlib import Path
from edge.system.files import atomic_write, atomic_write_folder
target, kind = Path(sys.argv[1]), sys.argv[2]
with (atomic_write if kind == "file" else atomic_write_folder)(target) as partial:
    if kind != "file":
        partial.mkdir()
    print("writing", flush=True)
    time.sleep(600)
"""


def killed_while_writing(target: Path, kind: str) -> None:
    """Leave the files of a program that is killed while it writes."""
    command = [sys.executable, "-c", WRITER, str(target), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline() == b"writing\n"
        remove_leftovers(target.parent)  # which is no leftover yet
        assert len(list(target.parent.iterdir())) == 1
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_program_has_left_goes_with_the_next_write_beside_it(tmp_path: Path, kind: str) -> None:
    killed_while_writing(tmp_path / "model", kind)
    (leftover,) = tmp_path.iterdir()
    assert leftover.stat().st_mode & 0o777 == 0o700
    with atomic_write(tmp_path / "other") as partial:
        partial.write_text("new")
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]


def test_what_looks_like_a_leftover_and_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / ".notes.mmtl-12345678").write_text("a file")
    (tmp_path / ".notes.txt.k3_x9a2b.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / ".photos.mmtl-12345678").symlink_to("photos")
    (tmp_path / ".mmtl-12345678").mkdir()
    (tmp_path / ".photos.mmtl-1234567").mkdir()
    before = sorted(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_whose_replacement_was_interrupted_between_its_two_moves_is_replaced(tmp_path: Path) -> None:
    work = tmp_path / ".model.mmtl-abcd1234"
    for name in ("old", "new"):
        (work / name).mkdir(parents=True)
        (work / name / "version").write_text(name)
    remove_leftovers(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "version").read_text() == "new"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    for text in ("old", "new"):
        with atomic_write_folder(folder, mode=0o700) as staged:
            staged.mkdir()
            (staged / "version").write_text(text)
    assert (folder / "version").read_text() == "new"
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ZeroDivisionError), atomic_write_folder(folder) as staged:
        staged.mkdir(1 // 0)
    assert (folder / "version").read_text() == "new"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_name_of_any_length_that_the_system_allows_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("민" * 83 + ".srt")
    with atomic_write(path) as partial:
        partial.write_text("all of it")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_the_encoding_that_its_mark_names(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "split.json"
    path.write_bytes('{"test": ["Jürgen"]}'.encode(encoding))
    assert read_text(path) == '{"test": ["Jürgen"]}'
