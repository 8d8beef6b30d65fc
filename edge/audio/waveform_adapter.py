"""What callers hand over to mono float32 samples at 16 kHz: any rate, several channels, integers, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.block import InputWarning
from edge.audio.downmix import MOST_CHANNELS, Channel, Downmix
from edge.audio.resampler import HIGHEST_RATE, LOWEST_RATE, AudioConverter
from edge.errors import UsageError


class WaveformAdapter:
    """Converts one stream of waveforms to the recogniser's samples.

    Remembers the stream's rate and what its `AudioConverter` holds back: at most 0.5 s. `flush` emits
    the samples held back and ends the stream; `reset` drops them. The next waveform may have another rate.
    """

    def __init__(self, channel: Channel) -> None:
        """Prepare a stream.

        Args:
            channel: the channel to recognise, as in `edge.audio.downmix`.
        """
        self._channel = channel
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._converter: AudioConverter | None = None

    def feed(self, sample_rate: int, waveform: NDArray[Any]) -> Array:
        """Convert the next waveform.

        Args:
            sample_rate: Hz, the same for the whole stream, `LOWEST_RATE` to `HIGHEST_RATE`.
            waveform: (N,) mono or (N, channels), floats in [-1, 1] or signed integers of 8 to 32 bits.

        Returns:
            (M,) float32 mono at 16 kHz in [-1, 1]; M may be 0.

        Raises:
            UsageError: the rate is out of range or has changed; or the waveform has another shape or type,
                or lacks the channel.
        """
        if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
            raise UsageError(f"{sample_rate:g} Hz arrived, expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        if self._converter is None:
            self._converter = AudioConverter(sample_rate, Downmix(sample_rate, self._channel))
        if self._converter.rate != sample_rate:
            raise UsageError(
                f"the stream began at {self._converter.rate:g} Hz and goes on at {sample_rate:g} Hz",
                remedy="flush and reset before another rate",
            )
        return self._converter.feed(_as_floats(waveform))

    def flush(self) -> Array:
        """End the stream and return the (M,) samples held back."""
        held = self._converter.flush() if self._converter else np.zeros(0, np.float32)
        self.reset()
        return held

    def take_warning(self) -> InputWarning | None:
        """Return, once, what was noticed about the channels."""
        return self._converter.take_warning() if self._converter else None


def clean_samples(samples: Array) -> Array:
    """Return (N,) float32 samples in [-1, 1]; NaN and infinities, which would stay in every state, become 0.

    Raises:
        UsageError: the array is not one-dimensional, or does not hold floats.
    """
    given = np.asarray(samples)
    if given.dtype == np.float32 and given.ndim == 1 and _within_full_scale(given):
        return given  # as the sources deliver it
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.floating):
        raise UsageError(
            f"samples of shape {given.shape} and type {given.dtype} arrived, expected (N,) floats in [-1, 1]",
            remedy="average the channels, and divide 16-bit integers by 32768",
        )
    clean: Array = np.clip(np.nan_to_num(given, posinf=0.0, neginf=0.0), -1.0, 1.0).astype(np.float32)
    return clean


def _within_full_scale(samples: Array) -> bool:
    return len(samples) > 0 and bool(samples.min() >= -1.0 and samples.max() <= 1.0)


def _as_floats(waveform: NDArray[Any]) -> Array:
    """Scale integers of any width to floats in [-1, 1].

    Raises:
        UsageError: the array does not hold samples, or its axes are swapped.
    """
    given = np.asarray(waveform)
    channels = given.shape[1] if given.ndim == 2 else 1  # an array of (channels, N) has too many
    known = given.dtype.kind == "f" or (given.dtype.kind == "i" and given.dtype.itemsize <= 4)
    if given.ndim not in (1, 2) or not known or not 1 <= channels <= MOST_CHANNELS:
        raise UsageError(
            f"a waveform of shape {given.shape} and type {given.dtype} arrived, expected (N,) or (N, "
            "channels) floats in [-1, 1] or signed integers of 8 to 32 bits",
            remedy="transpose or convert it",
        )
    scale = 2.0 ** (8 * given.dtype.itemsize - 1) if given.dtype.kind == "i" else 1.0
    scaled: Array = (given / np.float32(scale)).astype(np.float32, copy=False)
    return scaled
