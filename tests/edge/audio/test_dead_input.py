"""A live input that delivers one value only is reported, and so is its return."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.block import Block, DeviceChange
from edge.audio.dead_input import DEAD_AFTER_S, REMEDIES, STUCK, ZEROS, report_dead_input
from edge.audio.microphone import Microphone
from edge.audio.sources import StdinSource
from edge.events import Device, Event, StreamWarning
from edge.model.bundle import Bundle
from edge.output.sinks import Sink
from edge.output.text import describe
from edge.recognition.pipeline import listen
from edge.recognition.recognizer import Recognizer
from edge.server.client_stream import ClientStream
from tests.edge.audio.portaudio import FakePortAudio, desk
from tests.edge.schema import checked_event

RATE = 16_000


def room(seconds: float, level: float = 1e-4) -> Array:
    return (level * np.random.default_rng(0).standard_normal(round(RATE * seconds))).astype(np.float32)


def constant(seconds: float, value: float = 0.0) -> Array:
    return np.full(round(RATE * seconds), value, np.float32)


def arriving(sound: Array, size: int = 1_280, pace: float = 1.0) -> list[Block]:
    """Cut a sound into blocks that arrive at a multiple of the pace of real time."""
    starts = range(0, len(sound), size)
    return [
        Block(sound[start : start + size], (start + len(sound[start : start + size])) / RATE / pace)
        for start in starts
    ]


def changes_of(blocks: list[Block]) -> list[tuple[float, DeviceChange]]:
    """Return the device changes and their times in seconds of the stream."""
    found, samples = [], 0
    for block in report_dead_input(blocks, "mic"):
        samples += block.lost + len(block.samples)
        if block.device_change:
            found.append((samples / RATE, block.device_change))
    return found


@pytest.mark.parametrize(
    ("value", "reason"), [(0.0, ZEROS), (0.3, STUCK), (-1.0, STUCK), (1.0, STUCK), (2**-15, STUCK)]
)
@pytest.mark.parametrize("size", [160, 1_280, 4_000])
def test_a_constant_input_is_reported_after_3_s_and_once(value: float, reason: str, size: int) -> None:
    ((heard_s, change),) = changes_of(arriving(constant(20.0, value), size))
    assert change == DeviceChange("mic", "silent", reason, REMEDIES[reason])
    assert DEAD_AFTER_S <= heard_s <= DEAD_AFTER_S + size / RATE


def test_an_input_that_dies_in_mid_stream_and_returns_is_reported_twice() -> None:
    (dead_s, dead), (alive_s, alive) = changes_of(
        arriving(np.concatenate([room(5.0), constant(4.0), room(1.0)]))
    )
    assert (dead.state, alive) == ("silent", DeviceChange("mic", "active"))
    assert dead_s == pytest.approx(8.0, abs=0.2)
    assert alive_s == pytest.approx(9.3, abs=0.2)


def test_a_click_does_not_make_a_dead_input_alive() -> None:
    sound = constant(10.0)
    sound[5 * RATE : 5 * RATE + 500] = 0.5
    assert [change.state for _, change in changes_of(arriving(sound))] == ["silent"]


def test_it_can_die_again_and_again() -> None:
    sound = np.concatenate([constant(4.0), room(0.5)] * 3)
    states = [change.state for _, change in changes_of(arriving(sound))]
    assert states == ["silent", "active"] * 3


def test_a_value_that_steps_and_stays_is_still_dead() -> None:
    sound = np.concatenate([constant(2.0, 0.1), constant(4.0, 0.2)])
    ((heard_s, change),) = changes_of(arriving(sound))
    assert (change.state, change.reason) == ("silent", STUCK)
    assert heard_s == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("level", [1e-6, 1e-5, 1e-3, 0.3])
def test_the_quietest_room_is_not_dead(level: float) -> None:
    assert changes_of(arriving(room(10.0, level))) == []


def test_one_step_of_16_bits_once_a_second_is_not_dead() -> None:
    sound = constant(10.0)
    sound[::RATE] = 2.0**-15
    assert changes_of(arriving(sound)) == []


def test_pauses_shorter_than_3_s_are_not_reported() -> None:
    assert changes_of(arriving(np.concatenate([room(1.0), constant(2.8)] * 4))) == []


def test_what_arrives_faster_than_real_time_is_a_file() -> None:
    assert changes_of(arriving(constant(30.0), pace=3.0)) == []
    assert len(changes_of(arriving(constant(30.0), pace=1.1))) == 1


def test_a_lost_device_begins_again() -> None:
    dead = arriving(constant(4.0))
    back = [
        Block(constant(0.0), 4.0, device_change=DeviceChange("mic", "lost")),
        Block(constant(0.0), 9.0, 80_000, DeviceChange("mic", "back")),
    ]
    later = [replace(block, arrived_s=block.arrived_s + 9.0) for block in arriving(constant(4.0))]
    states = [change.state for _, change in changes_of([*dead, *back, *later])]
    assert states == ["silent", "lost", "back", "silent"]


def test_lost_sound_does_not_make_a_dead_input_alive() -> None:
    blocks = [replace(block, lost=100) for block in arriving(constant(8.0))]
    assert [change.state for _, change in changes_of(blocks)] == ["silent"]


# Sources


class Clock:
    """Replaces `time.perf_counter` where sound is delivered faster than real time."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_microphone_that_is_dead_from_its_start_is_reported(
    monkeypatch: pytest.MonkeyPatch, rate: int, value: float
) -> None:
    clock, portaudio = Clock(), desk()
    portaudio.rates = (rate,)
    portaudio.devices[0]["default_samplerate"] = float(rate)
    monkeypatch.setattr("edge.audio.capture_buffer.time.perf_counter", clock)
    states = [
        change.state for change in reported_changes(portaudio, clock, rate, np.full((5 * rate, 1), value))
    ]
    assert states == ["silent"]


def test_a_microphone_of_which_a_channel_lives_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, portaudio = Clock(), desk()
    portaudio.rates, portaudio.channels = (48_000,), (2,)
    portaudio.devices[0] |= {"default_samplerate": 48_000.0, "max_input_channels": 2}
    monkeypatch.setattr("edge.audio.capture_buffer.time.perf_counter", clock)
    sound = np.stack([np.zeros(5 * 48_000), np.random.default_rng(0).normal(0, 1e-3, 5 * 48_000)], axis=1)
    assert reported_changes(portaudio, clock, 48_000, sound) == []


def reported_changes(portaudio: FakePortAudio, clock: Clock, rate: int, sound: Array) -> list[DeviceChange]:
    """Deliver (N, channels) sound at its pace by a clock, and return the microphone's changes."""
    found, size = [], rate // 10
    microphone = Microphone(portaudio=portaudio, buffer_s=60.0).__enter__()
    for start in range(0, len(sound), size):
        clock.now_s += size / rate
        portaudio.streams[-1].deliver(sound[start : start + size].astype(np.float32))
    microphone.__exit__(None, None, None)
    found = [block.device_change for block in microphone if block.device_change]
    assert {change.name for change in found} <= {microphone.name}
    return found


def test_a_live_pipe_that_is_muted_is_reported() -> None:
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            for _ in range(40):
                pipe.write(bytes(2 * 1_600))
                time.sleep(0.1)
            pipe.write((room(0.5, 0.1) * 32_767).astype("<i2").tobytes())

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as stream, StdinSource(stream=stream) as source:
        states = [block.device_change.state for block in source if block.device_change]
    thread.join()
    assert states == ["silent", "active"]


def test_digital_silence_in_a_file_is_no_fault() -> None:
    with StdinSource(stream=io.BytesIO(bytes(2 * 30 * RATE))) as source:
        assert [block.device_change for block in source if block.device_change] == []


def test_a_client_that_is_muted_is_told(bundle: Bundle) -> None:
    stream, events = ClientStream(Recognizer(bundle, provider="cpu"), "client"), []
    silence, speech = bytes(2 * 1_600), (room(0.1, 0.1) * 32_767).astype("<i2").tobytes()
    for number in range(50):
        events += stream.feed(silence if number < 40 else speech, RATE, 5.0 + 0.1 * number)
    found = [event for event in [*events, *stream.finish()] if isinstance(event, Device)]
    assert [(event.name, event.state) for event in found] == [("client", "silent"), ("client", "active")]
    assert found[0].time_s == pytest.approx(3.0, abs=0.2)
    assert [checked_event(event) for event in found]


# What people and programs are told


class Collected(Sink):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(checked_event(event))


class Dead:
    """A live source that delivers zeros."""

    name, live = "USB mic", True

    def __enter__(self) -> Dead:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def __iter__(self) -> Iterator[Block]:
        now_s = time.perf_counter()
        blocks = [replace(block, arrived_s=block.arrived_s + now_s) for block in arriving(constant(4.0))]
        return report_dead_input(blocks, self.name)


def test_the_event_says_what_and_when_and_the_line_what_to_do(bundle: Bundle) -> None:
    sink = Collected()
    summary = listen(Dead(), Recognizer(bundle, provider="cpu"), [sink])
    (event,) = [event for event in sink.events if isinstance(event, Device)]
    assert (event.name, event.state, event.reason) == ("USB mic", "silent", f"{ZEROS}: {REMEDIES[ZEROS]}")
    assert event.time_s == pytest.approx(3.0, abs=0.1)
    assert describe(event, percentages=True).endswith(f"device USB mic: silent ({event.reason})")
    assert summary.dropped == 0, "no sound was lost: none came"
    assert not [event for event in sink.events if isinstance(event, StreamWarning)]
