"""Playback of takes. Without a loudspeaker it returns a message, and the session goes on."""

from __future__ import annotations

import contextlib
from typing import Any

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.devices import load_portaudio
from edge.audio.portaudio_thread import CLOSE_TIMEOUT_S, call
from edge.errors import DeviceError
from edge.system.standard_streams import native_stderr_silenced


class Loudspeaker:
    """The system's default output, one sound at a time."""

    def __init__(self, portaudio: Any = None) -> None:
        """Prepare; the device is opened by `play`.

        Args:
            portaudio: the sounddevice module, or a substitute with the functions used here.
        """
        self._given = portaudio

    def play(self, sound: Array) -> str:
        """Start to play (N,) samples at 16 kHz; return why that is impossible, or an empty text."""
        try:
            portaudio = self._given or load_portaudio()
            with native_stderr_silenced():
                reason = call(lambda: _play(portaudio, sound))
        except DeviceError as error:
            return f"It cannot be played: {error}"
        return f"It cannot be played: the loudspeaker cannot be opened ({reason})." if reason else ""

    def stop(self) -> None:
        """Stop what is playing."""
        with contextlib.suppress(DeviceError), native_stderr_silenced():
            portaudio = self._given or load_portaudio()
            call(lambda: portaudio.stop(ignore_errors=True), CLOSE_TIMEOUT_S)


def _play(portaudio: Any, sound: Array) -> str:
    """Start to play at 16 kHz or else at the device's rate; return the error if both are refused."""
    if not _refusal(portaudio, sound, SAMPLE_RATE):
        return ""
    return _refusal(portaudio, sound, _own_rate(portaudio))


def _refusal(portaudio: Any, sound: Array, rate: int) -> str:
    """Start to play at a rate (Hz); return the error, or an empty text."""
    try:
        portaudio.play(_at(sound, rate), rate)
    except (portaudio.PortAudioError, ValueError) as error:
        return " ".join(str(error).split()) or "no reason given"
    return ""


def _own_rate(portaudio: Any) -> int:
    """Return the default sample rate (Hz) of the default output."""
    try:
        output: dict[str, Any] = portaudio.query_devices(kind="output")
        return round(float(output["default_samplerate"]))
    except (portaudio.PortAudioError, ValueError):
        return SAMPLE_RATE


def _at(sound: Array, rate: int) -> Array:
    import soxr

    resampled: Array = sound if rate == SAMPLE_RATE else soxr.resample(sound, SAMPLE_RATE, rate)
    return resampled
