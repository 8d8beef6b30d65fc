"""Loudness, pitch, speech rate and spectral shape of one clip."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import SAMPLE_RATE, Array
from edge.features.frontend import MEL_BANDS, FrontEnd, filtered
from edge.features.log_mel import LOG_MEL, log_mel_spectrogram

NAMES: Final = ("loudness", "pitch", "rate")
"""The first three measures: dB of the loud frames, semitones from 100 Hz, syllable peaks a second."""

ACTIVE_DB: Final = 25.0
"""A frame counts as speech if its level is within this of the loudest frame's."""

PITCH_HZ: Final = (60.0, 400.0)

VOICED: Final = 0.6
"""Smallest normalised autocorrelation of a voiced frame."""

BAND_GROUPS: Final = 20
"""Groups of mel bands whose mean and deviation describe the spectrum."""

SYLLABLE_FRAMES: Final = 11
"""Frames over which the level is smoothed before its peaks are counted: 110 ms."""

_PITCH_FRAME: Final = SAMPLE_RATE * 40 // 1000
_PITCH_HOP: Final = SAMPLE_RATE * 20 // 1000
_PITCH_DFT: Final = 2048


def measures(waveform: Array) -> Array:
    """Measure a clip after the input filter.

    Args:
        waveform: (N,) float32 samples at 16 kHz.

    Returns:
        (M,) float32: `NAMES`, then the spread of level and pitch, the voiced share, the duration, and the
        mean and deviation of `BAND_GROUPS` groups of bands; NaN where there is no voiced frame.
    """
    waveform = filtered(waveform, FrontEnd())
    log_mel = log_mel_spectrogram(np.pad(waveform, (0, max(0, _PITCH_FRAME - len(waveform)))))
    level = 10.0 * np.log10((10.0**log_mel).mean(axis=1))  # (T,) dB
    active = level > level.max() - ACTIVE_DB
    span_s = (np.ptp(np.flatnonzero(active)) + 1) * LOG_MEL.hop_length / SAMPLE_RATE
    speech = 10.0 * log_mel[active]
    spectrum = speech - speech.mean(axis=1, keepdims=True)
    pitch, voiced = pitch_track(waveform)
    low, median, high = np.percentile(pitch, (10, 50, 90)) if len(pitch) else (np.nan,) * 3
    single = (
        *(level[active].mean(), median, _peaks(level) / span_s),
        *(level[active].std(), high - low, voiced, np.log(span_s)),
    )
    return np.concatenate([single, _grouped(spectrum.mean(axis=0)), _grouped(speech.std(axis=0))]).astype(
        np.float32
    )


def pitch_track(waveform: Array) -> tuple[NDArray[np.float64], float]:
    """Find the pitch of voiced frames by normalised autocorrelation.

    Boersma 1993: the frame's autocorrelation is divided by that of the window. If a half or a third of the
    best lag is nearly as good, it is taken as the period.

    Returns:
        (voiced frames,) semitones from 100 Hz, and the share of frames that are voiced.
    """
    if len(waveform) < _PITCH_FRAME:
        return np.zeros(0), 0.0
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _PITCH_FRAME)[::_PITCH_HOP] * _hann()
    shortest, longest = (round(SAMPLE_RATE / hz) for hz in reversed(PITCH_HZ))
    correlation = _autocorrelation(frames)[:, : longest + 1]
    energy = correlation[:, 0]
    window = _autocorrelation(_hann()[None])[:, : longest + 1]
    normal = correlation / np.maximum(energy[:, None], 1e-12) * (window[:, :1] / window)
    rows = np.arange(len(frames))
    lag = normal[:, shortest:].argmax(axis=1) + shortest
    height = normal[rows, lag]
    for divisor in (2, 3):
        shorter = np.maximum(np.round(lag / divisor).astype(int), shortest)
        lag = np.where(normal[rows, shorter] > 0.9 * height, np.minimum(lag, shorter), lag)
    voiced = (height > VOICED) & (energy > energy.max() * 10.0 ** (-ACTIVE_DB / 10.0))
    return 12.0 * np.log2(SAMPLE_RATE / lag[voiced] / 100.0), float(voiced.mean())


def _autocorrelation(frames: Array) -> Array:
    """Return the (T, lags) autocorrelation of each row."""
    spectrum = np.fft.rfft(frames, _PITCH_DFT)
    correlation: Array = np.fft.irfft(spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return correlation


def _peaks(level: Array) -> int:
    """Count the peaks of the smoothed level, dB, within 20 dB of the highest: about one a syllable."""
    window = np.hanning(SYLLABLE_FRAMES + 2)[1:-1]
    smooth = np.convolve(level, window / window.sum(), mode="same")
    middle = smooth[1:-1]
    peaks = (middle > smooth[:-2]) & (middle >= smooth[2:]) & (middle > smooth.max() - 20.0)
    return int(peaks.sum())


def _grouped(bands: Array) -> Array:
    grouped: Array = bands.reshape(BAND_GROUPS, MEL_BANDS // BAND_GROUPS).mean(axis=1)
    return grouped


@functools.cache
def _hann() -> Array:
    window: Array = np.hanning(_PITCH_FRAME + 2)[1:-1].astype(np.float32)
    window.setflags(write=False)
    return window
