"""Sound inputs through PortAudio: list them, select one, and find a lost one again.

PortAudio is loaded when it is first needed: files can be read on a machine without it. An argument
`portaudio` is the sounddevice module, or an object with the same functions.
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
"""The card number at the end of an ALSA device's name, which may change each time it is plugged in."""


@dataclass(frozen=True)
class InputDevice:
    """An input that PortAudio can record from."""

    index: int
    name: str
    host_api: str
    """The system behind it: ALSA, Core Audio, WASAPI, ..."""
    channels: int
    """Largest number of channels."""
    default_rate: int
    """Hz."""
    rates: tuple[int, ...]
    """Those of `TRIED_RATES`, in Hz, that can be opened."""
    default: bool
    """Whether the source "mic" means this input."""


def input_devices(portaudio: Any = None) -> list[InputDevice]:
    """List the inputs with the usual rates that each supports.

    Raises:
        DeviceError: PortAudio is not installed, or the sound server does not answer.
    """
    portaudio = portaudio or load_portaudio()
    with native_stderr_silenced():
        default = call(lambda: _default_index(portaudio))
        return [_describe(portaudio, entry, default) for entry in call(lambda: _inputs(portaudio))]


def select_input(portaudio: Any, device: int | str | None) -> dict[str, Any]:
    """Select an input, and return PortAudio's description of it. Runs on PortAudio's thread.

    Args:
        portaudio: as above.
        device: an index, a part of a name in any case, or None for the system's default.

    Raises:
        DeviceError: no input matches, or several do.
    """
    inputs = _inputs(portaudio)
    if not inputs:
        raise DeviceError("there is no sound input", remedy=f"{CHECK_INPUTS}; files and the demo need none")
    matches = _matching(portaudio, inputs, device)
    if len(matches) == 1:
        return matches[0]
    if device is None:
        problem, listed = "the system has no default input", inputs
    elif matches:
        problem, listed = f"{device} means several inputs", matches
    else:
        problem, listed = f"there is no input {device}", inputs
    names = ", ".join(f"{entry['index']} ({entry['name']})" for entry in listed)
    raise DeviceError(problem, remedy=f"choose one with mic:INDEX from {names}")


def find_same_input(portaudio: Any, entry: dict[str, Any]) -> dict[str, Any] | None:
    """Find an earlier input by its name; None while it is missing. Runs on PortAudio's thread.

    Its index may have changed, and with ALSA the card number at the end of its name. Of several inputs of
    that name, the one with the most traits in common is returned.

    Args:
        portaudio: as above.
        entry: PortAudio's earlier description of the input.
    """
    same = [found for found in _inputs(portaudio) if _bare_name(found) == _bare_name(entry)]
    traits = ("hostapi", "name", "index")
    return max(same, key=lambda found: [found[trait] == entry[trait] for trait in traits], default=None)


def rescan_devices(portaudio: Any) -> None:
    """Restart PortAudio, which lists the devices only when it starts.

    Ends every stream of this process. Runs on PortAudio's thread.

    Raises:
        PortAudioError: it does not start; a later attempt may succeed.
    """
    with native_stderr_silenced():
        # After a failed start it is not running.
        with suppress(portaudio.PortAudioError):
            portaudio._terminate()
        portaudio._initialize()


def load_portaudio() -> Any:
    """Import sounddevice, which starts PortAudio.

    Raises:
        DeviceError: sounddevice or PortAudio is not installed, or the sound server does not answer.
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
    """Return PortAudio's description of a device; ALSA allows names that are not UTF-8."""
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
    """Return the index of the system's default input; -1 if there is none."""
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
