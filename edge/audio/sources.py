"""Where sound comes from: a microphone, a file, a pipe or the demo clip, all as blocks at 16 kHz."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import NO_SAMPLES, Block, InputWarning, Source
from edge.audio.dead_input import report_dead_input
from edge.audio.downmix import AUTO, Channel, Downmix, require_channel, require_channels
from edge.audio.microphone import Microphone
from edge.audio.pcm_decoder import PcmDecoder
from edge.audio.resampler import HIGHEST_RATE, LOWEST_RATE, AudioConverter
from edge.audio.sound_file import BLOCK_S, SoundFile
from edge.errors import SourceError, UsageError
from edge.file_formats.signatures import READABLE


def open_source(
    spec: str,
    *,
    rate: int = SAMPLE_RATE,
    channels: int = 1,
    paced: bool = False,
    channel: Channel = AUTO,
) -> Source:
    """Create the source that a command-line argument names; it is opened on `__enter__`.

    Args:
        spec: "mic", "mic:INDEX_OR_NAME", "demo", "-" (raw s16le mono on stdin), or a file's name
            ("./demo" for a file of that name).
        rate: Hz of the sound on stdin; files and devices state their own.
        channels: number of interleaved channels on stdin.
        paced: deliver a file or the demo at the pace of real time. A microphone and a pipe set their own.
        channel: which channel to use, as in `edge.audio.downmix`.

    Raises:
        UsageError: the spec names no source, or the rate or number of channels is out of range.
    """
    if not spec:
        raise UsageError(
            "the name of the source is empty", remedy="name a sound file, or mic, demo, or - for a pipe"
        )
    if spec == "-":
        return StdinSource(rate, channels=channels, channel=channel)
    if spec == "demo":
        return DemoSource(paced=paced, channel=channel)
    if spec == "mic" or spec.startswith("mic:"):
        return _microphone(spec, channel)
    return FileSource(spec, paced=paced, channel=channel)


def _microphone(spec: str, channel: Channel) -> Source:
    _, colon, device = spec.partition(":")
    if colon and not device.strip():
        raise UsageError(
            "mic: names no device", remedy="write mic, mic:INDEX or mic:NAME (mmtl devices lists them)"
        )
    return Microphone(device.strip() or None, channel=channel)


class FileSource:
    """A sound file, read as fast as possible or in real time."""

    def __init__(
        self,
        path: str | Path,
        *,
        paced: bool = False,
        channel: Channel = AUTO,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Name a file; nothing is opened yet.

        Args:
            path: the file.
            paced: deliver each block when its last sample is due in real time.
            channel: which channel to use, as in `edge.audio.downmix`.
            clock: seconds, never going back; arrivals are in its terms.
            sleep: waits for a number of seconds > 0.
        """
        self._path = Path(path)
        self._channel = channel
        self._clock = clock
        self._sleep = sleep
        self.name = os.fsencode(self._path.name).decode("utf-8", "replace")
        self.live = paced

    def __enter__(self) -> FileSource:
        """Open the file; see `edge.audio.sound_file.SoundFile` for what is refused.

        Raises:
            UsageError: it does not have the channel.
        """
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(SoundFile(self._path))
            require_channel(self._channel, self._file.channels)
            stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self._file.__exit__(*exc)

    def __iter__(self) -> Iterator[Block]:
        """Yield the file's sound from its beginning to its end.

        Raises:
            SourceError: the file is damaged; what could be read of it has been delivered.
            UsageError: it does not have the channel.
        """
        start_s = arrived_s = self._clock()
        for stream in self._file.streams():
            converter = AudioConverter(stream.rate, Downmix(stream.rate, self._channel))
            for sound in stream.blocks(BLOCK_S):
                arrived_s = self._arrival(start_s + stream.done / stream.rate)
                samples = converter.feed(sound, arrived_s)
                yield from _block(samples, converter.arrived_s, converter.take_warning())
            yield from _block(converter.flush(), converter.arrived_s, converter.take_warning())
            start_s += stream.done / stream.rate
        yield from _block(NO_SAMPLES, arrived_s, self._file.warning)
        self._file.finish()

    def _arrival(self, due_s: float) -> float:
        """Return the arrival of a block; if paced, wait until it is due. The due times do not drift."""
        if not self.live:
            return self._clock()
        while (early_s := due_s - self._clock()) > 0:
            self._sleep(early_s)
        # The due time, not the present: a slow consumer has to see how long the sound has waited.
        return due_s


def demo_clip() -> Path:
    """Return the path of the clip of synthesised speech that ships with the program."""
    return Path(str(resources.files("edge"))) / "demo.flac"


class DemoSource(FileSource):
    """The clip of synthesised speech that ships inside the package."""

    def __init__(self, *, paced: bool = False, channel: Channel = AUTO) -> None:
        """Choose the demo; nothing is opened yet."""
        super().__init__("demo", paced=paced, channel=channel)

    def __enter__(self) -> DemoSource:
        """Find and open the clip.

        Raises:
            SourceError: this installation lacks it, or it is damaged.
        """
        self._path = demo_clip()
        if not self._path.is_file():
            raise SourceError("the demo clip is missing from this installation", remedy="install mmtl again")
        super().__enter__()
        return self


class StdinSource:
    """Raw 16-bit little-endian samples from a pipe, as they arrive.

    An incomplete frame at the end is dropped.
    """

    name = "stdin"
    live = True

    def __init__(
        self,
        rate: int = SAMPLE_RATE,
        stream: BinaryIO | None = None,
        *,
        channels: int = 1,
        channel: Channel = AUTO,
    ) -> None:
        """Prepare to read.

        Args:
            rate: Hz of the sound, `LOWEST_RATE` to `HIGHEST_RATE`; raw sound does not state it.
            stream: where to read, with `read1`; standard input by default.
            channels: interleaved, 1 to `MOST_CHANNELS`; raw sound does not state it.
            channel: which of them to use, as in `edge.audio.downmix`.

        Raises:
            UsageError: the rate or the number of channels is out of range, or the channel does not exist.
        """
        require_channels(channels)
        require_channel(channel, channels)
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise UsageError(
                f"a rate of {rate} Hz was given, expected {LOWEST_RATE} to {HIGHEST_RATE}",
                remedy="give the rate the sound was recorded at, for example --rate 16000",
            )
        self._rate = rate
        self._channels = channels
        self._channel = channel
        self._given = stream

    def __enter__(self) -> StdinSource:
        """Take standard input, if no stream was given.

        Raises:
            SourceError: standard input is closed, or a terminal.
        """
        self._stream = self._given or _piped_stdin(self._rate)
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the pipe open: its owner closes it."""

    def __iter__(self) -> Iterator[Block]:
        """Yield the sound as it arrives, until the pipe is closed.

        Raises:
            SourceError: no sound arrived, the data is not raw sound, or reading failed.
        """
        return report_dead_input(self._blocks(), self.name)

    def _blocks(self) -> Iterator[Block]:
        converter, heard = AudioConverter(self._rate, Downmix(self._rate, self._channel)), False
        remedies = {READABLE: "give the file's name instead of -"}
        decoder = PcmDecoder(" on standard input", remedies, channels=self._channels)
        while data := self._read():
            if len(sound := decoder.feed(data)):
                heard = True
                samples = converter.feed(sound, time.perf_counter())
                warning = decoder.take_warning() or converter.take_warning()
                yield from _block(samples, converter.arrived_s, warning)
        if not heard:
            raise SourceError("standard input ended before any sound came", remedy=_recording(self._rate))
        yield from _block(converter.flush(), converter.arrived_s)

    def _read(self) -> bytes:
        try:
            return self._stream.read1(2 * self._channels * round(BLOCK_S * self._rate))  # type: ignore[attr-defined, no-any-return]
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SourceError(
                f"standard input cannot be read ({reason})", remedy=_recording(self._rate)
            ) from error


def _piped_stdin(rate: int) -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise SourceError("standard input is closed", remedy=_recording(rate))
    if sys.stdin.isatty():
        raise SourceError("standard input is a terminal, not a pipe", remedy=_recording(rate))
    return sys.stdin.buffer


def _recording(rate: int) -> str:
    return f"pipe raw s16le mono into it, for example arecord -t raw -f S16_LE -c 1 -r {rate} | mmtl run -"


def _block(samples: Array, arrived_s: float, warning: InputWarning | None = None) -> Iterator[Block]:
    """Yield a block, unless there are neither samples nor a warning."""
    if len(samples) or warning:
        yield Block(samples, arrived_s, warning=warning)
