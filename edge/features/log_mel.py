"""Power spectra to the log mel spectrogram that the Whisper encoder reads.

The constants are those of OpenAI Whisper (Radford et al. 2022). A frame depends on 400 samples of the
stream only. What depends on the window, the level and the floor 80 dB below its maximum, is the first
step of the network (`train.pretrained_net`).
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.frontend import MEL_BANDS, FrontEnd, power_spectrogram
from edge.features.normaliser import BinStatistics

LOG_MEL: Final = FrontEnd(win_length_ms=25, n_fft=400, bins=201, window_ms=2975, spectrum="log_mel")
"""The front-end of models on a Whisper encoder: frames of 25 ms each 10 ms, 0 to 8 kHz, 296 in a window."""

_PIECE: Final = 16
"""Frames multiplied at once: few enough for BLAS to start no threads, which would spin on other cores."""

FLOOR: Final = np.float32(1e-10)
"""Lowest mel power."""


def has_mel_bands(front_end: FrontEnd) -> bool:
    """Return whether the frames of a front-end are those that the mel filters are made for."""
    names = ("win_length_ms", "hop_length_ms", "n_fft", "bins")
    return all(getattr(front_end, name) == getattr(LOG_MEL, name) for name in names)


def log_mel(power: Array) -> Array:
    """Map (T, 201) power spectra to (T, 80) float32 log10 power of mel bands."""
    logs: Array = np.log10(np.maximum(mel_power(power, MEL_BANDS), FLOOR))
    return logs


def mel_power(power: Array, bands: int) -> Array:
    """Map (T, 201) power spectra to (T, bands) float32 power of mel bands."""
    filters = mel_filters(bands)
    pieces = [power[first : first + _PIECE] @ filters for first in range(0, len(power), _PIECE)]
    return np.concatenate([np.zeros((0, bands), np.float32), *pieces])


def log_mel_spectrogram(waveform: Array) -> Array:
    """Compute the log mel spectrum of centred frames, the ends of the sound reflected, as Whisper does.

    Differs: a stream's frames are not centred; its first one starts with the first sample.

    Args:
        waveform: (N,) float32 samples in [-1, 1] at 16 kHz.

    Returns:
        (T, 80) float32 log10 power, T = N // 160.
    """
    frames = len(waveform) // LOG_MEL.hop_length
    if frames == 0:
        return np.zeros((0, MEL_BANDS), np.float32)
    padded = np.pad(waveform, LOG_MEL.n_fft // 2, mode="reflect")
    return log_mel(power_spectrogram(padded, LOG_MEL)[:frames])


class LogMel:
    """Turns the power spectra of a stream into log mel spectra. Remembers nothing."""

    def __init__(self, statistics: BinStatistics) -> None:
        """Take statistics of the (80,) bands: mean 0 and deviation 1 where the network normalises itself."""
        self._statistics = statistics

    def reset(self) -> None:
        """Do nothing."""

    def __call__(self, power: Array, levels: Array | None = None) -> Array:
        """Map the next (T, 201) power spectra to (T, 80) float32; their levels have no effect."""
        normalised: Array = (log_mel(power) - self._statistics.mean) / self._statistics.std
        return normalised


@functools.cache
def mel_filters(bands: int = MEL_BANDS) -> Array:
    """Return the (201, bands) triangular filters from 0 Hz to half the rate, each of unit area.

    The scale is Slaney's (Auditory Toolbox, 1998): linear up to 1 kHz, then logarithmic.
    """
    corners = _from_mel(np.linspace(0.0, _to_mel(LOG_MEL.sample_rate / 2), bands + 2))  # Hz
    bins = np.arange(LOG_MEL.bins)[:, None] * (LOG_MEL.sample_rate / LOG_MEL.n_fft)
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
