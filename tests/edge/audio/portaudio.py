"""A fake PortAudio: tests make the callbacks, and plug devices in and out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.arrays import Array
from edge.audio.portaudio_thread import call
from edge.errors import DeviceError


class FakeError(Exception):
    """Stands for sounddevice.PortAudioError."""


@dataclass
class FakeStream:
    """A stream whose callbacks the test makes, from its own thread or another."""

    options: dict[str, Any]
    start_error: str = ""
    opening: Array | None = None
    """Delivered at once when it starts."""
    running: bool = False
    closed: bool = False
    adc_s: float = 50.0

    def start(self) -> None:
        if self.start_error:
            raise FakeError(self.start_error)
        self.running = True
        if self.opening is not None:
            self.deliver(self.opening)

    def close(self, ignore_errors: bool = True) -> None:
        assert not self.closed, "PortAudio would read memory that it has freed"
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
    """The part of the sounddevice module that edge.audio.devices and edge.audio.microphone use.

    A test's `plan` is called with it at each restart, to plug devices in or out.
    """

    devices: list[dict[str, Any]]
    default: int = 0
    rates: tuple[int, ...] = (16_000,)
    channels: tuple[int, ...] = (1, 2)
    start_error: str = ""
    opening: Array | None = None
    plan: Callable[[FakePortAudio], None] | None = None
    streams: list[FakeStream] = field(default_factory=list)
    starts: int = 1
    running: bool = True
    PortAudioError = FakeError

    def _terminate(self) -> None:
        if not self.running:
            raise FakeError("PortAudio not initialized [PaErrorCode -10000]")
        self.running = False

    def _initialize(self) -> None:
        self.starts += 1
        if self.plan:
            self.plan(self)
        self.running = True

    def query_devices(self, device: int | None = None, kind: str | None = None) -> dict[str, Any]:
        index = self.default if device is None else device
        if not 0 <= index < len(self.devices):
            raise FakeError(f"Error querying device {index}")
        found = self.devices[index]
        return found if isinstance(found["name"], str) else {**found, "name": found["name"].decode()}

    @property
    def _lib(self) -> SimpleNamespace:
        """What sounddevice calls, for a device whose name is bytes that are not UTF-8."""

        def describe(index: int) -> SimpleNamespace:
            names = {"hostapi": "hostApi", "max_input_channels": "maxInputChannels"}
            names["default_samplerate"] = "defaultSampleRate"
            return SimpleNamespace(**{names[key]: self.devices[index][key] for key in names})

        return SimpleNamespace(Pa_GetDeviceInfo=describe, Pa_GetDefaultInputDevice=lambda: self.default)

    def query_hostapis(self, index: int) -> dict[str, Any]:
        return {"name": ("ALSA", "JACK")[index]}

    def check_input_settings(self, *, device: int, channels: int, dtype: str, samplerate: int) -> None:
        assert dtype == "float32"
        assert self.devices[device]["max_input_channels"] >= channels
        if samplerate not in self.rates or channels not in self.channels:
            raise FakeError("Invalid sample rate [PaErrorCode -9997]")

    def RawInputStream(self, **options: Any) -> FakeStream:  # noqa: N802
        assert self.running
        if options["samplerate"] not in self.rates or options["channels"] not in self.channels:
            raise FakeError("Invalid sample rate [PaErrorCode -9997]")
        self.streams.append(FakeStream(options, self.start_error, self.opening))
        return self.streams[-1]


class Frozen:
    """A call to a frozen sound server, which returns once the server is thawed."""

    def __init__(self) -> None:
        self._thawed = threading.Event()

    def __call__(self) -> bool:
        return self._thawed.wait(60.0)

    def thaw(self) -> None:
        """Let all calls return that were not cancelled."""
        self._thawed.set()
        assert call(lambda: True, 60.0)


def device(
    index: int, name: str | bytes, inputs: int = 1, rate: float = 44_100.0, host: int = 0
) -> dict[str, Any]:
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


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(DeviceError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message
