"""No output destroys an input, another output or an existing file, under any name or link."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, get_args

import pytest

from edge.errors import MmtlError, UsageError
from edge.system.outputs import (
    Existing,
    OutputFile,
    existing_policy,
    is_stdout,
    require_distinct_files,
    require_free,
    require_free_folder,
    write_atomically,
)

ROOT = Path(__file__).parents[3]
DEVICES = ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/stderr"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "rec" / "mine.wav"
    path.parent.mkdir()
    path.write_bytes(b"sound")
    return path


def test_an_output_that_is_an_input_is_refused_by_every_name(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "symbolic").symlink_to(recording)
    os.link(recording, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(recording.parent)
    names = [recording, tmp_path / "symbolic", tmp_path / "hard", tmp_path / "folder" / "mine.wav"]
    names.append(recording.parent / ".." / "rec" / "mine.wav")
    for name in names:
        for output, given in ((name, recording), (recording, name)):
            with pytest.raises(UsageError, match=r"--jsonl would overwrite .*, which is an input"):
                require_distinct_files({"--jsonl": output}, [None, given])
    require_distinct_files({"--jsonl": tmp_path / "new.jsonl"}, names)
    assert recording.read_bytes() == b"sound"


def test_files_that_are_not_there_yet_are_told_apart_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new")
    with pytest.raises(UsageError, match=r"--jsonl and --csv both name .*new: give each its own file"):
        require_distinct_files({"--jsonl": tmp_path / "new", "--csv": tmp_path / "link"}, [])
    require_distinct_files({"--jsonl": tmp_path / "new", "--csv": tmp_path / "newer"}, [])


def test_a_circle_of_links_and_a_name_that_cannot_be_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    require_distinct_files({"--jsonl": tmp_path / "a", "--csv": tmp_path / ("x" * 300)}, [tmp_path / "c"])


def test_a_file_of_an_input_folder_is_refused_and_a_new_one_in_it_is_not(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "engine").mkdir(parents=True)
    for name in ("model.json", "engine/window.onnx"):
        (bundle / name).write_text("of the model")
        os.link(bundle / name, tmp_path / "hard")
        for output in (bundle / name, tmp_path / "hard"):
            with pytest.raises(UsageError, match="--csv would overwrite"):
                require_distinct_files({"--csv": output}, [bundle])
        (tmp_path / "hard").unlink()
    require_distinct_files({"--csv": bundle / "windows.csv"}, [bundle])


def test_a_folder_that_is_replaced_may_hold_no_input(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "link").symlink_to(recording.parent)
    for out in (recording.parent, tmp_path / "link", tmp_path):
        with pytest.raises(UsageError, match=r"--out would overwrite .*mine\.wav"):
            require_distinct_files({"--out": out}, [recording])


def test_devices_and_pipes_may_be_named_twice_and_stdout_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", str(tmp_path / "pipe")):
        require_distinct_files({"--jsonl": path, "--csv": path}, [path])
    for path in ("-", "/dev/stdout", "/dev/fd/1"):
        assert is_stdout(path)
        with pytest.raises(UsageError, match="--jsonl and stdout both name"):
            require_distinct_files({"--jsonl": path, "stdout": "-"}, ["-"])
    assert not any(is_stdout(path) for path in ("/dev/stderr", "/dev/stdin", "out", None))


def apart(outputs: str, inputs: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> str:
    """Return the stderr of a program that checks its outputs and inputs."""
    body = f"from edge.system import outputs\noutputs.require_distinct_files({outputs}, {inputs})"
    command = [sys.executable, "-c", body]
    done = subprocess.run(command, cwd=ROOT, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False)
    return done.stderr.decode()


def test_what_the_shell_has_opened_is_known_for_the_file_it_is(recording: Path) -> None:
    with recording.open("ab") as appended:
        assert "stdout would overwrite" in apart("{'stdout': '-'}", f"[{str(recording)!r}]", stdout=appended)
    with recording.open("rb") as given:
        assert "--csv would overwrite -, which" in apart(
            f"{{'--csv': {str(recording)!r}}}", "['-']", stdin=given
        )


def test_a_file_in_the_way_is_kept_unless_it_is_empty_or_may_go(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    for free in ("empty", "new"):
        require_free(tmp_path / free, replace=False)
    require_free(recording, replace=True)
    for taken in (recording, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="already: give --replace"):
            require_free(taken, replace=False)


def test_a_folder_in_the_way_is_kept_unless_it_is_ours_and_may_go(tmp_path: Path) -> None:
    def ours(folder: Path) -> bool:
        return (folder / "bundle.json").exists()

    (tmp_path / "stranger").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").touch()
    require_free_folder(tmp_path / "new", "a bundle", ours=ours, replace=False)
    require_free_folder(tmp_path / "bundle", "a bundle", ours=ours, replace=True)
    with pytest.raises(UsageError, match="bundle already holds a bundle: add --replace"):
        require_free_folder(tmp_path / "bundle", "a bundle", ours=ours, replace=False)
    with pytest.raises(UsageError, match="stranger exists and is not a bundle: name another folder"):
        require_free_folder(tmp_path / "stranger", "a bundle", ours=ours, replace=True)


def test_a_text_is_written_whole_for_its_owner_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "one\n", replace=False)
    with pytest.raises(UsageError, match="already: give --replace"):
        write_atomically(tmp_path / "link", "two\n", replace=False)
    write_atomically(tmp_path / "link", "three\n", replace=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "three\n"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600


def test_a_text_goes_through_a_pipe_and_to_devices_without_questions(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "Jürgen\n", replace=False)
    reader.join()
    assert read == ["Jürgen\n"]
    assert pipe.is_fifo()
    for device in DEVICES:
        write_atomically(Path(device), "text\n", replace=False)
    assert capfd.readouterr() == ("text\n" * 3, "text\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_that_takes_no_more_is_an_error_with_a_remedy() -> None:
    with pytest.raises(MmtlError, match=r"/dev/full \(No space left on device\): write elsewhere"):
        write_atomically(Path("/dev/full"), "text\n", replace=False)


def test_a_file_that_is_written_to_is_refused_to_others_until_it_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "events.jsonl")
    first = OutputFile(path)
    for existing in get_args(Existing):
        with pytest.raises(UsageError, match=r"another program writes to .*jsonl: end that one first"):
            OutputFile(path, existing)
    first.stream.close()
    OutputFile(path).stream.close()


def test_a_file_that_is_written_to_is_not_replaced_either(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = OutputFile(str(path))
    for replace in (False, True):
        with pytest.raises(UsageError, match="another program writes to"):
            write_atomically(path, "text\n", replace=replace)
    log.stream.close()
    write_atomically(path, "text\n", replace=False)


def test_a_new_file_is_for_its_owner_and_an_old_one_that_is_added_to_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    OutputFile(str(path)).stream.close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("line\n")
    path.chmod(0o640)
    output = OutputFile(str(path), "append")
    output.begin()
    output.stream.close()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text() == "line\n"


@pytest.mark.parametrize("device", DEVICES)
def test_devices_are_never_locked_truncated_or_asked_about(device: str) -> None:
    first, second = OutputFile(device), OutputFile(device, "replace")
    for output in (first, second):
        output.begin()
        output.stream.close()


def test_what_stdout_leads_to_is_not_truncated_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "all.log"
    path.write_text("old\n")
    body = "from edge.output.sinks import *\nJsonLines('/dev/stdout', 'replace').write('new')"
    with path.open("ab") as appended:
        subprocess.run([sys.executable, "-c", body], cwd=ROOT, stdout=appended, check=True)
    assert path.read_text() == "old\nnew\n"


def test_one_of_replace_and_append_can_be_meant() -> None:
    assert existing_policy(replace=False, append=False) == "refuse"
    assert existing_policy(replace=True, append=False) == "replace"
    assert existing_policy(replace=False, append=True) == "append"
    with pytest.raises(UsageError, match="--replace and --append do not go together"):
        existing_policy(replace=True, append=True)
