"""Sound of any rate and number of channels to mono samples at 16 kHz, as a stream.

A file, a pipe and a microphone all pass through one `Intake`, so that the model hears the same
samples whichever way they came.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import soxr

from edge.errors import SourceError
from edge.frontend import Array, FrontEnd
from edge.shell import quoted

SAMPLE_RATE: Final = FrontEnd.sample_rate
"""Hz of everything that leaves this module."""
LOWEST_RATE: Final = 4_000
"""Hz; below this there is too little speech left to judge."""
HIGHEST_RATE: Final = 192_000
"""Hz."""
BLOCK_S: Final = 0.08
"""Duration of the blocks that files are read in: the shortest step of the recogniser."""


class Resampler:
    """Bring a mono stream to 16 kHz.

    Remembers the filter's history: at most a few tens of milliseconds, which `flush` emits. Output
    does not depend on how the input is divided into blocks. One stream each: there is no reset.
    """

    def __init__(self, rate: float) -> None:
        """Prepare for a stream.

        Args:
            rate: Hz of what will be fed, `LOWEST_RATE` to `HIGHEST_RATE`.
        """
        self._stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1)

    def feed(self, samples: Array) -> Array:
        """Take (N,) samples and return the (M,) samples at 16 kHz that are ready."""
        return self._resample(samples, last=False)

    def flush(self) -> Array:
        """End the stream and return the (M,) samples still held back."""
        return self._resample(np.zeros(0, np.float32), last=True)

    def _resample(self, samples: Array, *, last: bool) -> Array:
        if self._stream is None:
            return samples
        # The filter overshoots where loud sound was cut off at full scale.
        resampled: Array = np.clip(self._stream.resample_chunk(samples, last=last), -1.0, 1.0)
        return resampled


class Intake:
    """Clean a stream of sound and bring it to 16 kHz: mix down, repair, resample.

    Remembers what its `Resampler` does, and when the sound that it holds back arrived; counts the
    values it had to repair.
    """

    def __init__(self, rate: float) -> None:
        """Prepare for a stream of sound at `rate` Hz."""
        self.rate = rate
        self._resampler = Resampler(rate)
        self._came = self._left = 0
        self._held: deque[tuple[int, float]] = deque()
        self.arrived_s = 0.0
        """When the last sample that came out had been fed: the resampler holds back up to 0.1 s."""
        self.clipped = 0
        """Values beyond +-1 so far, each cut to +-1."""
        self.not_finite = 0
        """Values that were NaN or infinite so far, each replaced by 0."""

    def feed(self, sound: Array, arrived_s: float = 0.0) -> Array:
        """Take the next piece of sound.

        Args:
            sound: (N,) or (N, channels) float32 at the stream's own rate, full scale +-1.
            arrived_s: when it arrived, by any clock; what `arrived_s` is said in terms of.

        Returns:
            (M,) float32 mono at 16 kHz in [-1, 1]; M may be 0.
        """
        if len(sound):
            self._came += len(sound)
            self._held.append((self._came, arrived_s))
        return self._given_out(self._resampler.feed(_mix_down(self._repair(sound))))

    def flush(self) -> Array:
        """End the stream and return the (M,) samples still held back."""
        return self._given_out(self._resampler.flush())

    def _given_out(self, samples: Array) -> Array:
        """Find out with which piece the last of the samples had come."""
        self._left += len(samples)
        came = (self._left - 1) * self.rate / SAMPLE_RATE
        while len(self._held) > 1 and self._held[0][0] <= came:
            self._held.popleft()
        if self._held:
            self.arrived_s = self._held[0][1]
        return samples

    def _repair(self, sound: Array) -> Array:
        finite = np.isfinite(sound)
        if not finite.all():
            self.not_finite += int(np.count_nonzero(~finite))
            sound = np.where(finite, sound, np.float32(0.0))
        beyond = int(np.count_nonzero(np.abs(sound) > 1.0))
        self.clipped += beyond
        return np.clip(sound, -1.0, 1.0) if beyond else sound


def _mix_down(sound: Array) -> Array:
    """Average the channels of (N,) or (N, channels) sound to (N,)."""
    if sound.ndim == 1:
        return sound
    mono: Array = sound.mean(axis=1, dtype=np.float32)
    return mono


class SoundFile:
    """A sound file, read from its beginning in blocks; a context manager.

    Whatever is wrong with the file is said on entering, except damage further in: the sound before
    it is delivered, then `SourceError` is raised. A WAV, AIFF or MP3 file that ends sooner than its
    header says is read as far as it goes; half a FLAC file is damage at its end.
    """

    def __init__(self, path: str | Path) -> None:
        """Name a file; nothing is opened yet."""
        self.path = Path(path)

    def __enter__(self) -> SoundFile:
        """Open the file.

        Raises:
            SourceError: it is missing, unreadable, a folder, empty, not sound, or of an odd rate.
        """
        _check_readable(self.path)
        self._file = self._open()
        try:
            self._check_contents()
        except SourceError:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self._file.close()

    @property
    def rate(self) -> int:
        """Hz, once open."""
        return int(self._file.samplerate)

    def blocks(self) -> Iterator[Array]:
        """Read the file as (N, channels) float32 blocks of `BLOCK_S` at its own rate; the last is shorter.

        Raises:
            SourceError: the file is damaged from here on.
        """
        frames, done = round(BLOCK_S * self.rate), 0
        while len(block := self._read(frames, done)):
            yield block
            done += len(block)

    def _open(self) -> Any:
        soundfile = _soundfile()
        try:
            # As bytes, for a name that is not UTF-8; Windows has no such names.
            return soundfile.SoundFile(os.fsencode(self.path) if os.name == "posix" else self.path)
        # soundfile raises TypeError for the names of headerless formats, such as x.raw.
        except (soundfile.SoundFileError, TypeError) as error:
            message = f"{self.path} cannot be read as sound ({_reason(error)}): {_convert(self.path)}"
            raise SourceError(message) from error

    def _check_contents(self) -> None:
        if self._file.frames == 0:
            raise SourceError(f"{self.path} holds no samples: record it again, or name another file")
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            expected = f"expected {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            raise SourceError(f"{self.path} is at {self.rate} Hz, {expected}: {_convert(self.path)}")

    def _read(self, frames: int, done: int) -> Array:
        try:
            block: Array = self._file.read(frames, dtype="float32", always_2d=True)
        except _soundfile().SoundFileError as error:
            where = f"{self.path} is damaged or cut off after {done / self.rate:.2f} s"
            raise SourceError(f"{where} ({_reason(error)}): copy or convert it again") from error
        return block


def read_clip(path: str | Path) -> Array:
    """Read a whole sound file as (N,) float32 mono at 16 kHz in [-1, 1].

    The samples are those that a stream of the file delivers, exactly.

    Raises:
        SourceError: the file is missing, empty, not sound, or damaged anywhere.
    """
    with SoundFile(path) as file:
        intake = Intake(file.rate)
        pieces = [intake.feed(block) for block in file.blocks()]
    return np.concatenate([*pieces, intake.flush()])


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise SourceError(f"{path} is a folder: name one sound file in it")
    if not path.exists():
        raise SourceError(f"{path} does not exist: name a sound file, or mic, demo, or - for a pipe")
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file: pipe raw s16le sound to - instead")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SourceError(f"{path} cannot be opened ({error.strerror}): check its permissions") from error
    if empty:
        raise SourceError(f"{path} is empty (0 bytes): record or copy it again")


def _soundfile() -> Any:
    """Import soundfile where it is needed, so that a microphone works without libsndfile."""
    try:
        import soundfile
    except (OSError, ImportError) as error:
        remedy = "apt install libsndfile1, then pip install --force-reinstall soundfile"
        raise SourceError(f"sound files need libsndfile ({_reason(error)}): {remedy}") from error
    return soundfile


def _convert(path: Path) -> str:
    converted = path.with_name(f"{path.stem}-16k.wav")
    command = f"ffmpeg -i {_for_ffmpeg(path)} -ac 1 -ar {SAMPLE_RATE} {_for_ffmpeg(converted)}"
    return f"convert it first, for example {command}"


def _for_ffmpeg(path: Path) -> str:
    """Write a name that may hold a colon, before which ffmpeg expects a protocol."""
    return quoted(path if path.is_absolute() or ":" not in str(path) else f"./{path}")


def _reason(error: Exception) -> str:
    """What the library said, in one line without the file's name again."""
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".") or type(error).__name__
