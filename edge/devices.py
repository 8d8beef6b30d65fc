"""Sound inputs, through PortAudio: which there are, which one is meant, and which is the same as before.

PortAudio is loaded when it is first needed, so that files can be heard on a machine without it. Where
`portaudio` is an argument, it is the sounddevice module or an object with what is used of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from edge.errors import DeviceError

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
        DeviceError: PortAudio is not installed.
    """
    portaudio = portaudio or load_portaudio()
    with quiet():
        return [_describe(portaudio, entry) for entry in _inputs(portaudio)]


def choose(portaudio: Any, device: int | str | None) -> dict[str, Any]:
    """Find the one input that is meant, as PortAudio describes it.

    Args:
        portaudio: what to ask.
        device: an index, a part of a name in any case, or None for the system's default.

    Raises:
        DeviceError: none or several are meant.
    """
    inputs = _inputs(portaudio)
    if not inputs:
        raise DeviceError(f"there is no sound input: {CHECK_INPUTS}; a file or the demo needs none")
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
    raise DeviceError(f"{said}: choose one with mic:INDEX from {names}")


def find_again(portaudio: Any, entry: dict[str, Any]) -> dict[str, Any] | None:
    """Find an input that was there before, by its name; None while it is away.

    Its index may have changed, and with ALSA the card's number at the end of its name. Where there
    are several of that name, the one that differs least is taken.

    Args:
        portaudio: what to ask.
        entry: what PortAudio said of it before.
    """
    same = [found for found in _inputs(portaudio) if _bare_name(found) == _bare_name(entry)]
    traits = ("hostapi", "name", "index")
    return max(same, key=lambda found: [found[trait] == entry[trait] for trait in traits], default=None)


def look_again(portaudio: Any) -> None:
    """Let PortAudio see what was plugged in or out: it lists the devices only when it starts.

    Ends every stream of this process.

    Raises:
        PortAudioError: it does not start; later it may.
    """
    with quiet():
        # It has ended already where starting it failed the last time.
        with suppress(portaudio.PortAudioError):
            portaudio._terminate()
        portaudio._initialize()


def load_portaudio() -> Any:
    """Import sounddevice.

    Raises:
        DeviceError: it, or PortAudio, is not installed.
    """
    try:
        import sounddevice
    except OSError as error:
        message = "a microphone needs the PortAudio library, which is missing: apt install libportaudio2"
        raise DeviceError(message) from error
    except ImportError as error:
        message = "a microphone needs sounddevice, which is missing: pip install sounddevice"
        raise DeviceError(message) from error
    return sounddevice


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the C libraries' remarks on each refused setting off the terminal.

    They write to file descriptor 2 themselves; what matters of it comes back as an exception.
    """
    kept, nowhere = _duplicate_of_stderr(), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _duplicate_of_stderr() -> int:
    try:
        return os.dup(2)
    except OSError:
        # It was closed when the program started.
        return os.open(os.devnull, os.O_WRONLY)


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
    return [dict(entry) for entry in portaudio.query_devices() if entry["max_input_channels"] > 0]


def _bare_name(entry: dict[str, Any]) -> str:
    return ALSA_ADDRESS.sub("", entry["name"])


def _default_index(portaudio: Any) -> int:
    """Return the index of the system's default input, -1 where there is none."""
    try:
        return int(portaudio.query_devices(kind="input")["index"])
    except portaudio.PortAudioError:
        return -1


def _describe(portaudio: Any, entry: dict[str, Any]) -> InputDevice:
    return InputDevice(
        index=entry["index"],
        name=entry["name"],
        host_api=portaudio.query_hostapis(entry["hostapi"])["name"],
        channels=entry["max_input_channels"],
        default_rate=round(entry["default_samplerate"]),
        rates=tuple(rate for rate in TRIED_RATES if _opens(portaudio, entry["index"], rate)),
        default=entry["index"] == _default_index(portaudio),
    )


def _opens(portaudio: Any, index: int, rate: int) -> bool:
    try:
        portaudio.check_input_settings(device=index, channels=1, dtype="float32", samplerate=rate)
    except portaudio.PortAudioError:
        return False
    return True
