"""Which channel is heard, the same from Python, from files, pipes and the server, and on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import Array
from edge.audio.downmix import Channel
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.errors import SoundWarning, UsageError
from edge.events import Event, StreamWarning, Window
from edge.model.bundle import Bundle
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from edge.server.client_session import Service
from edge.server.client_stream import shared_engines
from tests.command_line import exit_code_of
from tests.edge.server.clients import END, FAST, Events, messages, open_server, said_to, websocket

ROOT = Path(__file__).parents[3]
PROGRAM = "from edge.cli.main import main; main()"


@pytest.fixture(scope="module")
def voice() -> Array:
    return read_clip(demo_clip())[:72_000]


def opposite(voice: Array) -> Array:
    return np.stack([voice, -voice], axis=1)


def array_of_six(voice: Array) -> Array:
    """Processed voice, four microphones, playback: as a ReSpeaker delivers them."""
    random = np.random.default_rng(0)
    microphones = [0.8 * voice + random.normal(0.0, 0.003, len(voice)) for _ in range(4)]
    playback = 0.3 * np.sin(2 * np.pi * 700 * np.arange(len(voice)) / 16_000)
    return np.stack([voice, *microphones, playback], axis=1).astype(np.float32)


def posteriors(events: list[Event]) -> list[dict[str, float]]:
    return [event.probs for event in events if isinstance(event, Window)]


def said(bundle: Bundle, waveform: Array, channel: Channel = "auto") -> list[Event]:
    recognizer = Recognizer(bundle, settings=Settings(channel=channel), provider="cpu")
    starts = range(0, len(waveform), 1_234)
    events = [
        event
        for start in starts
        for event in recognizer.accept_waveform(16_000, waveform[start : start + 1_234])
    ]
    return events + recognizer.flush()


def test_python_hears_opposite_phase_and_arrays_as_one_voice(bundle: Bundle, voice: Array) -> None:
    expected = posteriors(said(bundle, voice))
    assert len(expected) > 3
    for waveform in (opposite(voice), array_of_six(voice), np.stack([voice, 0 * voice], axis=1)):
        assert posteriors(said(bundle, waveform)) == expected
    warnings = [event for event in said(bundle, opposite(voice)) if isinstance(event, StreamWarning)]
    assert [event.what for event in warnings] == ["channels"]


def test_python_hears_the_channel_it_asks_for(bundle: Bundle, voice: Array) -> None:
    waveform = np.stack([0.1 * voice[::-1], voice], axis=1)
    assert posteriors(said(bundle, waveform, 1)) == posteriors(said(bundle, voice))
    with pytest.raises(UsageError, match="channel 2 was asked for"):
        said(bundle, waveform, 2)
    with pytest.raises(UsageError, match="is no channel"):
        said(bundle, waveform, "left")


def test_a_clip_is_read_as_a_stream_hears_it(tmp_path: Path, voice: Array) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, opposite(voice), 16_000, subtype="FLOAT")
    with pytest.warns(SoundWarning, match=r"clip\.wav: the two channels cancel each other"):
        np.testing.assert_array_equal(read_clip(path), voice)
    np.testing.assert_array_equal(read_clip(path, 1), -voice)
    assert not read_clip(path, "mix").any()
    soundfile.write(path, array_of_six(voice), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_clip(path), voice)


# The server


def raw(sound: Array) -> bytes:
    return (32_767 * sound).astype("<i2").tobytes()


def windows(events: Events) -> list[dict[str, float]]:
    return [event["probs"] for event in events if event["type"] == "window"]


@pytest.fixture(scope="module")
def make(bundle: Bundle) -> Callable[[], Recognizer]:
    return shared_engines(bundle, provider="cpu")


def test_a_client_states_its_channels(make: Callable[[], Recognizer], voice: Array) -> None:
    with open_server(Service(make, limits=FAST)) as running:
        expected = windows(said_to(running, raw(voice)))
        six = said_to(running, b'{"channels": 6}\n', raw(array_of_six(voice)))
        with websocket(running, "?channels=2") as client:
            data = raw(opposite(voice))
            for start in range(0, len(data), 30_001):
                client.send(data[start : start + 30_001])
            client.send(END)
            two = messages(client)
    assert len(expected) > 3
    assert windows(six) == windows(two) == expected
    assert [event["what"] for event in two if event["type"] == "warning"] == ["channels"]


@pytest.mark.parametrize("stated", [0, -1, 65, 1.5, "two", True, [2]])
def test_a_number_of_channels_that_cannot_be_is_refused(
    make: Callable[[], Recognizer], stated: object
) -> None:
    with open_server(Service(make, limits=FAST)) as running:
        events = said_to(running, json.dumps({"channels": stated}).encode() + b"\n", bytes(3_200))
    assert [event["type"] for event in events] == ["session", "error", "summary"]
    assert "expected 1 to 64" in events[1]["message"]


def test_the_server_s_channel_is_every_client_s(bundle: Bundle, voice: Array) -> None:
    maker = shared_engines(bundle, settings=Settings(channel=1), provider="cpu")
    with open_server(Service(maker, limits=FAST)) as running:
        other = np.stack([0.1 * voice[::-1], voice], axis=1)
        second = said_to(running, b'{"channels": 2}\n', raw(other))
        mono = said_to(running, raw(voice))
    assert len(windows(second)) > 3
    assert "channel 1 was asked for, the sound has channel 0 only" in mono[1]["message"]


# The command line


def mmtl(*arguments: object, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        input=data,
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_run_hears_the_channel_it_is_told(tmp_path: Path, voice: Array) -> None:
    path = tmp_path / "array.wav"
    soundfile.write(path, array_of_six(voice), 16_000)
    log, outputs = tmp_path / "events.jsonl", []
    for more in ([], ["--channel", 0], ["--channel", 5], ["--channel", "mix"]):
        assert exit_code_of("run", path, "--provider", "cpu", "--jsonl", log, "--replace", *more) == 0
        outputs.append([json.loads(line) for line in log.read_text().splitlines()])
    auto, first, playback, mix = (windows(events) for events in outputs)
    assert auto == first
    assert len({json.dumps(each) for each in (first, playback, mix)}) == 3


def test_a_pipe_of_two_channels_is_heard(voice: Array) -> None:
    done = mmtl("run", "-", "--channels", 2, "--provider", "cpu", data=raw(opposite(voice)))
    assert done.returncode == 0
    assert (
        "warning: the two channels cancel each other (opposite phase): only channel 0 is used" in done.stdout
    )
    assert re.search(r"0:04\.5  end: ", done.stdout)


def test_a_warning_goes_to_stderr_where_stdout_is_for_programs(voice: Array) -> None:
    done = mmtl("run", "-", "--channels", 2, "--provider", "cpu", "--csv", "-", data=raw(opposite(voice)))
    assert "warning: the two channels cancel each other" in done.stderr
    assert "warning" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demo", "--channel", "1"], "channel 1 was asked for, the sound has channel 0 only"),
        (["run", "demo", "--channel", "left"], "'left' is no channel: give a number from 0, mix or auto"),
        (["run", "-", "--channels", "0"], "0 channels were stated, expected 1 to 64"),
        (["verify", "default", "demo", "--channel", "3"], "channel 3 was asked for"),
        (["serve", "--tcp", "0", "--channel", "x"], "'x' is no channel"),
        (["calibrate", "anna", "--channel", "x"], "'x' is no channel"),
    ],
)
def test_a_channel_that_cannot_be_is_a_usage_error_in_one_line(arguments: list[str], message: str) -> None:
    done = mmtl(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
