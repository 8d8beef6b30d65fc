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
from edge.features.log_mel import LOG_MEL, mel_power
from edge.features.normaliser import Normaliser

MEL_POWER: Final[FrontEnd] = replace(LOG_MEL, spectrum="mel_power")
"""The front-end of models on the recurrent encoder: the frames of `LOG_MEL`."""

SPEECH_POWER: Final = np.float32(0.15)
"""Geometric mean of the bin power of speech after the gain: in clips of speech at -30 dBFS it is 0.15."""


class MelPower(Normaliser):
    """Turns the power spectra of a stream, (T, 201), into (T, 40) mel power under the same automatic gain."""

    def values(self, power: Array, level: Array) -> Array:
        """Divide out the level, and sum the power of each band."""
        gain = SPEECH_POWER * np.exp(-level)  # (T,)
        scaled: Array = mel_power(power, MEL_POWER_BANDS) * gain[:, None]
        return scaled
