"""Limits of a usable take, for both ways in which takes arrive.

A take of the guided session (`calibrate.quality`) is one prompted sentence that the speaker can
repeat at once, so every limit applies. A labelled clip (`calibrate.takes`) may be one word or several
sentences and often cannot be recorded again: only silence and length are checked, and the length has a wider
limit.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from edge.arrays import SAMPLE_RATE, Array
from edge.features.silero_vad import PIECE

BLOCK_S: Final = PIECE / SAMPLE_RATE
"""Duration of the blocks in which voice, level and noise are measured: 32 ms."""

LOWEST_RMS: Final = 1e-5
"""-100 dBFS; levels are not reported below."""

SILENT_DBFS: Final = -65.0
"""Root mean square; a take without a louder block is silent. The noise of a working microphone may be as
quiet."""

LONGEST_PROMPTED_S: Final = 20.0
"""Longest take of a session: one sentence, spoken slowly, with a pause."""

LONGEST_CLIP_S: Final = 60.0
"""Longest labelled clip: a few sentences; a longer recording has not been cut into takes."""

LEAST_SPEECH_DBFS: Final = -50.0
"""Lowest root mean square of prompted speech; below, the microphone's own noise distorts the features."""

LEAST_SNR_DB: Final = 10.0
"""Lowest signal-to-noise ratio of prompted speech. The shipped model was trained with 10 to 25 dB."""

CLIPPED_FROM: Final = 0.985
"""Magnitude from which a sample counts as clipped; resampling turns values clipped at 1 into lower ones."""

MOST_CLIPPED: Final = 0.001
"""Largest share of clipped samples of a session's take: any recording normalised to full scale has some."""

SOME_VOICE_S: Final = 0.4
"""A shorter duration of voice may be a creak or a keystroke, and counts as no speech."""

LEAST_VOICE_S: Final = 0.8
"""Shortest duration of voice in a session's take; each of the sentences takes about twice as long."""

LEAST_ORDINARY_S: Final = 8.0
"""Least duration of voice in recordings of ordinary speech: with less, the baseline is mostly the training
speakers'."""

LONGEST_ORDINARY_S: Final = 300.0
"""Longest recording of ordinary speech: half a minute is enough, and a longer one may hold more than that."""


def split_blocks(samples: Array) -> Array:
    """Cut (N,) samples into (P, 512), P >= 1; the remainder is dropped."""
    whole = len(samples) // PIECE * PIECE
    return samples[:whole].reshape(-1, PIECE) if whole else np.zeros((1, PIECE), np.float32)


def loudest_dbfs(samples: Array) -> float:
    """Return the root mean square of the loudest block of (N,) filtered samples, in dBFS."""
    return dbfs(np.square(split_blocks(samples), dtype=np.float64).mean(axis=1).max())


def dbfs(power: float) -> float:
    """Convert a mean square, 1 for full scale, to dBFS, at least -100."""
    return 10.0 * math.log10(max(power, LOWEST_RMS**2))
