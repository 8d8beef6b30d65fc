"""The programs in examples/ run as their docstrings say."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from edge import demo_clip, recognize_file
from edge.audio.sound_file import read_clip
from tests.calibrate.labelled_takes import TWELVE, session, voice
from tests.edge.server.clients import serve_process

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
WAIT_S = 60.0


def example(name: str, *arguments: str) -> str:
    """Run an example to its end, and return what it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tests] == []


def test_an_example_that_is_no_program_is_tested_as_a_module() -> None:
    modules = {"livekit_emotion.py": "test_voice_agents.py"}
    for name, tests in modules.items():
        assert "__main__" not in (EXAMPLES / name).read_text("utf-8")
        assert f"import {Path(name).stem}" in (ROOT / "tests" / tests).read_text("utf-8")


def test_utterances_are_printed() -> None:
    lines = example("microphone.py", "demo").splitlines()
    assert lines
    assert all(" s  " in line and line.endswith("%") for line in lines)


def test_participants_are_recognised_side_by_side(tmp_path: Path) -> None:
    paths = [tmp_path / "anna.wav", tmp_path / "ben.wav"]
    for path in paths:
        soundfile.write(path, read_clip(demo_clip())[:40_000], 16_000)
    lines = example("participants.py", *map(str, paths)).splitlines()
    assert sorted(line.split()[0] for line in lines) == ["anna", "ben"]


def test_a_pipeline_of_pipecat_prints_utterances() -> None:
    """Where Pipecat is installed; `test_voice_agents.py` says why it may not be."""
    pytest.importorskip("pipecat", reason="pipecat-ai is not installed")
    command = [sys.executable, str(EXAMPLES / "pipecat_emotion.py"), str(demo_clip())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout.startswith("13.5 s: ")


def test_a_websocket_client_gets_its_events() -> None:
    pytest.importorskip("websockets", reason="websockets is not installed")
    with serve_process("--websocket", "0", "--provider", "cpu") as server:
        address = f"ws://127.0.0.1:{server.ports['websocket']}"
        lines = example("websocket_client.py", address, str(demo_clip())).splitlines()
    assert lines[0].startswith("utterance ")
    assert lines[-1].split() == ["summary"]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_speaker_is_calibrated(tmp_path: Path) -> None:
    sounds = [voice(emotion, seed) for seed, emotion in enumerate(TWELVE)]
    profile = tmp_path / "me.profile.safetensors"
    lines = example("calibrate_speaker.py", str(session(tmp_path, TWELVE, sounds)), str(profile)).splitlines()
    assert lines[0].startswith("adopted: ")
    assert lines[1].startswith(f"{profile} is ready")


def test_a_cluster_gives_the_rows_of_one_process_though_a_process_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    psutil = pytest.importorskip("psutil", reason="dask[distributed], which needs psutil, is not installed")
    folder, table = tmp_path / "clips", tmp_path / "table.csv"
    folder.mkdir()
    clips = [Path(shutil.copy(demo_clip(), folder / f"{number}.flac")) for number in range(4)]
    command = [sys.executable, *map(str, (EXAMPLES / "dask_cluster.py", folder, table, "", "small"))]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as cluster:
        first = cluster.stdout.readline() if cluster.stdout else ""
        children = psutil.Process(cluster.pid).children()
        workers = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
        os.kill(workers[0], signal.SIGKILL)
        _, said = cluster.communicate(timeout=4 * WAIT_S)
    assert (first[:6], len(workers), cluster.returncode) == ("1 of 4", 2, 0), said
    (row,) = recognize_file(clips[0], "small")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    alone = {name: "" if cell is None else str(cell) for name, cell in row.cells().items()}
    assert rows == [alone | {"file": str(clip)} for clip in clips]


@pytest.fixture
def broker() -> Iterator[str]:
    """Run a broker on the loopback, and give its address."""
    if BROKER is None:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen([BROKER, "-p", str(port)], stdout=nowhere, stderr=nowhere) as running:
        try:
            deadline = time.monotonic() + WAIT_S
            while not answers(port):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            running.kill()


def test_a_subscriber_gets_the_utterances(broker: str) -> None:
    pytest.importorskip("paho.mqtt", reason="paho-mqtt is not installed")
    command = [sys.executable, str(EXAMPLES / "mqtt_subscriber.py"), broker, "voice"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as subscriber:
        try:
            assert subscriber.stdout
            assert subscriber.stdout.readline() == "subscribed\n"
            program = [sys.executable, "-c", "from edge.cli.main import main; main()"]
            publishing = [*program, "run", "demo", "--provider", "cpu", "--mqtt", f"{broker}/voice"]
            subprocess.run(publishing, cwd=ROOT, timeout=WAIT_S, check=True)
            *utterances, last = subscriber.communicate(timeout=WAIT_S)[0].splitlines()
        finally:
            subscriber.kill()
    assert utterances
    assert last.endswith(" s were heard")
