"""The end of a test run names the system packages that would enable the skipped tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system_packages import PACKAGES, packages_for

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("reason", "packages"),
    [
        ("pactl is not installed", ["libasound2-plugins", "libportaudio2", "pulseaudio"]),
        ("libportaudio2 is not installed", ["libasound2-plugins", "libportaudio2", "pulseaudio"]),
        ("the clip was made with 1.51, here is no espeak-ng", ["espeak-ng"]),
        ("mosquitto or openssl is not installed", ["mosquitto", "openssl"]),
        ("there is no C compiler to make a driver with", ["gcc", "libc6-dev"]),
        ("the clip was made with espeak-ng 1.50, here is espeak-ng 1.51", []),
        ("root may write to a read-only folder", []),
        ("paho-mqtt is not installed", []),
    ],
)
def test_a_reason_names_its_packages(reason: str, packages: list[str]) -> None:
    assert packages_for([reason, reason]) == packages


def test_ci_installs_every_package() -> None:
    listed = re.search(r"packages=\((.*?)\)", (ROOT / ".ci" / "run").read_text("utf-8"), re.DOTALL)
    assert listed
    assert {package for packages in PACKAGES.values() for package in packages.split()} <= {*listed[1].split()}


def test_a_run_without_a_compiler_ends_with_the_packages(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/edge/gpu/test_probe.py"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    *_, last = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ of the skipped tests would run with: apt install gcc libc6-dev", last)


def test_a_run_that_skips_nothing_for_want_of_a_package_says_nothing() -> None:
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/edge/test_labels.py"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "apt install" not in done.stdout
