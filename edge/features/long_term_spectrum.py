"""The long-term average spectrum of a window: the colour of a voice, beside what the network hears in it.

The network was taught to hear all speakers alike, so it drops colour that tells one person's emotions
apart. Only a speaker's own head reads it: see `calibrate.fitting.adapter`.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.features.frontend import FrontEnd

BANDS: Final = 17
"""Third octaves from 100 Hz to 4 kHz, the front-end's last bin: 1000 Hz * 2^(k / 3), k = -10 to 6."""

SPECTRUM_SIZE: Final = 2 * BANDS

SPOKEN_DB: Final = 20.0
"""Frames so far below the loudest of a window say nothing of how somebody speaks."""

FLOOR: Final = 1e-4
"""Added to the power, of which the spoken frames have 1: what is 40 dB below them does not count."""


def near_loudest(levels_db: Array) -> NDArray[np.bool_]:
    """Tell which of the (T,) frames of a window are spoken rather than pauses, by their levels in dB."""
    spoken: NDArray[np.bool_] = levels_db > levels_db.max() - SPOKEN_DB
    return spoken


def band_powers(power: Array, front_end: FrontEnd) -> Array:
    """Average (T, F) power spectra over the bins of each band: (T, BANDS)."""
    bands: Array = power @ _membership(front_end)
    return bands


def long_term_spectrum(bands: Array, levels_db: Array) -> Array:
    """Sum up the spoken frames of a window.

    Args:
        bands: (T, BANDS) `band_powers` of its frames, T > 0.
        levels_db: (T,) their levels, against anything.

    Returns:
        (SPECTRUM_SIZE,) nats: mean, then standard deviation over the frames, of each band's logarithmic
        power against the mean of all. Sound made louder as a whole leaves it as it is.
    """
    spoken = bands[near_loudest(levels_db)]
    power = max(float(spoken.mean()), 1e-20)
    logs = np.log(spoken / np.float32(power) + np.float32(FLOOR))
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0)])


@functools.lru_cache(maxsize=8)
def _membership(front_end: FrontEnd) -> Array:
    """Return (F, BANDS): the share of each bin in each band."""
    centres_hz = 1000.0 * 2.0 ** (np.arange(-10, BANDS - 10) / 3.0)
    edges_hz = np.append(centres_hz / 2.0 ** (1 / 6), centres_hz[-1] * 2.0 ** (1 / 6))
    bins_hz = np.arange(front_end.bins) * (front_end.sample_rate / front_end.n_fft)
    inside = (bins_hz[:, None] >= edges_hz[:-1]) & (bins_hz[:, None] < edges_hz[1:])
    shares: Array = (inside / np.maximum(inside.sum(axis=0), 1)).astype(np.float32)
    shares.setflags(write=False)
    return shares
