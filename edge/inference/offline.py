"""Whole recordings to windows of the network's input: what streams are verified against and built from."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge.arrays import Array
from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.network_input import NetworkInput

PIECE_FRAMES: Final = 6_000
"""Frames whose spectra are computed together: a minute, so that long recordings fit into memory."""


def normalised_frames(samples: Array, front_end: FrontEnd, normaliser: NetworkInput) -> Array:
    """Compute the network's input for a whole recording, as for a new stream.

    Args:
        samples: (N,) float32 at 16 kHz in [-1, 1].
        front_end: of the bundle.
        normaliser: of the bundle or of a speaker; it is reset first.

    Returns:
        (T, F) float32, T = `front_end.frames_in(N)`.
    """
    normaliser.reset()
    total, hop = front_end.frames_in(len(samples)), front_end.hop_length
    sound = filtered(samples, front_end)
    pieces = [
        normaliser(power_spectrogram(sound[first * hop :][: front_end.samples_in(PIECE_FRAMES)], front_end))
        for first in range(0, total, PIECE_FRAMES)
    ]
    return np.concatenate([np.zeros((0, front_end.frame_size), np.float32), *pieces])


def full_windows(frames: Array, front_end: FrontEnd, step_frames: int) -> Array:
    """Cut (T, F) frames, at least one window of them, into (B, T_window, F) full windows at a step."""
    starts = range(0, len(frames) - front_end.window_frames + 1, step_frames)
    return np.stack([frames[start : start + front_end.window_frames] for start in starts])
