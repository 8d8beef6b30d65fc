"""Conversion of sound of any rate and number of channels to mono at 16 kHz, as a stream.

Files, pipes and microphones all pass through `AudioConverter`, so the model gets the same samples from each.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import soxr

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import InputWarning
from edge.audio.downmix import Downmix

LOWEST_RATE: Final = 4_000
"""Hz; a lower rate leaves too little of the speech band."""
HIGHEST_RATE: Final = 192_000
"""Hz."""


class Resampler:
    """Resamples a mono stream to 16 kHz.

    Remembers the filter's history, at most a few tens of milliseconds, which `flush` emits. The output does
    not depend on how the input is divided into blocks. One instance per stream: there is no reset.
    """

    def __init__(self, rate: float) -> None:
        """Prepare for a stream.

        Args:
            rate: Hz of the input, `LOWEST_RATE` to `HIGHEST_RATE`.
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


class AudioConverter:
    """Converts a stream to mono at 16 kHz: repairs values, mixes down, resamples.

    Remembers the state of its `Downmix` and `Resampler`, and the arrival times of the sound they hold back;
    counts the repaired values.
    """

    def __init__(self, rate: float, downmix: Downmix | None = None) -> None:
        """Prepare for a stream.

        Args:
            rate: Hz.
            downmix: mixes the channels; `auto` by default.
        """
        self.rate = rate
        self._downmix = downmix or Downmix(rate)
        self._resampler = Resampler(rate)
        self._frames_in = self._samples_out = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        self.arrived_s = 0.0
        """Arrival of the last output sample: the resampler holds back 0.1 s, a stereo downmix 0.5 s."""
        self.clipped = 0
        """Values beyond +-1 so far, each limited to +-1."""
        self.not_finite = 0
        """Values that were NaN or infinite so far, each replaced by 0."""

    def feed(self, sound: Array, arrived_s: float = 0.0) -> Array:
        """Convert the next sound.

        Args:
            sound: (N,) or (N, channels) float32 at the stream's own rate, full scale +-1.
            arrived_s: when it arrived, by any clock; the attribute `arrived_s` uses the same clock.

        Returns:
            (M,) float32 mono at 16 kHz in [-1, 1]; M may be 0.
        """
        if len(sound):
            self._frames_in += len(sound)
            self._arrivals.append((self._frames_in, arrived_s))
        return self._track_arrival(self._resampler.feed(self._downmix.feed(self._repair(sound))))

    def flush(self) -> Array:
        """End the stream and return the (M,) samples still held back."""
        held = self._resampler.feed(self._downmix.flush())
        return self._track_arrival(np.concatenate([held, self._resampler.flush()]))

    def take_warning(self) -> InputWarning | None:
        """Return a new warning about the channels, once."""
        return self._downmix.take_warning()

    def _track_arrival(self, samples: Array) -> Array:
        """Set `arrived_s` to the arrival of the input block that holds the last of these output samples."""
        self._samples_out += len(samples)
        needed_frames = (self._samples_out - 1) * self.rate / SAMPLE_RATE
        while len(self._arrivals) > 1 and self._arrivals[0][0] <= needed_frames:
            self._arrivals.popleft()
        if self._arrivals:
            self.arrived_s = self._arrivals[0][1]
        return samples

    def _repair(self, sound: Array) -> Array:
        finite = np.isfinite(sound)
        if not finite.all():
            self.not_finite += int(np.count_nonzero(~finite))
            sound = np.where(finite, sound, np.float32(0.0))
        beyond = int(np.count_nonzero(np.abs(sound) > 1.0))
        self.clipped += beyond
        return np.clip(sound, -1.0, 1.0) if beyond else sound
