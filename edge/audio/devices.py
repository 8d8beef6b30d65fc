"""Sound inputs, through PortAudio: which there are, which one is meant, and which is the same as before.

PortAudio is loaded when it is first needed, so that files can be heard on a machine without it. Where
`portaudio` is an argument, it is the sounddevice module or an object with what is used of it.
"""

from __future__ import annotations

import functools
import itertools
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from edge.audio.portaudio_thread import call
from edge.errors import DeviceError
from edge.system.standard_streams import native_stderr_silenced

TRIED_RATES: Final = (8_000, 16_000, 32_000, 44_100, 48_000, 96_000)
"""Hz."""
CHECK_INPUTS: Final = (
    "plug a microphone in, see that `arecord -l` lists it and that this user is in the group audio"
)
ALSA_ADDRESS: Final = re.compile(r"\s*\(hw:\d+,\d+\)$")
"""Ends an ALSA device's name: the number of the card, which may be another after each plugging."""


@dataclass(frozen=True)
class InputDevice:
    """Something that PortAudio can record from."""

    index: int
    name: str
    host_api: str
    """The system behind it: ALSA, Core Audio, WASAPI, ..."""
    channels: int
    """At most so many."""
    default_rate: int
    """Hz."""
    rates: tuple[int, ...]
    """Those of `TRIED_RATES`, in Hz, that really open."""
    default: bool
    """What "mic" means."""


def input_devices(portaudio: Any = None) -> list[InputDevice]:
    """List the inputs, each tried at the usual rates; an empty list where there are none.

    Raises:
        DeviceError: PortAudio is not installed, or the sound server does not answer.
    """
    portaudio = portaudio or load_portaudio()
    with native_stderr_silenced():
        default = call(lambda: _default_index(portaudio))
        return [_describe(portaudio, entry, default) for entry in call(lambda: _inputs(portaudio))]


def select_input(portaudio: Any, device: int | str | None) -> dict[str, Any]:
    """Find the one input that is meant, as PortAudio describes it; on PortAudio's thread.

    Args:
        portaudio: what to ask.
        device: an index, a part of a name in any case, or None for the system's default.

    Raises:
        DeviceError: none or several are meant.
    """
    inputs = _inputs(portaudio)
    if not inputs:
        raise DeviceError("there is no sound input", remedy=f"{CHECK_INPUTS}; a file or the demo needs none")
    matches = _matching(portaudio, inputs, device)
    if len(matches) == 1:
        return matches[0]
    if device is None:
        said, listed = "the system has no default input", inputs
    elif matches:
        said, listed = f"{device} means several inputs", matches
    else:
        said, listed = f"there is no input {device}", inputs
    names = ", ".join(f"{entry['index']} ({entry['name']})" for entry in listed)
    raise DeviceError(said, remedy=f"choose one with mic:INDEX from {names}")


def find_same_input(portaudio: Any, entry: dict[str, Any]) -> dict[str, Any] | None:
    """Find an input that was there before, by its name; None while it is away; on PortAudio's thread.

    Its index may have changed, and with ALSA the card's number at the end of its name. Where there
    are several of that name, the one that differs least is taken.

    Args:
        portaudio: what to ask.
        entry: what PortAudio said of it before.
    """
    same = [found for found in _inputs(portaudio) if _bare_name(found) == _bare_name(entry)]
    traits = ("hostapi", "name", "index")
    return max(same, key=lambda found: [found[trait] == entry[trait] for trait in traits], default=None)


def rescan_devices(portaudio: Any) -> None:
    """Let PortAudio see what was plugged in or out: it lists the devices only when it starts.

    Ends every stream of this process. On PortAudio's thread.

    Raises:
        PortAudioError: it does not start; later it may.
    """
    with native_stderr_silenced():
        # It has ended already where starting it failed the last time.
        with suppress(portaudio.PortAudioError):
            portaudio._terminate()
        portaudio._initialize()


def load_portaudio() -> Any:
    """Import sounddevice, which starts PortAudio.

    Raises:
        DeviceError: it, or PortAudio, is not installed, or the sound server does not answer.
    """
    try:
        with native_stderr_silenced():
            return call(_import_sounddevice)
    except OSError as error:
        message = "a microphone needs the PortAudio library, which is missing"
        raise DeviceError(message, remedy="apt install libportaudio2") from error
    except ImportError as error:
        message = "a microphone needs sounddevice, which is missing"
        raise DeviceError(message, remedy="pip install sounddevice") from error


def _import_sounddevice() -> Any:
    import sounddevice

    return sounddevice


def _matching(portaudio: Any, inputs: list[dict[str, Any]], device: int | str | None) -> list[dict[str, Any]]:
    if device is None:
        index = _default_index(portaudio)
        return [entry for entry in inputs if entry["index"] == index]
    wanted = str(device).casefold()
    if wanted.isdecimal():
        return [entry for entry in inputs if entry["index"] == int(wanted)]
    same = [entry for entry in inputs if entry["name"].casefold() == wanted]
    return same or [entry for entry in inputs if wanted in entry["name"].casefold()]


def _inputs(portaudio: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    with suppress(portaudio.PortAudioError):  # there is no device of the next index
        entries.extend(_entry(portaudio, index) for index in itertools.count())
    return [entry for entry in entries if entry["max_input_channels"] > 0]


def _entry(portaudio: Any, index: int) -> dict[str, Any]:
    """Return PortAudio's description of a device, also where its name is not UTF-8, which ALSA allows."""
    try:
        return dict(portaudio.query_devices(index))
    except UnicodeDecodeError as error:
        info = portaudio._lib.Pa_GetDeviceInfo(index)
        return {
            "index": index,
            "name": error.object.decode("utf-8", "replace"),
            "hostapi": info.hostApi,
            "max_input_channels": info.maxInputChannels,
            "default_samplerate": info.defaultSampleRate,
        }


def _bare_name(entry: dict[str, Any]) -> str:
    return ALSA_ADDRESS.sub("", entry["name"])


def _default_index(portaudio: Any) -> int:
    """Return the index of the system's default input, -1 where there is none."""
    try:
        return int(portaudio.query_devices(kind="input")["index"])
    except UnicodeDecodeError:
        return int(portaudio._lib.Pa_GetDefaultInputDevice())
    except (portaudio.PortAudioError, ValueError):  # there is none, or it has no input
        return -1


def _describe(portaudio: Any, entry: dict[str, Any], default: int) -> InputDevice:
    return InputDevice(
        index=entry["index"],
        name=entry["name"],
        host_api=call(lambda: portaudio.query_hostapis(entry["hostapi"])["name"]),
        channels=entry["max_input_channels"],
        default_rate=round(entry["default_samplerate"]),
        rates=tuple(
            rate for rate in TRIED_RATES if call(functools.partial(_opens, portaudio, entry["index"], rate))
        ),
        default=entry["index"] == default,
    )


def _opens(portaudio: Any, index: int, rate: int) -> bool:
    try:
        portaudio.check_input_settings(device=index, channels=1, dtype="float32", samplerate=rate)
    except (portaudio.PortAudioError, UnicodeDecodeError):  # sounddevice decodes its name
        return False
    return True
