"""Sound files: read in blocks as they are (`SoundFile`), or whole as mono at 16 kHz (`read_clip`)."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import InputWarning
from edge.audio.downmix import AUTO, Channel, Downmix
from edge.audio.resampler import HIGHEST_RATE, LOWEST_RATE, AudioConverter
from edge.errors import SoundWarning, SourceError
from edge.file_formats.containers import logical_streams
from edge.file_formats.decoding import LEAST_LOSS_S, DecodedStream, load_soundfile, reason
from edge.file_formats.section_reader import LogicalStream
from edge.system.shell import quoted

BLOCK_S: Final = 0.08
"""Block length for reading files: the shortest step of the recogniser."""


class SoundFile:
    """A sound file, read from its beginning in blocks; a context manager.

    Frames are counted as they are decoded: the sizes and lengths in a header are not trusted, so an
    incomplete header does no harm. A file may hold several streams one after the other. A file that cannot
    be used is refused on `__enter__`. Damage further in is different: the sound around it is delivered, and
    `finish` raises.
    """

    def __init__(self, path: str | Path) -> None:
        """Name a file; nothing is opened yet."""
        self.path = Path(path)
        self._done_s = self._lost_s = 0.0
        self._damage = ""

    def __enter__(self) -> SoundFile:
        """Open the file.

        Raises:
            SourceError: it is missing, unreadable, a folder, empty, not sound, or its rate is out of range.
        """
        with contextlib.ExitStack() as stack:
            self._streams = logical_streams(stack.enter_context(_readable(self.path)))
            self._first = self._opened(next(self._streams))
            stack.callback(self._first.close)
            self._check(self._first)
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self._close()

    @property
    def channels(self) -> int:
        """Channels of the first stream, once open."""
        return self._first.channels

    def streams(self) -> Iterator[DecodedStream]:
        """Yield the logical streams one after the other; most files hold one."""
        stream: DecodedStream | None = self._first
        while stream:
            yield stream
            stream.close()
            self._done_s += stream.done / stream.rate
            self._lost_s += stream.lost_s
            self._damaged(stream.damage)
            stream = self._next()

    @property
    def warning(self) -> InputWarning | None:
        """How much of the sound is missing, once all streams are read."""
        if self._lost_s < LEAST_LOSS_S:
            return None
        message = f"{self._lost_s:.2f} s of the file are missing or cannot be read: copy or convert it again"
        return InputWarning("length", message, self._lost_s)

    def finish(self) -> None:
        """Report damage, once all streams are read.

        Raises:
            SourceError: part of the file could not be read.
        """
        if self._damage:
            lost = f"{self._lost_s:.2f} s" if self._lost_s >= LEAST_LOSS_S else "the rest"
            raise SourceError(
                f"{self.path} {self._damage}, {lost} cannot be read", remedy="copy or convert it again"
            )

    def _next(self) -> DecodedStream | None:
        try:
            if stream := next(self._streams, None):
                decoded = self._opened(stream)
                self._check(decoded)
                return decoded
        except (OSError, SourceError) as error:
            self._damaged(reason(error))
        return None

    def _damaged(self, why: str) -> None:
        if why and not self._damage:
            self._damage = f"is damaged or cut off after {self._done_s:.2f} s ({why})"

    def _opened(self, stream: LogicalStream) -> DecodedStream:
        soundfile = load_soundfile()
        try:
            return DecodedStream(stream, self.path)
        # soundfile raises TypeError for the names of headerless formats, such as x.raw.
        except (soundfile.SoundFileError, TypeError) as error:
            raise SourceError(
                f"{self.path} cannot be read as sound ({reason(error)})", remedy=_convert(self.path)
            ) from error

    def _check(self, stream: DecodedStream) -> None:
        if stream.is_empty:
            raise SourceError(f"{self.path} holds no samples", remedy="record it again, or name another file")
        if not LOWEST_RATE <= stream.rate <= HIGHEST_RATE:
            expected = f"expected {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            raise SourceError(f"{self.path} is at {stream.rate} Hz, {expected}", remedy=_convert(self.path))


def read_clip(path: str | Path, channel: Channel = AUTO, *, longest_s: float = math.inf) -> Array:
    """Read a sound file as (N,) float32 mono at 16 kHz in [-1, 1].

    The samples are exactly those that streaming the file delivers. An `InputWarning` of the stream (missing
    sound, channels that cancel each other) becomes a Python `SoundWarning`.

    Args:
        path: the file.
        channel: which channel to read, as in `edge.audio.downmix`.
        longest_s: where to stop reading; the rest of the file is not checked.

    Raises:
        SourceError: the file is missing, empty, not sound, or damaged in the part that is read.
        UsageError: it does not have the channel.
    """
    clips: list[Array] = []
    noticed: list[InputWarning | None] = []
    with SoundFile(path) as file:
        for samples, warning in _samples(file, channel):
            clips.append(samples)
            noticed.append(warning)
            longest_s -= len(samples) / SAMPLE_RATE
            if longest_s <= 0.0:
                return np.concatenate(clips)
    file.finish()
    for warning in (*noticed, file.warning):
        if warning:
            warnings.warn(f"{file.path}: {warning.message}", SoundWarning, stacklevel=2)
    return np.concatenate(clips)


def _samples(file: SoundFile, channel: Channel) -> Iterator[tuple[Array, InputWarning | None]]:
    """Yield an open file as (N,) mono samples at 16 kHz, with new warnings."""
    for stream in file.streams():
        converter = AudioConverter(stream.rate, Downmix(stream.rate, channel))
        for block in stream.blocks(BLOCK_S):
            yield converter.feed(block), converter.take_warning()
        yield converter.flush(), converter.take_warning()


def _readable(path: Path) -> BinaryIO:
    """Open a regular file and check that it is not empty.

    Raises:
        SourceError: the file is missing, empty, not regular, or cannot be opened.
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder", remedy="name one sound file in it")
    if not path.exists():
        raise SourceError(f"{path} does not exist", remedy="name a sound file, or mic, demo, or - for a pipe")
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file", remedy="pipe raw s16le sound to - instead")
    try:
        file = path.open("rb")
        empty = not file.read(1)
    except OSError as error:
        raise SourceError(
            f"{path} cannot be opened ({error.strerror})", remedy="check its permissions"
        ) from error
    if empty:
        file.close()
        raise SourceError(f"{path} is empty (0 bytes)", remedy="record or copy it again")
    return file


def _convert(path: Path) -> str:
    converted = path.with_name(f"{path.stem}-16k.wav")
    command = f"ffmpeg -i {_for_ffmpeg(path)} -ac 1 -ar {SAMPLE_RATE} {_for_ffmpeg(converted)}"
    return f"convert it first, for example {command}"


def _for_ffmpeg(path: Path) -> str:
    """Quote a path for ffmpeg, which takes the text before a colon for a protocol."""
    return quoted(path if path.is_absolute() or ":" not in str(path) else f"./{path}")
