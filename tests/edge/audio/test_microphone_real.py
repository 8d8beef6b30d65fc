"""The microphone as a user has it: the command line, PortAudio, ALSA and a sound server."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.audio.sources import demo_clip
from tests.edge.audio.pulse import VirtualMicrophone

ROOT = Path(__file__).parents[3]

WAIT_S = 60.0

CARD = """
import sys
import sounddevice

# The ALSA plug-in converts whatever is asked for; a card has one rate and its own channels.
rate, channels = int(sys.argv.pop(1)), int(sys.argv.pop(1))
list_devices, open_stream = sounddevice.query_devices, sounddevice.RawInputStream

def query_devices(*args, **options):
    found = list_devices(*args, **options)
    own = {"default_samplerate": float(rate), "max_input_channels": channels}
    return {**found, **own} if isinstance(found, dict) else [{**entry, **own} for entry in found]

def refusing(**options):
    if (options["samplerate"], options["channels"]) != (rate, channels):
        raise sounddevice.PortAudioError("Invalid sample rate")
    return open_stream(**options)

sounddevice.query_devices, sounddevice.RawInputStream = query_devices, refusing
from edge.cli.main import main
main()
"""


class Run:
    """`mmtl run mic --jsonl -` on a card of one rate, and the events it has written so far."""

    def __init__(self, pulse: VirtualMicrophone, rate: int, channels: int, *options: str) -> None:
        card = [sys.executable, "-c", CARD, str(rate), str(channels)]
        self.process = subprocess.Popen(
            [*card, "run", "mic", "--jsonl", "-", "--provider", "cpu", *options],
            env=pulse.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self.noise = ""
        self._seen_s: list[float] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._listen)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self._seen_s.append(time.monotonic())
                self.events.append(json.loads(line))

    def _listen(self) -> None:
        assert self.process.stderr
        with self.process.stderr as noise:
            self.noise = noise.read()

    def wait_for(self, kind: str, since: int = 0, **fields: object) -> int:
        """Wait for an event and return its number."""
        deadline, reader = time.monotonic() + WAIT_S, self._readers[0]
        over = False
        while not over:
            over = time.monotonic() > deadline or not reader.is_alive()
            for number, event in enumerate(self.events[since:], since):
                if event["type"] == kind and all(event[key] == value for key, value in fields.items()):
                    return number
            time.sleep(0.02)
        raise AssertionError(
            f"no {kind} {fields} in {[event['type'] for event in self.events]}; {self.noise}"
        )

    def behind_s(self, first: int, last: int | None = None) -> float:
        """How far the clock of the sound is behind ours, by the event that was reported least late."""
        pairs = zip(self._seen_s[first:last], self.events[first:last], strict=False)
        late = [seen_s - event["end_s"] for seen_s, event in pairs if event["type"] == "window"]
        return min(late, default=math.inf)

    def wait_until_behind(self, behind_s: float, since: int, abs_s: float) -> None:
        """Wait until the clock of the sound is as far behind ours as it was; a busy machine reports late."""
        deadline = time.monotonic() + WAIT_S
        while self.behind_s(since) != pytest.approx(behind_s, abs=abs_s):
            assert time.monotonic() < deadline, f"{self.behind_s(since):.1f} s behind, not {behind_s:.1f}"
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.leave()

    def leave(self) -> int:
        """Wait until it ends and return the exit code."""
        code = self.process.wait(WAIT_S)
        for reader in self._readers:
            reader.join()
        return code


@contextmanager
def running(pulse: VirtualMicrophone, rate: int, channels: int, *options: str) -> Iterator[Run]:
    """Run the command on a microphone plugged in for it."""
    pulse.unplug()
    pulse.plug_in(rate, channels)
    run = Run(pulse, rate, channels, *options)
    try:
        yield run
    finally:
        run.process.kill()
        run.leave()


@pytest.mark.mic
@pytest.mark.slow
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1)])
def test_a_microphone_that_is_unplugged_in_mid_stream_is_taken_up_again(
    pulse: VirtualMicrophone, rate: int, channels: int
) -> None:
    with running(pulse, rate, channels) as run:
        run.wait_for("session")
        with pulse.playing(demo_clip()):
            run.wait_for("window", speech=True)
            pulse.unplug()
            lost = run.wait_for("device", state="lost")
        time.sleep(2.0)
        pulse.plug_in(rate, channels)
        back = run.wait_for("device", state="back")
        with pulse.playing(demo_clip()):
            run.wait_for("window", since=back, speech=True)
            run.wait_until_behind(run.behind_s(0, lost), back, abs_s=2.0)
            assert run.end() == 0
    events = run.events
    assert events[0]["type"] == "session"
    assert events[0]["source"] == "default"
    assert (events[-1]["type"], events[-1]["dropped"] > 0) == ("summary", True)
    assert events[lost]["name"] == events[back]["name"] == "default"
    overruns = [event for event in events[lost:back] if event["type"] == "overrun"]
    assert sum(event["lost_s"] for event in overruns) > 2.0
    assert events[back]["time_s"] == pytest.approx(overruns[-1]["start_s"] + overruns[-1]["lost_s"], abs=1e-3)
    assert min(event["lag_ms"] for event in events[back:] if event["type"] == "window") < 3_000
    assert "Traceback" not in run.noise


@pytest.mark.mic
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_microphone_is_away_ends_promptly(
    pulse: VirtualMicrophone, number: signal.Signals
) -> None:
    with running(pulse, 48_000, 2) as run:
        with pulse.playing(demo_clip()):
            run.wait_for("speech", active=True)
            pulse.unplug()
            run.wait_for("device", state="lost")
        time.sleep(1.5)
        assert run.end(number) == 0
    pulse.plug_in()
    assert run.events[-1]["type"] == "summary"
    assert "Traceback" not in run.noise


@pytest.mark.mic
@pytest.mark.slow
def test_a_recording_that_the_server_moves_to_another_microphone_goes_on_in_time(
    pulse: VirtualMicrophone,
) -> None:
    with running(pulse, 48_000, 2) as run:
        with pulse.playing(demo_clip()):
            before = run.wait_for("window", speech=True)
            pulse.plug_in(name="other")
            pulse.unplug()
        try:
            time.sleep(3.0)
            run.wait_until_behind(run.behind_s(0, before + 1), len(run.events), abs_s=1.5)
            assert run.end() == 0
        finally:
            pulse.unplug("other")
    states = {event["state"] for event in run.events if event["type"] == "device"}
    assert states <= {"silent", "active"}, "nothing plays into the other one"


@pytest.mark.mic
@pytest.mark.slow
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1)])
def test_a_microphone_that_delivers_only_zeros_is_reported_until_sound_comes(
    pulse: VirtualMicrophone, rate: int, channels: int
) -> None:
    with running(pulse, rate, channels) as run:
        silent = run.wait_for("device", state="silent")
        with pulse.playing(demo_clip()):
            active = run.wait_for("device", since=silent, state="active")
            run.wait_for("window", since=active, speech=True)
        run.wait_for("device", since=active, state="silent")
        assert run.end() == 0
    assert run.events[silent]["name"] == "default"
    assert run.events[silent]["time_s"] == pytest.approx(3.0, abs=0.5)
    assert run.events[silent]["reason"].startswith("only zeros arrive: see that it is not muted")
    assert run.events[-1]["type"] == "summary"


@pytest.mark.mic
@pytest.mark.slow
def test_strict_ends_with_exit_code_6_after_the_summary(pulse: VirtualMicrophone) -> None:
    with running(pulse, 48_000, 2, "--strict") as run, pulse.playing(demo_clip()):
        run.wait_for("speech", active=True)
        pulse.unplug()
        assert run.leave() == 6
    assert (run.events[-1]["type"], run.events[-1]["dropped"]) == ("summary", 1)
    assert "sound from default was lost" in run.noise
