"""Sound to the log mel spectrogram that the Whisper encoder reads, of a recording or a stream.

The constants are those of OpenAI Whisper (Radford et al. 2022). A frame depends on 400 samples of the
stream only; the normalisation, which depends on the window, is applied to complete windows.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import SAMPLE_RATE, Array

N_FFT: Final = 400
"""Points of the DFT, and samples in a frame: 25 ms."""

HOP_LENGTH: Final = 160
"""Samples from one frame to the next: 10 ms."""

MEL_BANDS: Final = 80

FLOOR: Final = np.float32(1e-10)
"""Lowest mel power."""

DYNAMIC_RANGE: Final = np.float32(8.0)
"""Decades kept below the maximum of a window: 80 dB."""

MAXIMUM: Final = np.float32(1.5)
"""Log10 mel power to which the maximum of a window is shifted: that of clear speech near full scale."""


def log_mel_spectrogram(waveform: Array) -> Array:
    """Compute the log mel spectrum of centred frames, the ends of the sound reflected.

    Args:
        waveform: (N,) float32 samples in [-1, 1] at `SAMPLE_RATE`.

    Returns:
        (T, 80) float32 log10 power, T = N // `HOP_LENGTH`.
    """
    frames = len(waveform) // HOP_LENGTH
    if frames == 0:
        return np.zeros((0, MEL_BANDS), np.float32)
    return _log_mel(np.pad(waveform, N_FFT // 2, mode="reflect"), frames)


class LogMelStream:
    """Computes the same frames from samples that arrive in blocks of any size.

    Remembers the samples of incomplete frames: fewer than 400, and at the start the first 200,
    which are reflected. `flush` reflects the end and returns the last frames; `reset` forgets all.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._samples = np.zeros(0, np.float32)
        self._started = False

    def feed(self, block: Array) -> Array:
        """Take (N,) samples and return the (T, 80) frames that they complete."""
        samples = np.concatenate([self._samples, block])
        if not self._started and len(samples) > N_FFT // 2:
            samples = np.concatenate([samples[N_FFT // 2 : 0 : -1], samples])
            self._started = True
        frames = max(0, (len(samples) - N_FFT) // HOP_LENGTH + 1) if self._started else 0
        self._samples = samples[frames * HOP_LENGTH :]
        return _log_mel(samples, frames)

    def flush(self) -> Array:
        """Return the (T, 80) frames whose centre has arrived but whose end has not; then reset."""
        samples, started = self._samples, self._started
        self.reset()
        if not started:
            return log_mel_spectrogram(samples)
        padded = np.pad(samples, (0, N_FFT // 2), mode="reflect")
        return _log_mel(padded, (len(padded) - N_FFT) // HOP_LENGTH)  # the last frame is dropped


def normalised_window(log_mel: Array) -> Array:
    """Normalise the level of one window's (T, 80) frames, and scale them to the encoder's range.

    The maximum is shifted to `MAXIMUM`, values more than `DYNAMIC_RANGE` below it are clipped, and
    (x + 4) / 4 is Whisper's own scaling.

    Differs: Whisper cuts 8 decades below the maximum of the whole clip and keeps its level. The maximum
    of the window is known in a stream, and makes the result independent of the microphone's gain.
    """
    relative = np.maximum(log_mel - log_mel.max(), -DYNAMIC_RANGE)
    scaled: Array = (relative + (MAXIMUM + np.float32(4.0))) / np.float32(4.0)
    return scaled


def _log_mel(samples: Array, frames: int) -> Array:
    """Return the log mel spectra of the first frames of (N,) samples, a hop apart: (frames, 80)."""
    if frames == 0:
        return np.zeros((0, MEL_BANDS), np.float32)
    every = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH][:frames]
    spectrum = np.fft.rfft(every * _hann())  # (frames, 201)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
    logs: Array = np.log10(np.maximum(power @ mel_filters(), FLOOR))
    return logs


@functools.cache
def _hann() -> Array:
    """Return the periodic Hann window."""
    window: Array = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    window.setflags(write=False)
    return window


@functools.cache
def mel_filters() -> Array:
    """Return the (201, 80) triangular filters from 0 Hz to half the rate, each of unit area.

    The scale is Slaney's (Auditory Toolbox, 1998): linear up to 1 kHz, then logarithmic.
    """
    corners = _from_mel(np.linspace(0.0, _to_mel(SAMPLE_RATE / 2), MEL_BANDS + 2))  # Hz
    bins = np.arange(N_FFT // 2 + 1)[:, None] * (SAMPLE_RATE / N_FFT)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: Array = (triangles * 2.0 / (high - low)).astype(np.float32)
    filters.setflags(write=False)
    return filters


_LINEAR_HZ: Final = 200.0 / 3.0
"""Width of a mel below 1 kHz."""

_BREAK_HZ: Final = 1000.0

_LOG_STEP: Final = np.log(6.4) / 27.0
"""Natural logarithm of the frequency ratio of a mel above 1 kHz."""


def _to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return float(_BREAK_HZ / _LINEAR_HZ + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _from_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    beyond = mel - _BREAK_HZ / _LINEAR_HZ
    hz: NDArray[np.float64] = np.where(
        beyond < 0.0, mel * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * np.maximum(beyond, 0.0))
    )
    return hz
