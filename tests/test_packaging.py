"""What a person who installs the wheel gets: the version, the commands, the files, the demo clip."""

import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.model.bundle import shipped_bundle
from edge.model.manifest import MANIFEST, SHIPPED, read_manifest

ROOT = Path(__file__).parents[1]

DEMO = ROOT / "edge" / "demo.flac"

PACKAGES = ("edge", "train", "calibrate", "export")

BUNDLE_FILES = [
    f"edge/bundles/{name}/{file}"
    for name in SHIPPED
    for file in (MANIFEST, *read_manifest(shipped_bundle(name)).required)
]

LARGEST_FILE = 11_000_000
"""Bytes: the default model's weights are 10.8 MB; no other file of the wheel has reason to exceed them."""

LARGEST_DEFAULT = 25e6
"""Bytes of the default model in the wheel."""

SOUND = {".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".raw", ".wav"}

COMMANDS = [
    entry
    for entry in metadata.entry_points(group="mmtl.commands")
    if entry.dist and entry.dist.name == "mmtl"
]


def espeak_version() -> str | None:
    """Return what espeak-ng calls itself, or None where it is not installed."""
    try:
        answer = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return answer.stdout.partition("  ")[0].strip()


def stray_files(files: dict[str, int]) -> list[str]:
    """List the files of a wheel that have no business there, given the size of each in bytes."""
    return [
        name
        for name, size in files.items()
        if name.split("/")[0] not in PACKAGES
        or Path(name).suffix.lower() in SOUND - {".flac"}
        or (name.endswith(".flac") and name != "edge/demo.flac")
        or Path(name).name.startswith(("test_", "conftest"))
        or "__pycache__" in name
        or size > LARGEST_FILE
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The wheel's files outside its metadata, with their sizes in bytes."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        files = {info.filename: info.file_size for info in archive.infolist()}
    return {name: size for name, size in files.items() if ".dist-info/" not in name}


def test_the_installed_version_is_the_one_declared() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared
    assert metadata.version("mmtl") == declared[1]


def test_there_are_commands_that_load_on_demand() -> None:
    assert {"train", "evaluate", "calibrate", "export"} <= {entry.name for entry in COMMANDS}


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_each_command_that_loads_on_demand_exists(entry: metadata.EntryPoint) -> None:
    assert callable(entry.load())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "edge/demo.flac",
        "edge/events.schema.json",
        *BUNDLE_FILES,
        *(
            f"calibrate/session/languages/{language}.txt"
            for language in ("da", "de", "en", "es", "fr", "ko", "pl")
        ),
    ],
)
def test_the_wheel_brings_what_the_demo_and_a_session_need(wheel: dict[str, int], name: str) -> None:
    assert wheel.get(name, 0) > 0


@pytest.mark.slow
def test_the_wheel_says_that_it_is_typed(wheel: dict[str, int]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= wheel.keys()


@pytest.mark.slow
def test_the_default_model_is_small_enough_to_ship(wheel: dict[str, int]) -> None:
    sizes = [size for name, size in wheel.items() if name.startswith("edge/bundles/default/")]
    assert 0 < sum(sizes) < LARGEST_DEFAULT


@pytest.mark.slow
def test_the_wheel_brings_nothing_else(wheel: dict[str, int]) -> None:
    assert stray_files(wheel) == []


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tests/test_boundaries.py", 100),
        ("edge/test_cli.py", 100),
        ("edge/recordings/take.flac", 100),
        ("train/take.WAV", 100),
        ("edge/bundles/small/window.onnx", LARGEST_FILE + 1),
        ("Makefile", 100),
    ],
)
def test_a_stray_file_in_the_wheel_is_found(name: str, size: int) -> None:
    assert stray_files({"edge/cli/main.py": 100, "edge/demo.flac": 100, name: size}) == [name]


def test_the_demo_clip_is_a_few_seconds_of_plain_sound() -> None:
    clip = soundfile.info(DEMO)
    assert (clip.samplerate, clip.channels, clip.subtype, clip.format) == (16_000, 1, "PCM_16", "FLAC")
    assert 8.0 <= clip.duration <= 14.0
    assert DEMO.stat().st_size < 400 * 1024


def test_the_demo_clip_is_what_its_script_makes(tmp_path: Path) -> None:
    with soundfile.SoundFile(DEMO) as file:
        made_with = file.comment.partition(" with ")[2]
    if espeak_version() != made_with:
        pytest.skip(f"the clip was made with {made_with}, here is {espeak_version() or 'no espeak-ng'}")
    again = tmp_path / "again.flac"
    subprocess.run([sys.executable, str(ROOT / "tests" / "make_demo.py"), str(again)], check=True)
    (shipped, _), (made, _) = soundfile.read(DEMO), soundfile.read(again)
    assert shipped.shape == made.shape
    assert np.abs(shipped - made).max() < 4.0 / 2**15
