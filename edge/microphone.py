"""The microphone, through PortAudio: which inputs there are, and one of them as a source of blocks.

PortAudio is loaded when it is first needed, so that files can be heard on a machine without it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge.audio import HIGHEST_RATE, LOWEST_RATE, SAMPLE_RATE, Intake
from edge.blocks import Block
from edge.errors import DeviceError
from edge.frontend import Array

TRIED_RATES: Final = (8_000, 16_000, 32_000, 44_100, 48_000, 96_000)
"""Hz."""
DRIVER_BLOCK_S: Final = 0.02
"""Duration of what the driver is asked to deliver at once."""
LONGEST_GAP_S: Final = 5.0
"""A longer gap between the timestamps of two pieces is not believed: the clock leapt."""
CHECK_INPUTS: Final = (
    "plug a microphone in, see that `arecord -l` lists it and that this user is in the group audio"
)


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

    Args:
        portaudio: what to ask; the sounddevice module by default.

    Raises:
        DeviceError: PortAudio is not installed.
    """
    portaudio = portaudio or _portaudio()
    with _quiet():
        return [_describe(portaudio, entry) for entry in _inputs(portaudio)]


class Microphone:
    """A sound input as a source: what the device delivers, as mono at 16 kHz.

    Remembers what has arrived and was not yet taken, `buffer_s` of sound at most; past that the
    oldest is dropped and counted in the `lost` of the next block. Each use of `with` starts afresh.
    """

    live = True

    def __init__(
        self,
        device: int | str | None = None,
        *,
        buffer_s: float = 2.0,
        stall_s: float = 3.0,
        portaudio: Any = None,
    ) -> None:
        """Name a device; nothing is opened yet.

        Args:
            device: its index, or a part of its name in any case; the system's default by default.
            buffer_s: sound that may wait to be taken, > 0.
            stall_s: silence from the driver (not from the room) that means the device is gone, > 0.
            portaudio: an object with what is used of the sounddevice module, which is the default.
        """
        self._device = device
        self._buffer_s = buffer_s
        self._stall_s = stall_s
        self._given = portaudio
        self.name = "mic" if device is None else f"mic:{device}"

    def __enter__(self) -> Microphone:
        """Find the device and start recording.

        Raises:
            DeviceError: PortAudio is not installed; the device is unknown, ambiguous, or does not open.
        """
        portaudio = self._given or _portaudio()
        entry = _choose(portaudio, self._device)
        self.name = str(entry["name"])
        with _quiet():
            self._stream, self._inbox = self._open(portaudio, entry)
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop recording and free the device; an iteration ends after what had arrived."""
        self._inbox.end()
        # A driver that has lost its device may fail here, where there is nothing left to save.
        self._stream.close(ignore_errors=True)

    def __iter__(self) -> Iterator[Block]:
        """Yield the sound as it arrives, until `__exit__`.

        Raises:
            DeviceError: nothing arrived for `stall_s`, or the driver ended the recording.
        """
        inbox, intake = self._inbox, Intake(self._inbox.rate)
        lost, told, arrived_s = 0, 0, time.perf_counter()
        while (piece := self._next_piece(inbox)) is not None:
            lost, arrived_s = lost + piece.lost, piece.arrived_s
            samples = intake.feed(piece.sound(inbox.channels))
            if len(samples):
                # Rounded once, on the whole stream: the clock of the samples must not drift.
                newly = round(lost * SAMPLE_RATE / inbox.rate) - told
                told += newly
                yield Block(samples, arrived_s, newly)
        if len(tail := intake.flush()):
            yield Block(tail, arrived_s)

    def _next_piece(self, inbox: _Inbox) -> _Piece | None:
        try:
            return inbox.take(self._stall_s)
        except TimeoutError as error:
            what = f"{self.name} stopped delivering sound {self._stall_s:g} s ago"
            raise DeviceError(f"{what}: see that it is still plugged in, then start again") from error
        except EOFError as error:
            what = f"{self.name} stopped delivering sound: its driver ended the recording"
            raise DeviceError(f"{what}; see that it is still plugged in, then start again") from error

    def _open(self, portaudio: Any, entry: dict[str, Any]) -> tuple[Any, _Inbox]:
        """Start the device in the first way it can be, preferring what needs no conversion."""
        refusal = "it offers no rate that speech can be heard at"
        for rate, channels in _ways_to_open(entry):
            inbox = _Inbox(rate, channels, self._buffer_s)
            try:
                return _start(portaudio, entry["index"], inbox), inbox
            except portaudio.PortAudioError as error:
                refusal = " ".join(str(error).split())
        raise DeviceError(
            f"{self.name} does not open ({refusal}): close other programs that record from it, "
            "or choose another input (mmtl devices lists them)"
        )


@dataclass(frozen=True)
class _Piece:
    """What one callback delivered."""

    data: bytes
    """Interleaved float32."""
    frames: int
    arrived_s: float
    lost: int
    """Frames lost just before it."""

    def sound(self, channels: int) -> Array:
        """Return the (N, channels) float32 sound."""
        return np.frombuffer(self.data, np.float32).reshape(-1, channels)


class _Inbox:
    """Between the driver's thread, which puts and never waits, and the listener, who takes."""

    def __init__(self, rate: int, channels: int, buffer_s: float) -> None:
        self.rate = rate
        self.channels = channels
        self._room = round(buffer_s * rate)
        self._pieces: deque[_Piece] = deque()
        self._frames = 0
        self._dropped = 0
        self._due_s = 0.0
        self._ended = False
        self._broken = False
        self._changed = threading.Condition()

    def put(self, data: Any, frames: int, times: Any, status: Any) -> None:
        """Copy, enqueue, count: PortAudio's callback, on the driver's thread."""
        adc_s = times.inputBufferAdcTime
        lost = self._overflowed(adc_s, frames) if status.input_overflow else 0
        self._due_s = adc_s + frames / self.rate if adc_s > 0 else 0.0
        piece = _Piece(bytes(data), frames, time.perf_counter(), lost)
        with self._changed:
            self._pieces.append(piece)
            self._frames += frames
            while self._frames > self._room and len(self._pieces) > 1:
                self._drop_oldest()
            self._changed.notify()

    def finish(self) -> None:
        """Note that the driver will deliver no more: PortAudio's finished callback."""
        with self._changed:
            self._broken = True
            self._changed.notify()

    def end(self) -> None:
        """Note that we want no more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, patience_s: float) -> _Piece | None:
        """Wait for the next piece; None after the last, once `end` was called.

        Raises:
            TimeoutError: nothing came in time.
            EOFError: the driver ended the stream by itself.
        """
        with self._changed:
            ready = self._changed.wait_for(self._anything, patience_s)
            if self._pieces:
                return self._take_oldest()
            if self._ended:
                return None
            raise EOFError if ready else TimeoutError

    def _anything(self) -> bool:
        return bool(self._pieces) or self._ended or self._broken

    def _take_oldest(self) -> _Piece:
        piece = self._pieces.popleft()
        self._frames -= piece.frames
        lost, self._dropped = piece.lost + self._dropped, 0
        return _Piece(piece.data, piece.frames, piece.arrived_s, lost)

    def _drop_oldest(self) -> None:
        piece = self._pieces.popleft()
        self._frames -= piece.frames
        self._dropped += piece.frames + piece.lost

    def _overflowed(self, adc_s: float, frames: int) -> int:
        """Estimate the frames that the driver lost before a piece, which PortAudio does not tell.

        By the gap between the converter's timestamps; one piece at least, where they show none or
        make no sense, for that there was a loss is certain.
        """
        gap_s = adc_s - self._due_s if adc_s > 0 and self._due_s > 0 else 0.0
        return max(frames, round(gap_s * self.rate) if gap_s <= LONGEST_GAP_S else 0)


def _start(portaudio: Any, index: int, inbox: _Inbox) -> Any:
    stream = portaudio.RawInputStream(
        device=index,
        samplerate=inbox.rate,
        channels=inbox.channels,
        dtype="float32",
        blocksize=round(DRIVER_BLOCK_S * inbox.rate),
        callback=inbox.put,
        finished_callback=inbox.finish,
    )
    try:
        stream.start()
    except portaudio.PortAudioError:
        stream.close(ignore_errors=True)
        raise
    return stream


def _ways_to_open(entry: dict[str, Any]) -> list[tuple[int, int]]:
    """List (rate in Hz, channels) in order of preference.

    Some arrays of microphones open with all their channels only.
    """
    native, channels = round(entry["default_samplerate"]), int(entry["max_input_channels"])
    ways = [(SAMPLE_RATE, 1), (native, min(2, channels)), (native, channels)]
    return [way for way in dict.fromkeys(ways) if LOWEST_RATE <= way[0] <= HIGHEST_RATE]


def _choose(portaudio: Any, device: int | str | None) -> dict[str, Any]:
    """Find the one input that is meant.

    Raises:
        DeviceError: none or several are.
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


def _portaudio() -> Any:
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
def _quiet() -> Iterator[None]:
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
