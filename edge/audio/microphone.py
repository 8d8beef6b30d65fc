"""Microphone source: a sound input as blocks, with reconnection after it was unplugged."""

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
from edge.audio.portaudio_thread import CLOSE_TIMEOUT_S, call, submit
from edge.audio.resampler import HIGHEST_RATE, LOWEST_RATE, AudioConverter
from edge.errors import DeviceError
from edge.system.standard_streams import native_stderr_silenced

DRIVER_BLOCK_S: Final = 0.02
"""Block length requested from the driver."""
MOST_DEVICE_CHANNELS: Final = 16
"""Channels; PulseAudio and PipeWire state 32 or more, and convert."""
RETRY_S: Final = 1.0
"""Interval between attempts to find a lost device."""


class Microphone:
    """A sound input as a source of mono sound at 16 kHz.

    Remembers at most `buffer_s` of sound that was not yet taken; beyond that the oldest is dropped, and
    counted in `lost` of the next block. Each use of `with` starts from the initial state.

    When the device is unplugged, or delivers nothing for `stall_s`, a block without samples reports it as
    lost. It is searched for by its name every `RETRY_S`. Before its next sound, a block reports it as back,
    with the length of the gap. Each search restarts PortAudio, which ends all other streams of the process.
    When a sound server moves the recording to another input, no change is reported, but the lost sound is
    counted.
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
            device: its index, or a part of its name in any case; the system's default input if None.
            buffer_s: sound that may wait to be taken, > 0.
            stall_s: time without a callback (not silence in the room) after which the device is lost, > 0.
            reconnect: use the device again when it returns; otherwise its loss is an error.
            channel: which channel to use, as in `edge.audio.downmix`.
            portaudio: an object with the functions of sounddevice, which is the default.
            clock: seconds, never going back, counting the time that the machine slept.
        """
        self._device = device
        self._buffer_s = buffer_s
        self._stall_s = stall_s
        self._reconnect = reconnect
        self._channel = channel
        self._portaudio_given = portaudio
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
        self._portaudio = self._portaudio_given or load_portaudio()
        try:
            with native_stderr_silenced():
                self._entry = call(lambda: select_input(self._portaudio, self._device))
                self.name = str(self._entry["name"])
                require_channel(self._channel, int(self._entry["max_input_channels"]))
                call(lambda: self._open(self._entry))
        except BaseException:
            submit(self._close_stream)  # a call that timed out may still open the device
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop recording and close the device; an iteration ends after the sound that has arrived.

        Raises:
            DeviceError: the sound server does not answer.
        """
        self._buffer.end()
        self._close()

    def __iter__(self) -> Iterator[Block]:
        """Yield the sound as it arrives, until `__exit__`.

        Raises:
            DeviceError: the device never delivered sound, or was lost and `reconnect` is False.
        """
        return report_dead_input(self._blocks(), self.name)

    def _blocks(self) -> Iterator[Block]:
        absent_since_s: float | None = None
        while True:
            capture = _CaptureStream(self._buffer, self.name, absent_since_s, self._channel)
            try:
                yield from capture.blocks(self._stall_s)
            except (TimeoutError, EOFError) as reason:
                if capture.last_sound_s is None or not self._reconnect:
                    raise self._device_error(reason) from reason
                yield from capture.lost()
            else:
                yield from capture.tail()
                return
            absent_since_s = capture.last_sound_s
            if not self._reopen():
                return

    def _device_error(self, reason: Exception) -> DeviceError:
        what = f"{self.name} stopped delivering sound"
        ended = ": its driver ended the recording"
        what += ended if isinstance(reason, EOFError) else f" {self._stall_s:g} s ago"
        return DeviceError(what, remedy="see that it is still plugged in, then start again")

    def _reopen(self) -> bool:
        """Wait until the device opens; return False if `__exit__` comes first."""
        lost = self._buffer
        with native_stderr_silenced():
            wait([submit(self._close_stream)], CLOSE_TIMEOUT_S)
        while not lost.ended_within(RETRY_S):
            attempt = submit(self._try_to_reopen)
            with native_stderr_silenced():
                while not (attempt.done() or lost.ended_within(0.0)):
                    wait([attempt], RETRY_S)
            if attempt.done() and attempt.result() and not lost.ended_within(0.0):
                return True
        self._buffer.end()
        self._close()
        return False

    def _try_to_reopen(self) -> bool:
        """Search for the device once, and open it if it is found. Runs on PortAudio's thread."""
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
            call(self._close_stream, CLOSE_TIMEOUT_S)

    def _close_stream(self) -> None:
        """Close the stream. Runs on PortAudio's thread."""
        stream, self._stream = self._stream, None
        if stream is not None:
            # A driver that has lost its device may fail to close it.
            stream.close(ignore_errors=True)

    def _open(self, entry: dict[str, Any]) -> None:
        """Start the device in the first format it accepts; formats without conversion are tried first.

        Runs on PortAudio's thread and stores the stream there: it is closed even if the caller timed out.
        """
        refusal = f"it offers no sample rate from {LOWEST_RATE} to {HIGHEST_RATE} Hz"
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
    """Converts what the device delivers between opening and loss to blocks at 16 kHz.

    Remembers the converter's state, and how many frames were delivered and lost: the sample clock must not
    drift.
    """

    def __init__(
        self, buffer: CaptureBuffer, name: str, absent_since_s: float | None, channel: Channel
    ) -> None:
        """Prepare for a stream.

        Args:
            buffer: receives the captured blocks.
            name: of the device.
            absent_since_s: time of the device's last sound by the buffer's clock; None if it was not lost.
            channel: which channel to use, as in `edge.audio.downmix`.
        """
        self.last_sound_s = absent_since_s
        self._absent = absent_since_s is not None
        self._buffer = buffer
        self._name = name
        self._downmix = Downmix(buffer.rate, channel)
        self._converter = AudioConverter(buffer.rate, self._downmix)
        self._frames_passed = self._samples_reported = self._lost = 0

    def blocks(self, timeout_s: float) -> Iterator[Block]:
        """Yield the sound; if the device was lost, report first that it is back.

        Raises:
            TimeoutError: no block came in time.
            EOFError: the driver ended the capture.
        """
        while (block := self._buffer.take(timeout_s)) is not None:
            if self._absent:
                yield self._back(block)
            self.last_sound_s = block.elapsed_s
            if block.lost:
                yield from self._gap(block.lost)
            self._frames_passed += block.frames
            yield from self._block(self._converter.feed(block.sound(self._buffer.channels), block.arrived_s))

    def tail(self) -> Iterator[Block]:
        """Yield the samples still held back by the converter."""
        yield from self._block(self._converter.flush())

    def _gap(self, frames: int) -> Iterator[Block]:
        """Yield the sound before a gap, and restart the converter for the sound after it."""
        yield from self.tail()
        self._converter = AudioConverter(self._buffer.rate, self._downmix)
        self._frames_passed += frames
        # Rounded on the total, not on each gap: the sample clock must not drift.
        passed = round(self._frames_passed * SAMPLE_RATE / self._buffer.rate)
        self._lost = max(0, passed - self._samples_reported)

    def _block(self, samples: Array) -> Iterator[Block]:
        """Yield samples, if any, with the loss before them."""
        if len(samples):
            self._samples_reported += self._lost + len(samples)
            lost, self._lost = self._lost, 0
            yield Block(samples, self._converter.arrived_s, lost, warning=self._converter.take_warning())

    def lost(self) -> Iterator[Block]:
        """Yield the tail and report the loss of the device, unless it is still reported as lost."""
        if not self._absent:
            yield from self.tail()
            yield Block(NO_SAMPLES, time.perf_counter(), device_change=DeviceChange(self._name, "lost"))

    def _back(self, block: CapturedBlock) -> Block:
        assert self.last_sound_s is not None
        self._absent = False
        absent_s = block.elapsed_s - (block.frames + block.lost) / self._buffer.rate - self.last_sound_s
        lost = max(0, round(absent_s * SAMPLE_RATE))
        return Block(NO_SAMPLES, block.arrived_s, lost, DeviceChange(self._name, "back"))


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

    All channels of a device are requested, because a sound server mixes them itself if fewer are. A sound
    server states more channels than any device has; it is asked for two. Some microphone arrays open only
    with all their channels.
    """
    native, channels = round(entry["default_samplerate"]), int(entry["max_input_channels"])
    if isinstance(channel, int):
        counts = [channel + 1, channels]
    elif channels > MOST_DEVICE_CHANNELS:
        counts = [2, 1]
    else:  # without a sound server, PortAudio delivers the first channels if fewer are requested
        counts = [channels, 1, min(2, channels)]
    ways = [(rate, count) for count in counts for rate in (SAMPLE_RATE, native)]
    return [way for way in dict.fromkeys(ways) if LOWEST_RATE <= way[0] <= HIGHEST_RATE]
