"""The microphone: one sound input as a source of blocks, which survives being unplugged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any, Final

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import NO_SAMPLES, Block, DeviceChange
from edge.audio.capture_buffer import CaptureBuffer, CapturedBlock, elapsed_s
from edge.audio.dead_input import report_dead_input
from edge.audio.devices import find_same_input, load_portaudio, rescan_devices, select_input
from edge.audio.downmix import AUTO, Channel, Downmix, require_channel
from edge.audio.ingest import HIGHEST_RATE, LOWEST_RATE, AudioConverter
from edge.audio.portaudio_thread import CLOSE_TIMEOUT_S, call, submit
from edge.errors import DeviceError
from edge.system.standard_streams import native_stderr_silenced

DRIVER_BLOCK_S: Final = 0.02
"""Duration of what the driver is asked to deliver at once."""
MOST_DEVICE_CHANNELS: Final = 16
"""Channels; PulseAudio and PipeWire state 32 and more, and convert."""
RETRY_S: Final = 1.0
"""From one look for a lost device to the next."""


class Microphone:
    """A sound input as a source: what the device delivers, as mono at 16 kHz.

    Remembers what has arrived and was not yet taken, `buffer_s` of sound at most; past that the
    oldest is dropped and counted in the `lost` of the next block. Each use of `with` starts afresh.

    A device that is unplugged, or delivers nothing for `stall_s`, is news in a block without
    samples; it is looked for by its name every `RETRY_S`, and its first sound is preceded by a
    block that says it is back and how much was lost meanwhile. To look for it PortAudio is started
    anew, which ends all other streams of the process. A sound server that moves the recording to
    another input does so unseen; what was lost in that is counted.
    """

    live = True

    def __init__(
        self,
        device: int | str | None = None,
        *,
        buffer_s: float = 2.0,
        stall_s: float = 3.0,
        reconnect: bool = True,
        channel: Channel = AUTO,
        portaudio: Any = None,
        clock: Callable[[], float] = elapsed_s,
    ) -> None:
        """Name a device; nothing is opened yet.

        Args:
            device: its index, or a part of its name in any case; the system's default by default.
            buffer_s: sound that may wait to be taken, > 0.
            stall_s: silence from the driver (not from the room) that means the device is gone, > 0.
            reconnect: take the device up again when it returns; otherwise its loss is an error.
            channel: which channel to hear, as in `edge.audio.downmix`.
            portaudio: an object with what is used of the sounddevice module, which is the default.
            clock: seconds, never going back, counting the time that the machine slept.
        """
        self._device = device
        self._buffer_s = buffer_s
        self._stall_s = stall_s
        self._reconnect = reconnect
        self._channel = channel
        self._given = portaudio
        self._clock = clock
        self._stream: Any = None
        self.name = "mic" if device is None else f"mic:{device}"

    def __enter__(self) -> Microphone:
        """Find the device and start capture.

        Raises:
            DeviceError: PortAudio is not installed; the device is unknown, ambiguous, or does not open;
                the sound server does not answer.
            UsageError: the device does not have the channel.
        """
        self._portaudio = self._given or load_portaudio()
        try:
            with native_stderr_silenced():
                self._entry = call(lambda: select_input(self._portaudio, self._device))
                self.name = str(self._entry["name"])
                require_channel(self._channel, int(self._entry["max_input_channels"]))
                call(lambda: self._open(self._entry))
        except BaseException:
            submit(self._free)  # a call that was given up may still open the device
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop recording and free the device; an iteration ends after what had arrived.

        Raises:
            DeviceError: the sound server does not answer.
        """
        self._buffer.end()
        self._close()

    def __iter__(self) -> Iterator[Block]:
        """Yield the sound as it arrives, until `__exit__`.

        Raises:
            DeviceError: the device never delivered anything, or was lost and `reconnect` is False.
        """
        return report_dead_input(self._blocks(), self.name)

    def _blocks(self) -> Iterator[Block]:
        absent_since_s: float | None = None
        while True:
            capture = _CaptureStream(self._buffer, self.name, absent_since_s, self._channel)
            try:
                yield from capture.blocks(self._stall_s)
            except (TimeoutError, EOFError) as reason:
                if capture.heard_until_s is None or not self._reconnect:
                    raise self._gone(reason) from reason
                yield from capture.lost()
            else:
                yield from capture.tail()
                return
            absent_since_s = capture.heard_until_s
            if not self._open_again():
                return

    def _gone(self, reason: Exception) -> DeviceError:
        what = f"{self.name} stopped delivering sound"
        ended = ": its driver ended the recording"
        what += ended if isinstance(reason, EOFError) else f" {self._stall_s:g} s ago"
        return DeviceError(what, remedy="see that it is still plugged in, then start again")

    def _open_again(self) -> bool:
        """Wait until the device opens; False if `__exit__` came first."""
        lost = self._buffer
        with native_stderr_silenced():
            wait([submit(self._free)], CLOSE_TIMEOUT_S)
        while not lost.ended_within(RETRY_S):
            attempt = submit(self._attempt)
            with native_stderr_silenced():
                while not (attempt.done() or lost.ended_within(0.0)):
                    wait([attempt], RETRY_S)
            if attempt.done() and attempt.result() and not lost.ended_within(0.0):
                return True
        self._buffer.end()
        self._close()
        return False

    def _attempt(self) -> bool:
        """Look for the device once, and open it if it is there; on PortAudio's thread."""
        try:
            rescan_devices(self._portaudio)
            if entry := find_same_input(self._portaudio, self._entry):
                self._open(entry)
                return True
        except (DeviceError, self._portaudio.PortAudioError):
            pass
        return False

    def _close(self) -> None:
        with native_stderr_silenced():
            call(self._free, CLOSE_TIMEOUT_S)

    def _free(self) -> None:
        """Close the stream; on PortAudio's thread."""
        stream, self._stream = self._stream, None
        if stream is not None:
            # A driver that has lost its device may fail here, where there is nothing left to save.
            stream.close(ignore_errors=True)

    def _open(self, entry: dict[str, Any]) -> None:
        """Start the device in the first way it can be, preferring what needs no conversion.

        On PortAudio's thread, where the stream is kept: it is closed there even if whoever waited gave up.
        """
        refusal = "it offers no rate that speech can be heard at"
        for rate, channels in _formats_to_try(entry, self._channel):
            buffer = CaptureBuffer(rate, channels, self._buffer_s, self._clock)
            try:
                self._stream = _start(self._portaudio, entry["index"], buffer)
            except (self._portaudio.PortAudioError, UnicodeDecodeError) as error:
                refusal = " ".join(str(error).split())
            else:
                self._buffer = buffer
                return
        raise DeviceError(
            f"{self.name} does not open ({refusal})",
            remedy="close other programs that record from it, or choose another input (mmtl devices lists "
            "them)",
        )


class _CaptureStream:
    """What one opening of the device delivers, as blocks.

    Remembers the resampler's history, and how much was heard and lost, so that the clock of the
    samples does not drift.
    """

    def __init__(
        self, buffer: CaptureBuffer, name: str, absent_since_s: float | None, channel: Channel
    ) -> None:
        """Prepare to listen.

        Args:
            buffer: where the sound arrives.
            name: the device's.
            absent_since_s: the buffer's clock when the device was last heard; None if it was not lost.
            channel: which channel to hear.
        """
        self.heard_until_s = absent_since_s
        self._absent = absent_since_s is not None
        self._buffer = buffer
        self._name = name
        self._downmix = Downmix(buffer.rate, channel)
        self._converter = AudioConverter(buffer.rate, self._downmix)
        self._passed = self._told = self._lost = 0

    def blocks(self, patience_s: float) -> Iterator[Block]:
        """Yield the sound, after the news that the device is back if it was lost.

        Raises:
            TimeoutError: nothing came for so long.
            EOFError: the driver ended the capture.
        """
        while (piece := self._buffer.take(patience_s)) is not None:
            if self._absent:
                yield self._back(piece)
            self.heard_until_s = piece.elapsed_s
            if piece.lost:
                yield from self._gap(piece.lost)
            self._passed += piece.frames
            yield from self._block(self._converter.feed(piece.sound(self._buffer.channels), piece.arrived_s))

    def tail(self) -> Iterator[Block]:
        """Yield what the resampler still held back."""
        yield from self._block(self._converter.flush())

    def _gap(self, frames: int) -> Iterator[Block]:
        """Yield what was heard before a loss, and start the resampler anew for what comes after it."""
        yield from self.tail()
        self._converter = AudioConverter(self._buffer.rate, self._downmix)
        self._passed += frames
        # Rounded once, on the whole recording: the clock of the samples must not drift.
        passed = round(self._passed * SAMPLE_RATE / self._buffer.rate)
        self._lost = max(0, passed - self._told)

    def _block(self, samples: Array) -> Iterator[Block]:
        """Yield samples with the loss before them, unless there are none."""
        if len(samples):
            self._told += self._lost + len(samples)
            lost, self._lost = self._lost, 0
            yield Block(samples, self._converter.arrived_s, lost, warning=self._converter.take_warning())

    def lost(self) -> Iterator[Block]:
        """Yield the tail and the news that the device is lost, unless it never was back."""
        if not self._absent:
            yield from self.tail()
            yield Block(NO_SAMPLES, time.perf_counter(), device_change=DeviceChange(self._name, "lost"))

    def _back(self, piece: CapturedBlock) -> Block:
        assert self.heard_until_s is not None
        self._absent = False
        away_s = piece.elapsed_s - (piece.frames + piece.lost) / self._buffer.rate - self.heard_until_s
        lost = max(0, round(away_s * SAMPLE_RATE))
        return Block(NO_SAMPLES, piece.arrived_s, lost, DeviceChange(self._name, "back"))


def _start(portaudio: Any, index: int, buffer: CaptureBuffer) -> Any:
    stream = portaudio.RawInputStream(
        device=index,
        samplerate=buffer.rate,
        channels=buffer.channels,
        dtype="float32",
        blocksize=round(DRIVER_BLOCK_S * buffer.rate),
        callback=buffer.put,
        finished_callback=buffer.finish,
    )
    try:
        stream.start()
    except BaseException:
        stream.close(ignore_errors=True)
        raise
    return stream


def _formats_to_try(entry: dict[str, Any], channel: Channel) -> list[tuple[int, int]]:
    """List (rate in Hz, channels) in order of preference.

    All channels of a device are asked for, for a sound server that is asked for fewer mixes them itself;
    it states more channels than any device has, and is asked for two. Some arrays of microphones open with
    all their channels only.
    """
    native, channels = round(entry["default_samplerate"]), int(entry["max_input_channels"])
    if isinstance(channel, int):
        counts = [channel + 1, channels]
    elif channels > MOST_DEVICE_CHANNELS:
        counts = [2, 1]
    else:  # of a device itself PortAudio delivers the first ones where fewer are asked for
        counts = [channels, 1, min(2, channels)]
    ways = [(rate, count) for count in counts for rate in (SAMPLE_RATE, native)]
    return [way for way in dict.fromkeys(ways) if LOWEST_RATE <= way[0] <= HIGHEST_RATE]
