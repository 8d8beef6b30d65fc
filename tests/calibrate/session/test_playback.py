"""Playback of takes, with and without a loudspeaker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

import calibrate.session.playback
from calibrate.session.playback import Loudspeaker
from edge.arrays import Array
from edge.errors import DeviceError
from tests.calibrate.session.synthetic_voices import tone


class FakeError(Exception):
    """Stands for sounddevice.PortAudioError."""


@dataclass
class FakeOutput:
    """The part of the sounddevice module that plays."""

    rates: tuple[int, ...] = (16_000,)
    default_rate: float = 48_000.0
    played: list[tuple[int, int]] = field(default_factory=list)
    stopped: int = 0
    PortAudioError = FakeError

    def play(self, sound: Array, rate: int) -> None:
        if rate not in self.rates:
            raise FakeError("Invalid sample rate [PaErrorCode -9997]")
        self.played.append((len(sound), rate))

    def stop(self, *, ignore_errors: bool) -> None:
        assert ignore_errors
        self.stopped += 1

    def query_devices(self, kind: str) -> dict[str, Any]:
        assert kind == "output"
        if not self.default_rate:
            raise FakeError("Error querying device -1")
        return {"default_samplerate": self.default_rate}


def test_a_take_is_played_as_it_is() -> None:
    output = FakeOutput()
    assert Loudspeaker(output).play(tone(1.0)) == ""
    assert output.played == [(16_000, 16_000)]


def test_a_loudspeaker_with_one_rate_gets_that_rate() -> None:
    output = FakeOutput(rates=(48_000,))
    assert Loudspeaker(output).play(tone(1.0)) == ""
    assert output.played == [(48_000, 48_000)]


@pytest.mark.parametrize("default_rate", [0.0, 44_100.0])
def test_no_loudspeaker_is_one_line(default_rate: float) -> None:
    said = Loudspeaker(FakeOutput(rates=(), default_rate=default_rate)).play(tone(1.0))
    assert said.startswith("It cannot be played")
    assert "Invalid sample rate" in said
    assert "\n" not in said


def test_without_portaudio_playback_returns_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise DeviceError("PortAudio is missing")

    monkeypatch.setattr(calibrate.session.playback, "load_portaudio", missing)
    assert Loudspeaker().play(tone(1.0)) == "It cannot be played: PortAudio is missing"
    Loudspeaker().stop()


def test_it_stops() -> None:
    output = FakeOutput()
    Loudspeaker(output).stop()
    assert output.stopped == 1
