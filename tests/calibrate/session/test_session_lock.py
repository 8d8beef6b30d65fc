"""One session of a name at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calibrate.session.session_lock import session_lock
from edge.errors import ProfileError, UsageError

HOLD = """
from calibrate.session.session_lock import session_lock
with session_lock('anna'):
    print(flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store sessions in a folder of the test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_second_session_of_a_name_is_refused_and_does_not_end_the_first() -> None:
    with session_lock("anna"):
        for _ in range(2):
            with (
                pytest.raises(UsageError, match="a session of anna is already running"),
                session_lock("anna"),
            ):
                pass
        with session_lock("bob"):
            pass
    with session_lock("anna"):
        pass


def test_the_lock_leaves_nothing_on_disk(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), session_lock("anna"):
        raise ZeroDivisionError
    assert not home.exists()


def test_the_lock_leaves_other_files_in_place(home: Path) -> None:
    take = home / "mmtl" / "sessions" / "anna" / "00-neutral.wav"
    take.parent.mkdir(parents=True)
    take.write_bytes(b"a voice")
    with session_lock("anna"):
        pass
    assert [path.name for path in take.parent.parent.iterdir()] == ["anna"]
    assert take.exists()


def test_a_program_that_is_killed_leaves_nothing_locked() -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(UsageError, match="already running"), session_lock("anna"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        with session_lock("anna"):
            pass


def test_a_folder_that_cannot_be_made_is_an_error(home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.raises(UsageError, match=r"cannot write to .*XDG_DATA_HOME"), session_lock("anna"):
        pass


def test_a_name_that_no_profile_can_have_is_refused() -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"), session_lock("../anna"):
        pass
