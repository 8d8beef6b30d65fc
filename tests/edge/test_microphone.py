from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.audio import SAMPLE_RATE
from edge.blocks import Block
from edge.errors import DeviceError
from edge.frontend import Array
from edge.microphone import InputDevice, Microphone, input_devices
from tests.edge.pulse import PulseUnavailableError, VirtualMicrophone, virtual_microphone

ROOT = Path(__file__).parents[2]


# A PortAudio that does as it is told


class FakeError(Exception):
    """Stands for sounddevice.PortAudioError."""


@dataclass
class FakeStream:
    """A stream whose callbacks the test makes, from its own thread or another."""

    options: dict[str, Any]
    start_error: str = ""
    running: bool = False
    closed: bool = False
    adc_s: float = 50.0

    def start(self) -> None:
        if self.start_error:
            raise FakeError(self.start_error)
        self.running = True

    def close(self, ignore_errors: bool = True) -> None:
        self.running, self.closed = False, True
        self.options["finished_callback"]()

    def deliver(
        self, sound: Array, *, overflow: bool = False, gap_s: float = 0.0, clock: bool = True
    ) -> None:
        """Call back with (N, channels) sound; the converter's clock skips `gap_s` before it."""
        self.adc_s += gap_s
        times = SimpleNamespace(inputBufferAdcTime=self.adc_s if clock else 0.0)
        buffer = bytearray(sound.astype(np.float32).tobytes())
        self.options["callback"](buffer, len(sound), times, SimpleNamespace(input_overflow=overflow))
        buffer[:] = b"\xff" * len(buffer)
        self.adc_s += len(sound) / self.options["samplerate"]


@dataclass
class FakePortAudio:
    """The part of the sounddevice module that edge.microphone uses."""

    devices: list[dict[str, Any]]
    default: int = 0
    rates: tuple[int, ...] = (16_000,)
    channels: tuple[int, ...] = (1, 2)
    start_error: str = ""
    streams: list[FakeStream] = field(default_factory=list)
    PortAudioError = FakeError

    def query_devices(self, kind: str | None = None) -> Any:
        if kind is None:
            return tuple(self.devices)
        if self.default < 0:
            raise FakeError("Error querying device -1")
        return self.devices[self.default]

    def query_hostapis(self, index: int) -> dict[str, Any]:
        return {"name": ("ALSA", "JACK")[index]}

    def check_input_settings(self, *, device: int, channels: int, dtype: str, samplerate: int) -> None:
        assert dtype == "float32"
        assert self.devices[device]["max_input_channels"] >= channels
        if samplerate not in self.rates or channels not in self.channels:
            raise FakeError("Invalid sample rate [PaErrorCode -9997]")

    def RawInputStream(self, **options: Any) -> FakeStream:  # noqa: N802
        if options["samplerate"] not in self.rates or options["channels"] not in self.channels:
            raise FakeError("Invalid sample rate [PaErrorCode -9997]")
        self.streams.append(FakeStream(options, self.start_error))
        return self.streams[-1]


def device(index: int, name: str, inputs: int = 1, rate: float = 44_100.0, host: int = 0) -> dict[str, Any]:
    return {
        "index": index,
        "name": name,
        "hostapi": host,
        "max_input_channels": inputs,
        "default_samplerate": rate,
    }


def desk() -> FakePortAudio:
    return FakePortAudio(
        [
            device(0, "USB Headset: Audio (hw:1,0)"),
            device(1, "HDMI", inputs=0),
            device(2, "USB Camera: Audio (hw:2,0)", inputs=2, rate=48_000.0),
            device(3, "HDA Intel PCH (hw:0,0)", inputs=2, host=1),
        ]
    )


def ramp(samples: int, start: int = 0) -> Array:
    """(N, 1) sound whose every sample is its number, in 2 ** -15."""
    numbers = np.arange(start, start + samples, dtype=np.float32)
    return (numbers / np.float32(32_768))[:, None]


def opened(portaudio: FakePortAudio, **options: Any) -> tuple[Microphone, FakeStream]:
    microphone = Microphone(portaudio=portaudio, **options).__enter__()
    return microphone, portaudio.streams[-1]


def drain(microphone: Microphone) -> list[Block]:
    """Stop recording and take what had arrived."""
    microphone.__exit__(None, None, None)
    return list(microphone)


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(DeviceError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Which inputs there are


def test_inputs_are_listed_with_the_rates_that_really_open() -> None:
    portaudio = desk()
    portaudio.rates = (44_100, 48_000)
    assert input_devices(portaudio)[1] == InputDevice(
        index=2,
        name="USB Camera: Audio (hw:2,0)",
        host_api="ALSA",
        channels=2,
        default_rate=48_000,
        rates=(44_100, 48_000),
        default=False,
    )


def test_outputs_are_not_listed_and_one_input_is_the_default() -> None:
    portaudio = desk()
    portaudio.default = 3
    listed = input_devices(portaudio)
    assert [(entry.index, entry.default) for entry in listed] == [(0, False), (2, False), (3, True)]


def test_without_inputs_or_a_default_the_list_is_still_made() -> None:
    assert input_devices(FakePortAudio([], default=-1)) == []
    portaudio = desk()
    portaudio.default = -1
    assert not any(entry.default for entry in input_devices(portaudio))


def test_trying_rates_keeps_the_libraries_quiet_and_gives_the_terminal_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = (
        "import os, sys; from edge.microphone import _quiet\n"
        "with _quiet(): os.write(2, b'ALSA lib pcm.c: noise')\n"
        "os.write(2, b'diagnostics')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert capfd.readouterr().err == "diagnostics"


# Choosing


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (None, "USB Headset: Audio (hw:1,0)"),
        (2, "USB Camera: Audio (hw:2,0)"),
        ("2", "USB Camera: Audio (hw:2,0)"),
        ("intel pch", "HDA Intel PCH (hw:0,0)"),
        ("CAMERA", "USB Camera: Audio (hw:2,0)"),
    ],
)
def test_an_input_is_chosen_by_default_index_or_part_of_its_name(wanted: int | str | None, name: str) -> None:
    portaudio = desk()
    with Microphone(wanted, portaudio=portaudio) as microphone:
        assert microphone.name == name
        assert name == portaudio.devices[portaudio.streams[0].options["device"]]["name"]


def test_a_whole_name_wins_over_the_longer_ones_it_is_part_of() -> None:
    portaudio = FakePortAudio([device(0, "default:extra"), device(1, "default")])
    with Microphone("Default", portaudio=portaudio) as microphone:
        assert microphone.name == "default"


@pytest.mark.parametrize("wanted", ["bluetooth", "1", "17"])
def test_an_unknown_input_is_refused_with_the_list(wanted: str) -> None:
    message = error_of(Microphone(wanted, portaudio=desk()).__enter__)
    assert f"there is no input {wanted}: choose one with mic:INDEX from 0 (USB Headset" in message
    assert "3 (HDA Intel PCH (hw:0,0))" in message
    assert "HDMI" not in message


def test_an_ambiguous_name_is_refused_with_its_matches() -> None:
    message = error_of(Microphone("usb", portaudio=desk()).__enter__)
    assert "usb means several inputs" in message
    assert "0 (USB Headset" in message
    assert "2 (USB Camera" in message
    assert "Intel" not in message


def test_without_a_default_input_the_list_is_shown() -> None:
    portaudio = desk()
    portaudio.default = -1
    assert "no default input: choose one with mic:INDEX from 0 (" in error_of(
        Microphone(portaudio=portaudio).__enter__
    )


@pytest.mark.parametrize("wanted", [None, "usb"])
def test_without_any_input_it_says_what_to_check(wanted: str | None) -> None:
    portaudio = FakePortAudio([device(0, "HDMI", inputs=0)], default=-1)
    assert "arecord -l" in error_of(Microphone(wanted, portaudio=portaudio).__enter__)


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
        (None, "pip install sounddevice"),
    ],
)
def test_without_portaudio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, failure: OSError | None, remedy: str
) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise failure or ImportError(name)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert remedy in error_of(Microphone().__enter__)
    assert remedy in error_of(input_devices)


# Opening


def test_a_device_that_opens_at_16_khz_mono_is_used_so() -> None:
    portaudio = desk()
    portaudio.rates = (16_000, 44_100)
    with Microphone(portaudio=portaudio):
        options = portaudio.streams[0].options
        assert (options["samplerate"], options["channels"], options["dtype"]) == (16_000, 1, "float32")
        assert portaudio.streams[0].running


@pytest.mark.parametrize(("index", "inputs"), [(0, 1), (2, 2), (4, 2)])
def test_otherwise_it_opens_at_its_own_rate_with_two_channels_at_most(index: int, inputs: int) -> None:
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
    stereo = np.stack([2 * tone, 0 * tone], axis=1).astype(np.float32)
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
    microphone, stream = opened(desk(), stall_s=20.0)
    late = threading.Timer(0.1, stream.deliver, [ramp(320)])
    late.start()
    assert len(next(iter(microphone)).samples) == 320
    late.join()
    drain(microphone)


def test_a_device_that_falls_silent_is_reported_not_waited_for() -> None:
    microphone, stream = opened(desk(), stall_s=0.05)
    stream.deliver(ramp(320))
    blocks = iter(microphone)
    next(blocks)
    message = error_of(lambda: next(blocks))
    assert message.startswith("USB Headset: Audio (hw:1,0) stopped delivering sound 0.05 s ago: see")
    drain(microphone)


def test_a_recording_that_the_driver_ends_is_reported_at_once_after_its_last_sound() -> None:
    microphone, stream = opened(desk(), stall_s=60.0)
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


# The real PortAudio

RECORD = """
import sys
import numpy as np
import sounddevice
from edge.microphone import Microphone, input_devices
from edge.sources import open_source

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
        # The server begins with silence, while it makes the connection.
        if len(samples) or np.abs(block.samples).max() > 0.01:
            samples = np.append(samples, block.samples)
        if len(samples) >= 24_000:
            break
np.save(path, samples)
print(source.name, [(d.name, d.default, 16_000 in d.rates) for d in input_devices()], sep="|")
"""


@pytest.fixture(scope="module")
def pulse() -> Iterator[VirtualMicrophone]:
    try:
        with virtual_microphone() as microphone:
            yield microphone
    except PulseUnavailableError as error:
        pytest.skip(str(error))


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
    # Twice or half of it would be a wrong mix of the channels; a busy machine may leave small gaps.
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.3)


def record(pulse: VirtualMicrophone, spec: str, way: str, path: Path) -> str:
    command = [sys.executable, "-c", RECORD, spec, way, str(path)]
    done = subprocess.run(
        command,
        env=pulse.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()
