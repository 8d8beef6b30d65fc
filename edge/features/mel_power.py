"""Power spectra to the mel power spectrum that the recurrent encoder reads.

Forty mel bands of power, not of its logarithm, at the level that the encoder was trained with: that of
Resemblyzer (C. Jemine; GE2E of Wan et al. 2018), which amplifies an utterance to -30 dBFS.

Differs: the whole utterance is not known in a stream, so the level is that of the speech heard so far
(`normaliser.track_gain`), and loud sound is attenuated too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.features.frontend import MEL_POWER_BANDS, FrontEnd
from edge.features.log_mel import LOG_MEL, mel_filters
from edge.features.normaliser import BinStatistics, GainConfig, frame_levels, initial_state, track_gain

MEL_POWER: Final[FrontEnd] = replace(LOG_MEL, spectrum="mel_power")
"""The front-end of models on the recurrent encoder: the frames of `LOG_MEL`."""

SPEECH_POWER: Final = np.float32(0.15)
"""Geometric mean of the bin power of speech after the gain: in clips of speech at -30 dBFS it is 0.15."""


class MelPower:
    """Turns the power spectra of a stream into mel power under an automatic gain.

    Remembers a `LevelState` (three numbers); `reset` returns it to the prior estimate exactly.
    """

    def __init__(self, levels: GainConfig, statistics: BinStatistics) -> None:
        """Prepare a stream.

        Args:
            levels: the gain control.
            statistics: of the (40,) bands: mean 0 and deviation 1 where the network reads power.
        """
        self._levels = levels
        self._statistics = statistics
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self.state = initial_state(self._levels)

    def __call__(self, power: Array, levels: Array | None = None) -> Array:
        """Map the next (T, 201) power spectra to (T, 40) float32.

        Args:
            power: (T, 201).
            levels: their `frame_levels`, (T,), if already computed.
        """
        heard = frame_levels(power) if levels is None else levels
        level, self.state = track_gain(heard, self.state, self._levels)
        gain = SPEECH_POWER * np.exp(-level)  # (T,)
        bands = (power @ mel_filters(MEL_POWER_BANDS)) * gain[:, None]
        normalised: Array = (bands - self._statistics.mean) / self._statistics.std
        return normalised
