"""Decode one logical stream of a sound file with libsndfile, from its beginning to its end."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.arrays import Array
from edge.errors import SourceError
from edge.file_formats.section_reader import LogicalStream
from edge.system.signals import interrupts_deferred
from edge.system.standard_streams import native_stderr_silenced

UNKNOWN_FRAMES: Final = 1 << 62
"""libsndfile states 2^63 - 1 frames if it does not know their number."""
LEAST_LOSS_S: Final = 0.05
"""A shorter loss at the end of a file causes no warning: part of one MP3 frame may be cut off."""
UNREAD_BYTES: Final = 1 << 16
"""A decoder may leave fewer bytes unread at the end: padding, tags, and its read-ahead."""


class DecodedStream:
    """Decodes one logical stream to blocks of samples.

    Frames are counted as they are decoded. libsndfile must not seek: soundfile seeks after each block by
    default, which loses the bit reservoir of MP3 and fails in FLAC of unknown length.
    """

    def __init__(self, stream: LogicalStream, path: Path) -> None:
        """Open the stream.

        Args:
            stream: what to decode.
            path: of the file; libsndfile recognises some formats only by the file's name.

        Raises:
            SourceError: libsndfile is not installed.
            soundfile.SoundFileError: libsndfile does not know the format.
        """
        self._stream = stream
        soundfile = load_soundfile()
        with native_stderr_silenced(), interrupts_deferred():
            try:
                self._file = _forward_only(soundfile)(stream.reader)
            except soundfile.SoundFileError:
                self._file = _forward_only(soundfile)(str(path))
        self.rate = int(self._file.samplerate)
        """Hz."""
        self.channels = int(self._file.channels)
        frames = int(self._file.frames)
        self.stated = frames if stream.states_length and frames < UNKNOWN_FRAMES else None
        """Frames that the header states; None if it states none."""
        self.is_empty = frames == 0
        self.done = 0
        """Frames decoded so far."""
        self.damage = ""
        """Why decoding ended early."""

    def blocks(self, duration_s: float) -> Iterator[Array]:
        """Yield (N, channels) float32 blocks of `duration_s` at the stream's rate; the last may be shorter.

        If decoding fails, the blocks end and `damage` says why.
        """
        while len(block := self._read(round(duration_s * self.rate))):
            self.done += len(block)
            yield block
        if self.stated is not None and self.stated - self.done > LEAST_LOSS_S * self.rate:
            self.damage = self.damage or "it ends before its stated length"

    @property
    def lost_s(self) -> float:
        """Seconds of sound that were not decoded, by the header or else by the length in bytes."""
        done_s, reader = self.done / self.rate, self._stream.reader
        lost_s = self._stream.missing * done_s
        if self.stated is not None:
            return lost_s + (self.stated - self.done) / self.rate
        unread = reader.size - reader.tell()
        if unread > (0 if self.damage else UNREAD_BYTES):
            lost_s += done_s * unread / max(1, reader.tell())
        return lost_s

    def close(self) -> None:
        """Free the decoder."""
        self._file.close()

    def _read(self, frames: int) -> Array:
        if self.stated is not None:
            frames = min(frames, self.stated - self.done)  # data after them may not be sound
        # libmpg123 writes warnings about damaged frames to stderr.
        mpeg = self._file.subtype.startswith("MPEG")
        with native_stderr_silenced() if mpeg else contextlib.nullcontext(), interrupts_deferred():
            try:
                block: Array = self._file.read(frames, dtype="float32", always_2d=True)
            except load_soundfile().SoundFileError as error:
                self.damage = reason(error)
                block = np.zeros((0, self.channels), np.float32)
        if failure := self._stream.reader.failure:
            self.damage = failure.strerror or type(failure).__name__
        return block


def load_soundfile() -> Any:
    """Import soundfile when it is first needed: a microphone works without libsndfile.

    Raises:
        SourceError: it cannot be imported.
    """
    try:
        import soundfile
    except (OSError, ImportError) as error:
        raise SourceError(
            f"sound files need libsndfile ({reason(error)})",
            remedy="apt install libsndfile1, then pip install --force-reinstall soundfile",
        ) from error
    return soundfile


@functools.lru_cache(maxsize=1)
def _forward_only(soundfile: Any) -> Any:
    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return ForwardOnly


def reason(error: Exception) -> str:
    """Return the library's message in one line, without the file's name."""
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".") or type(error).__name__
