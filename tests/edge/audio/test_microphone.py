from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.arrays import SAMPLE_RATE
from edge.audio import microphone as microphone_module
from edge.audio.block import Block, DeviceChange
from edge.audio.downmix import Channel
from edge.audio.microphone import Microphone
from edge.errors import UsageError
from tests.edge.audio.portaudio import FakePortAudio, FakeStream, desk, device, error_of, ramp
from tests.edge.audio.pulse import VirtualMicrophone

ROOT = Path(__file__).parents[3]


def opened(portaudio: FakePortAudio, **options: Any) -> tuple[Microphone, FakeStream]:
    microphone = Microphone(portaudio=portaudio, **options).__enter__()
    return microphone, portaudio.streams[-1]


def heard(portaudio: FakePortAudio, **options: Any) -> tuple[Microphone, FakeStream, Iterator[Block]]:
    """Open a microphone and take its first block."""
    microphone, stream = opened(portaudio, **options)
    stream.deliver(ramp(320))
    blocks = iter(microphone)
    next(blocks)
    return microphone, stream, blocks


def drain(microphone: Microphone, blocks: Iterator[Block] | None = None) -> list[Block]:
    """Stop recording and return the blocks that have arrived, or the rest of an iteration."""
    microphone.__exit__(None, None, None)
    return list(blocks or microphone)


# Opening


def test_a_device_that_opens_at_16_khz_mono_is_used_so() -> None:
    portaudio = desk()
    portaudio.rates = (16_000, 44_100)
    with Microphone(portaudio=portaudio):
        options = portaudio.streams[0].options
        assert (options["samplerate"], options["channels"], options["dtype"]) == (16_000, 1, "float32")
        assert portaudio.streams[0].running


@pytest.mark.parametrize(("index", "inputs"), [(0, 1), (2, 2), (4, 1)])
def test_otherwise_it_opens_at_its_own_rate_and_an_array_with_its_first_channel(
    index: int, inputs: int
) -> None:
    portaudio = desk()
    portaudio.devices.append(device(4, "Array", inputs=6))
    portaudio.rates = (44_100, 48_000)
    with Microphone(index, portaudio=portaudio):
        options = portaudio.streams[0].options
        assert options["samplerate"] == portaudio.devices[index]["default_samplerate"]
        assert options["channels"] == inputs


def test_an_array_that_opens_with_all_its_channels_only_is_opened_so() -> None:
    portaudio = FakePortAudio([device(0, "Array", inputs=6, rate=16_000.0)], channels=(6,))
    with Microphone(portaudio=portaudio):
        assert portaudio.streams[0].options["channels"] == 6


@pytest.mark.parametrize(
    ("inputs", "channel", "opened"),
    [
        (2, "auto", 2),
        (2, "mix", 2),
        (2, 1, 2),
        (6, "auto", 6),
        (6, "mix", 6),
        (6, 0, 1),
        (6, 4, 5),
        (32, "auto", 2),
    ],
)
def test_a_device_is_opened_with_the_channels_that_are_needed(
    inputs: int, channel: Channel, opened: int
) -> None:
    """A sound server states 32 channels and more, and mixes them itself where fewer are asked for."""
    entry = device(0, "Mic", inputs=inputs, rate=16_000.0)
    portaudio = FakePortAudio([entry], channels=tuple(range(1, 40)))
    with Microphone(portaudio=portaudio, channel=channel):
        assert portaudio.streams[0].options["channels"] == opened


def test_a_channel_that_the_device_does_not_have_is_refused() -> None:
    portaudio = FakePortAudio([device(0, "Mic", inputs=2, rate=16_000.0)])
    with pytest.raises(UsageError, match="channel 2 was asked for, the sound has channels 0 to 1"):
        Microphone(portaudio=portaudio, channel=2).__enter__()
    assert portaudio.streams == []


def test_a_microphone_wired_in_opposite_phase_is_heard_and_said_once() -> None:
    portaudio = desk()
    portaudio.rates = (16_000,)
    microphone, stream = opened(portaudio, device="camera")
    voice = np.random.default_rng(0).normal(0.0, 0.1, 32_000).astype(np.float32)
    for at in range(0, 32_000, 320):
        stream.deliver(np.stack([voice, -voice], axis=1)[at : at + 320])
    blocks = drain(microphone)
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), voice)
    warnings = [block.warning for block in blocks if block.warning]
    assert [warning.what for warning in warnings] == ["channels"]


def test_a_device_that_does_not_open_is_named_with_the_reason() -> None:
    portaudio = desk()
    portaudio.rates = ()
    message = error_of(Microphone(portaudio=portaudio).__enter__)
    assert message.startswith("USB Headset: Audio (hw:1,0) does not open (Invalid sample rate")
    assert "close other programs" in message


def test_a_device_that_opens_but_does_not_start_is_closed_and_refused() -> None:
    portaudio = desk()
    portaudio.rates = (16_000, 44_100)
    portaudio.start_error = "Device\nunavailable [PaErrorCode -9985]"
    assert "does not open (Device unavailable" in error_of(Microphone(portaudio=portaudio).__enter__)
    assert portaudio.streams
    assert all(stream.closed for stream in portaudio.streams)


# Listening


def test_sound_comes_out_as_it_went_in_though_the_driver_reuses_its_memory() -> None:
    microphone, stream = opened(desk())
    stream.deliver(ramp(320))
    stream.deliver(ramp(77, start=320))
    blocks = drain(microphone)
    assert [(len(block.samples), block.lost) for block in blocks] == [(320, 0), (77, 0)]
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), ramp(397)[:, 0])
    assert blocks[0].arrived_s <= blocks[1].arrived_s


def test_a_device_at_its_own_rate_in_stereo_is_mixed_down_and_resampled() -> None:
    portaudio = desk()
    portaudio.rates = (48_000,)
    microphone, stream = opened(portaudio, device="camera")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    stereo = np.stack([1.5 * tone, 0.5 * tone], axis=1).astype(np.float32)
    for at in range(0, 48_000, 960):
        stream.deliver(stereo[at : at + 960])
    samples = np.concatenate([block.samples for block in drain(microphone)])
    assert len(samples) == SAMPLE_RATE
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    np.testing.assert_allclose(samples[800:15_200], expected[800:15_200], atol=2e-3)


def test_a_full_buffer_drops_the_oldest_and_says_how_much() -> None:
    microphone, stream = opened(desk(), buffer_s=0.1)
    for index in range(8):
        stream.deliver(ramp(320, start=320 * index))
    first, *others = drain(microphone)
    assert first.lost == 3 * 320
    np.testing.assert_array_equal(first.samples, ramp(320, start=960)[:, 0])
    assert [block.lost for block in others] == [0, 0, 0, 0]


def test_what_is_lost_and_what_is_heard_add_up_to_what_was_said() -> None:
    portaudio = desk()
    portaudio.rates = (44_100,)
    microphone, stream = opened(portaudio, buffer_s=0.25)
    heard = lost = 0
    blocks = iter(microphone)
    for second in range(5):
        for _ in range(50):
            stream.deliver(np.zeros((882, 1), np.float32))
        for _ in range(6 if second < 4 else 0):
            block = next(blocks)
            heard, lost = heard + len(block.samples), lost + block.lost
    microphone.__exit__(None, None, None)
    for block in blocks:
        heard, lost = heard + len(block.samples), lost + block.lost
    assert lost > 0
    assert abs(heard + lost - 5 * SAMPLE_RATE) <= 1


def test_an_overflow_in_the_driver_is_as_long_as_its_timestamps_say() -> None:
    microphone, stream = opened(desk())
    stream.deliver(ramp(320))
    stream.deliver(ramp(320), overflow=True, gap_s=0.25)
    stream.deliver(ramp(320))
    assert [block.lost for block in drain(microphone)] == [0, 4_000, 0]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_a_loss_stands_between_what_was_heard_before_and_after_it_to_the_sample(rate: int) -> None:
    portaudio = FakePortAudio([device(0, "USB", rate=float(rate))], rates=(rate,))
    microphone, stream = opened(portaudio)
    for index in range(60):
        loud = np.full((rate // 50, 1), 0.5 if 13 <= index < 37 else 0.0, np.float32)
        lossy = index in (13, 37)
        stream.deliver(loud, overflow=lossy, gap_s=0.25 if lossy else 0.0)
    at, losses, loudness = 0, [], []
    for block in drain(microphone):
        if block.lost:
            losses.append((at, block.lost))
            loudness.append(0.0)
        at += block.lost + len(block.samples)
        loudness[-1:] = [max([*loudness[-1:], float(np.abs(block.samples).max())])]
    assert losses == [(13 * 320, 4_000), (37 * 320 + 4_000, 4_000)]
    assert at == 60 * 320 + 8_000
    assert [peak > 0.4 for peak in loudness] == [False, True, False]


def test_a_gap_in_the_timestamps_without_an_overflow_is_no_loss() -> None:
    microphone, stream = opened(desk())
    stream.deliver(ramp(320))
    stream.deliver(ramp(320), gap_s=0.25)
    assert [block.lost for block in drain(microphone)] == [0, 0]


@pytest.mark.parametrize(("gap_s", "clock"), [(0.25, False), (0.0, True), (-30.0, True), (1e9, True)])
def test_an_overflow_without_usable_timestamps_counts_as_one_block(gap_s: float, clock: bool) -> None:
    microphone, stream = opened(desk())
    stream.deliver(ramp(320), clock=clock)
    stream.deliver(ramp(320), overflow=True, gap_s=gap_s, clock=clock)
    assert [block.lost for block in drain(microphone)] == [0, 320]


def test_an_overflow_in_a_piece_that_is_dropped_is_not_forgotten() -> None:
    microphone, stream = opened(desk(), buffer_s=0.04)
    stream.deliver(ramp(320))
    stream.deliver(ramp(320), overflow=True, gap_s=0.25)
    stream.deliver(ramp(320))
    stream.deliver(ramp(320))
    assert [block.lost for block in drain(microphone)] == [320 + 4_000 + 320, 0]


def test_a_late_callback_wakes_the_listener() -> None:
    microphone, stream = opened(desk(), stall_s=60.0)
    late = threading.Timer(0.1, stream.deliver, [ramp(320)])
    late.start()
    assert len(next(iter(microphone)).samples) == 320
    late.join()
    drain(microphone)


def test_a_device_that_falls_silent_is_reported_not_waited_for() -> None:
    microphone, _, blocks = heard(desk(), stall_s=0.05, reconnect=False)
    message = error_of(lambda: next(blocks))
    assert message.startswith("USB Headset: Audio (hw:1,0) stopped delivering sound 0.05 s ago: see")
    drain(microphone)


def test_a_recording_that_the_driver_ends_is_reported_at_once_after_its_last_sound() -> None:
    microphone, stream = opened(desk(), stall_s=60.0, reconnect=False)
    stream.deliver(ramp(320))
    stream.options["finished_callback"]()
    blocks = iter(microphone)
    assert len(next(blocks).samples) == 320
    assert "stopped delivering sound: its driver ended" in error_of(lambda: next(blocks))
    drain(microphone)


def test_leaving_closes_the_device_and_ends_the_iteration() -> None:
    portaudio = desk()
    with Microphone(portaudio=portaudio, stall_s=60.0) as microphone:
        stream = portaudio.streams[0]
        stream.deliver(ramp(320))
        blocks = iter(microphone)
        next(blocks)
    assert stream.closed
    assert list(blocks) == []


def test_leaving_in_another_thread_ends_a_listener_who_waits() -> None:
    microphone, _ = opened(desk(), stall_s=60.0)
    leaving = threading.Timer(0.05, microphone.__exit__, [None, None, None])
    leaving.start()
    assert list(microphone) == []
    leaving.join()


def test_a_microphone_can_be_used_again_and_starts_afresh() -> None:
    portaudio = desk()
    microphone = Microphone(portaudio=portaudio)
    for start in (0, 5_000):
        with microphone:
            portaudio.streams[-1].deliver(ramp(320, start))
        np.testing.assert_array_equal(next(iter(microphone)).samples, ramp(320, start)[:, 0])


# Unplugged


HEADSET = "USB Headset: Audio (hw:1,0)"


class Clock:
    """A clock that the test sets."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for lost devices without delay."""
    monkeypatch.setattr(microphone_module, "RETRY_S", 0.001)


def lose(stream: FakeStream) -> None:
    """Pull the plug: the driver ends the recording by itself."""
    stream.options["finished_callback"]()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_an_unplugged_device_is_taken_up_again_by_name_and_the_time_between_is_lost_sound(rate: int) -> None:
    portaudio, clock = desk(), Clock()
    microphone, stream = opened(portaudio, clock=clock, stall_s=60.0)
    stream.deliver(ramp(320))
    blocks = iter(microphone)
    assert next(blocks).device_change is None
    lose(stream)
    lost = next(blocks)
    assert (lost.device_change, len(lost.samples), lost.lost) == (DeviceChange(HEADSET, "lost"), 0, 0)

    def plug_in(fake: FakePortAudio) -> None:
        fake.devices = [device(4, "Other"), device(7, "USB Headset: Audio (hw:3,0)", rate=48_000.0)]
        fake.rates, fake.opening = (rate,), ramp(rate // 50)

    portaudio.plan = plug_in
    clock.now_s += 10.0
    back = next(blocks)
    assert (back.device_change, len(back.samples)) == (DeviceChange(HEADSET, "back"), 0)
    assert back.lost == 10 * SAMPLE_RATE - 320
    assert stream.closed
    assert (portaudio.streams[-1].options["device"], portaudio.starts) == (7, 2)
    after = drain(microphone, blocks)
    assert sum(len(block.samples) for block in after) == 320
    assert [(block.lost, block.device_change) for block in after] == [(0, None)] * len(after)
    assert all(opened.closed for opened in portaudio.streams)


@pytest.mark.usefixtures("hasty")
def test_a_device_is_looked_for_until_it_is_there_and_opens() -> None:
    portaudio = desk()
    microphone, stream, blocks = heard(portaudio)
    lose(stream)

    def later(fake: FakePortAudio) -> None:
        fake.devices = [device(0, "HDMI", inputs=0)] if fake.starts < 4 else [device(0, HEADSET)]
        fake.start_error = "Device unavailable" if fake.starts < 6 else ""
        fake.opening = ramp(320)

    portaudio.plan = later
    assert [next(blocks).device_change, next(blocks).device_change] == [
        DeviceChange(HEADSET, "lost"),
        DeviceChange(HEADSET, "back"),
    ]
    assert portaudio.starts == 6
    drain(microphone)


@pytest.mark.usefixtures("hasty")
def test_a_device_that_opens_again_but_delivers_nothing_is_not_back() -> None:
    portaudio = desk()
    microphone, _, blocks = heard(portaudio, stall_s=0.02)
    assert next(blocks).device_change == DeviceChange(HEADSET, "lost")

    def deaf(fake: FakePortAudio) -> None:
        fake.opening = ramp(320) if fake.starts == 4 else None

    portaudio.plan = deaf
    assert next(blocks).device_change == DeviceChange(HEADSET, "back")
    assert portaudio.starts == 4
    drain(microphone)


@pytest.mark.usefixtures("hasty")
def test_a_device_can_be_lost_again_and_again() -> None:
    portaudio, clock = desk(), Clock()
    portaudio.opening = ramp(320)
    microphone, _ = opened(portaudio, clock=clock, stall_s=60.0)
    changes, heard = [], 0
    blocks = iter(microphone)
    for _ in range(3):
        heard += len(next(blocks).samples)
        lose(portaudio.streams[-1])
        changes.append(next(blocks))
        clock.now_s += 1.0
        changes.append(next(blocks))
    assert [block.device_change.state for block in changes if block.device_change] == ["lost", "back"] * 3
    assert heard + sum(block.lost for block in changes) == 3 * SAMPLE_RATE
    drain(microphone)


@pytest.mark.usefixtures("hasty")
def test_what_a_lost_device_delivers_late_is_not_heard() -> None:
    portaudio = desk()
    microphone, stream, blocks = heard(portaudio, stall_s=60.0)
    portaudio.opening = ramp(320, start=5_000)
    lose(stream)
    assert [next(blocks).device_change, next(blocks).device_change] == [
        DeviceChange(HEADSET, "lost"),
        DeviceChange(HEADSET, "back"),
    ]
    stream.deliver(ramp(320, start=9_000))
    np.testing.assert_array_equal(
        np.concatenate([block.samples for block in drain(microphone, blocks)]), ramp(320, start=5_000)[:, 0]
    )


def test_leaving_while_the_device_is_away_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone_module, "RETRY_S", 60.0)
    portaudio = desk()
    microphone, stream, blocks = heard(portaudio)
    lose(stream)
    assert next(blocks).device_change == DeviceChange(HEADSET, "lost")
    leaving = threading.Timer(0.05, microphone.__exit__, [None, None, None])
    leaving.start()
    assert list(blocks) == []
    leaving.join()
    assert portaudio.starts == 1


@pytest.mark.usefixtures("hasty")
def test_leaving_while_the_device_is_being_opened_frees_it() -> None:
    portaudio = desk()
    microphone, stream, blocks = heard(portaudio)
    lose(stream)
    assert next(blocks).device_change == DeviceChange(HEADSET, "lost")
    portaudio.opening = ramp(320)
    portaudio.plan = lambda _: microphone.__exit__(None, None, None)
    assert next(blocks, None) is None
    assert [opened.closed for opened in portaudio.streams] == [True, True]


def test_a_device_that_never_delivered_anything_is_an_error() -> None:
    portaudio = desk()
    microphone, stream = opened(portaudio, stall_s=60.0)
    lose(stream)
    assert "stopped delivering sound" in error_of(lambda: next(iter(microphone)))
    assert portaudio.starts == 1
    drain(microphone)


# The real PortAudio

RECORD = """
import sys
import numpy as np
import sounddevice
from edge.audio.devices import input_devices
from edge.audio.microphone import Microphone
from edge.audio.sources import open_source

class Refusing:
    \"\"\"The real PortAudio on a device that has no 16 kHz.\"\"\"
    def __getattr__(self, name):
        return getattr(sounddevice, name)
    def RawInputStream(self, samplerate, **options):
        if samplerate == 16_000:
            raise sounddevice.PortAudioError("Invalid sample rate")
        return sounddevice.RawInputStream(samplerate=samplerate, **options)

spec, way, path = sys.argv[1:]
source = open_source(spec) if way == "direct" else Microphone(portaudio=Refusing())
samples = np.zeros(0, np.float32)
with source:
    for block in source:
        # The server begins with silence, while it makes the connection; a busy machine leaves gaps.
        whole = np.abs(block.samples).max() > 0.01 and not block.lost
        samples = np.append(samples, block.samples) if whole else samples[:0]
        if len(samples) >= 24_000:
            break
np.save(path, samples)
print(source.name, [(d.name, d.default, 16_000 in d.rates) for d in input_devices()], sep="|")
"""


@pytest.mark.mic
@pytest.mark.parametrize(("spec", "way"), [("mic", "direct"), ("mic:PULSE", "direct"), ("mic", "resampled")])
def test_a_tone_played_into_a_real_microphone_is_heard_at_its_pitch(
    pulse: VirtualMicrophone, tmp_path: Path, spec: str, way: str
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1_234.0 * np.arange(48_000 * 20) / 48_000)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], axis=1), 48_000)
    with pulse.playing(tmp_path / "tone.wav"):
        told = record(pulse, spec, way, tmp_path / "heard.npy")
    name, listed = told.split("|")
    assert name == ("pulse" if "PULSE" in spec else "default")
    assert "('default', True, True)" in listed
    heard = np.load(tmp_path / "heard.npy")[-SAMPLE_RATE:]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert abs(int(spectrum.argmax()) - 1_234) <= 2
    # Twice or half of it would be a wrong mix of the channels.
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.3)


@pytest.mark.mic
def test_channels_of_a_real_microphone_in_opposite_phase_do_not_cancel(
    pulse: VirtualMicrophone, tmp_path: Path
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1_234.0 * np.arange(48_000 * 20) / 48_000)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, -tone], axis=1), 48_000)
    with pulse.playing(tmp_path / "tone.wav"):
        record(pulse, "mic", "direct", tmp_path / "heard.npy")
    heard = np.load(tmp_path / "heard.npy")[-SAMPLE_RATE:]
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.3)


def record(pulse: VirtualMicrophone, spec: str, way: str, path: Path) -> str:
    command = [sys.executable, "-c", RECORD, spec, way, str(path)]
    done = subprocess.run(
        command,
        env=pulse.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()
