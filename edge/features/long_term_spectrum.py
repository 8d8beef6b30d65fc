"""The long-term average spectrum of a window: the timbre of a voice, as inputs beside the embedding.

The network is trained to be independent of the speaker, so it discards timbre that distinguishes one person's
emotions. Only a speaker's own head reads it: see `calibrate.fitting.adapter`.
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
"""Frames this far below the loudest of a window count as pauses."""

FLOOR: Final = 1e-4
"""Added to the power, relative to the mean of the spoken frames: a floor at -40 dB."""


def near_loudest(levels_db: Array) -> NDArray[np.bool_]:
    """Return which of the (T,) frames of a window are spoken rather than pauses, by their levels in dB."""
    spoken: NDArray[np.bool_] = levels_db > levels_db.max() - SPOKEN_DB
    return spoken


def band_powers(power: Array, front_end: FrontEnd) -> Array:
    """Average (T, F) power spectra over the bins of each band: (T, BANDS)."""
    bands: Array = power @ _membership(front_end)
    return bands


def long_term_spectrum(bands: Array, levels_db: Array) -> Array:
    """Compute the statistics of the spoken frames of a window.

    Args:
        bands: (T, BANDS) `band_powers` of its frames, T > 0.
        levels_db: (T,) their levels, relative to any reference.

    Returns:
        (SPECTRUM_SIZE,) nats: mean, then standard deviation over the frames, of each band's log power
        relative to the mean of all. It does not depend on the gain.
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
