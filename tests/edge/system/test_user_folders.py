"""Without a home folder, a command that needs one says so in one line, and the others work."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from edge.errors import UsageError
from edge.gpu.plan import StalePlanError, find_plan
from edge.model.bundle import Bundle
from edge.system.user_folders import cache_folder, data_folder
from tests.edge.schema import checked

ROOT = Path(__file__).parents[3]

VARIABLES = ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "STATE_DIRECTORY")

HOMELESS = """
import pwd

def unknown(number):
    raise KeyError(number)

pwd.getpwuid = unknown
from edge.cli.main import main
main()
"""


def mmtl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mmtl` as a user without an account entry and without HOME."""
    return subprocess.run(
        [sys.executable, "-c", HOMELESS, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in VARIABLES},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_what_to_set_is_said() -> None:
    with pytest.raises(UsageError, match=r"no home folder.*: set HOME or XDG_DATA_HOME$"):
        data_folder()
    with pytest.raises(UsageError, match=r"no home folder.*: set HOME or XDG_CACHE_HOME$"):
        cache_folder()


@pytest.mark.usefixtures("homeless")
def test_a_folder_is_never_called_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_, **__: Path("~/.local/share/mmtl"))
    with pytest.raises(UsageError, match="no home folder"):
        data_folder()


@pytest.mark.usefixtures("homeless")
def test_either_variable_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert data_folder() == tmp_path / "data" / "mmtl"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder().is_relative_to(tmp_path)
    assert cache_folder().is_relative_to(tmp_path)


@pytest.mark.usefixtures("homeless")
def test_an_engine_that_could_be_nowhere_is_one_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(StalePlanError, match="no home folder"):
        find_plan(bundle)


@pytest.mark.parametrize("command", ["profile list", "run demo --profile anna", "calibrate anna"])
def test_a_command_that_needs_the_folder_is_one_line_and_code_2(command: str) -> None:
    done = mmtl(*command.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mmtl: this user has no home folder")
    assert done.stderr.count("\n") == 1


def test_a_command_that_does_not_need_it_works() -> None:
    done = mmtl("run", "demo", "--provider", "cpu", "--jsonl", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert checked(done.stdout.splitlines()[-1])["type"] == "summary"


def test_the_doctor_says_it_with_a_remedy() -> None:
    done = mmtl("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    for name in ("profiles", "profile folder"):
        assert checks[name]["verdict"] == "problem"
        assert checks[name]["remedy"] == "set HOME or XDG_DATA_HOME"
    assert checks["engine folder"]["remedy"] == "set HOME or XDG_CACHE_HOME"
    assert "report this line" not in done.stdout
