"""Playing a take back. A machine may have no loudspeaker: then it says so, and nothing else happens."""

from __future__ import annotations

from typing import Any

from edge.audio import SAMPLE_RATE
from edge.devices import load_portaudio, quiet
from edge.errors import DeviceError
from edge.frontend import Array


class Loudspeaker:
    """The system's default output, one sound at a time."""

    def __init__(self, portaudio: Any = None) -> None:
        """Nothing is opened yet.

        Args:
            portaudio: an object with what is used of the sounddevice module, which is the default.
        """
        self._given = portaudio

    def play(self, sound: Array) -> str:
        """Begin to play (N,) samples at 16 kHz; return why it cannot be done, empty if it can."""
        try:
            portaudio = self._given or load_portaudio()
        except DeviceError as error:
            return f"It cannot be played: {error}"
        if not _refusal(portaudio, sound, SAMPLE_RATE):
            return ""
        reason = _refusal(portaudio, sound, _own_rate(portaudio))
        return f"It cannot be played: the loudspeaker does not open ({reason})." if reason else ""

    def stop(self) -> None:
        """Stop what is playing."""
        try:
            portaudio = self._given or load_portaudio()
            with quiet():
                portaudio.stop(ignore_errors=True)
        except DeviceError:
            return


def _refusal(portaudio: Any, sound: Array, rate: int) -> str:
    """Begin to play at a rate (Hz); return why it is refused, empty if it is not."""
    try:
        with quiet():
            portaudio.play(_at(sound, rate), rate)
    except (portaudio.PortAudioError, ValueError) as error:
        return " ".join(str(error).split()) or "no reason given"
    return ""


def _own_rate(portaudio: Any) -> int:
    """Return the rate (Hz) of the default output, for one that does not take 16 kHz."""
    try:
        output: dict[str, Any] = portaudio.query_devices(kind="output")
        return round(float(output["default_samplerate"]))
    except (portaudio.PortAudioError, ValueError):
        return SAMPLE_RATE


def _at(sound: Array, rate: int) -> Array:
    import soxr

    resampled: Array = sound if rate == SAMPLE_RATE else soxr.resample(sound, SAMPLE_RATE, rate)
    return resampled
