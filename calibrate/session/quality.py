"""Is a take fit to learn from? Its level, clipping, noise, length, and whether anybody speaks in it.

Who speaks is not judged, and what the voice-activity network takes for a voice counts as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arrays import SAMPLE_RATE, Array
from edge.features.frontend import FrontEnd, filtered
from edge.features.silero_vad import PIECE, SileroVad, VoiceActivityModel
from edge.features.vad import VadConfig

PIECE_S: Final = PIECE / SAMPLE_RATE
"""Voice, level and noise are judged in pieces of 32 ms."""

SILENT_DBFS: Final = -60.0
"""A take in which no piece is louder is silence. The noise of a working microphone may be, too."""

QUIETEST_DBFS: Final = -50.0
"""Root mean square of speech; below it a microphone's own noise colours what is heard."""

LEAST_SNR_DB: Final = 10.0
"""Speech above the background. The shipped model was taught with noise 10 to 25 dB below speech."""

FULL_SCALE: Final = 0.985
"""Magnitude from which a sample counts as cut off: resampling bends what was flat at 1."""

MOST_CLIPPED: Final = 0.001
"""Share of samples cut off that still passes: single peaks, as in a recording brought to full scale."""

SOME_VOICE_S: Final = 0.4
"""Less voice than this may be a creak or a key: nobody spoke."""

LEAST_VOICE_S: Final = 0.8
"""Voice in a take; any of the sentences takes twice as long."""

LONGEST_S: Final = 20.0
"""A sentence, said slowly, with a pause."""

QUIETEST_RMS: Final = 1e-5
"""-100 dBFS: digital silence is shown as this."""

EDGE: Final = 3
"""Pieces on either side of voice, 0.1 s, that may hold some of it: not taken for background."""

FEWEST_QUIET: Final = 4
"""Pieces without voice needed to know the background; else the quietest tenth is taken for it."""


@dataclass(frozen=True)
class Quality:
    """What was measured of a take."""

    duration_s: float
    voice_s: float
    """How much of it is voice."""
    loudest_dbfs: float
    """Root mean square of the loudest piece."""
    level_dbfs: float
    """Root mean square of the voice; of everything where there is none."""
    noise_dbfs: float
    """Root mean square of the background."""
    clipped: float
    """Share of samples at full scale."""

    @property
    def snr_db(self) -> float:
        """How far the voice is above the background, the background in it taken off; at least 0."""
        speech = _power(self.level_dbfs) - _power(self.noise_dbfs)
        return max(0.0, _dbfs(speech) - self.noise_dbfs)


def measure(samples: Array, voice: VoiceActivityModel | None = None) -> Quality:
    """Measure a take.

    Args:
        samples: (N,) float32 at 16 kHz in [-1, 1].
        voice: what judges the pieces; Silero if None. It is reset.
    """
    pieces = _pieces(filtered(samples, FrontEnd()))  # offset, rumble and hum are not heard in recognition
    powers = np.square(pieces, dtype=np.float64).mean(axis=1)
    spoken = _spoken(pieces, voice or SileroVad())
    level = powers[spoken].mean() if spoken.any() else powers.mean()
    return Quality(
        duration_s=len(samples) / SAMPLE_RATE,
        voice_s=float(spoken.sum() * PIECE_S),
        loudest_dbfs=_dbfs(powers.max()),
        level_dbfs=_dbfs(level),
        noise_dbfs=_dbfs(_background(powers, spoken)),
        clipped=float((np.abs(samples) >= FULL_SCALE).mean()) if len(samples) else 0.0,
    )


def refusal(quality: Quality) -> str:
    """Say in one sentence why a take cannot be used and what to do; empty: it can."""
    if quality.loudest_dbfs < SILENT_DBFS:
        return "Nothing was heard: see that the microphone is switched on and not muted."
    return _cut_off(quality) or _length(quality) or setting(quality)


def setting(quality: Quality) -> str:
    """Say in one sentence what is wrong with the microphone or the room, as far as a voice shows it."""
    if reason := _cut_off(quality):
        return reason
    if quality.level_dbfs < QUIETEST_DBFS:
        return (
            f"Too quiet ({quality.level_dbfs:.0f} dBFS, at least {QUIETEST_DBFS:.0f} is needed): "
            "come closer to the microphone, or turn the input level up."
        )
    if quality.snr_db < LEAST_SNR_DB:
        return (
            f"Too much noise (speech is {quality.snr_db:.0f} dB above it, at least {LEAST_SNR_DB:.0f} is "
            "needed): find a quieter place, or come closer to the microphone."
        )
    return ""


def _cut_off(quality: Quality) -> str:
    if quality.clipped > MOST_CLIPPED:
        return "The sound is cut off (clipping): move back a little, or turn the input level down."
    return ""


def _length(quality: Quality) -> str:
    if quality.voice_s < SOME_VOICE_S:
        return "No speech was heard, only other sound: turn off music and noise, and say it aloud."
    if quality.voice_s < LEAST_VOICE_S:
        return f"Only {quality.voice_s:.1f} s of speech was heard: say the whole sentence."
    if quality.duration_s > LONGEST_S:
        return f"It lasts more than {LONGEST_S:.0f} s: say the sentence once, without long pauses."
    return ""


def _pieces(samples: Array) -> Array:
    """Cut (N,) samples into (P, 512), P >= 1; what is left over is dropped."""
    whole = len(samples) // PIECE * PIECE
    return samples[:whole].reshape(-1, PIECE) if whole else np.zeros((1, PIECE), np.float32)


def _spoken(pieces: Array, voice: VoiceActivityModel) -> NDArray[np.bool_]:
    """Judge (P, 512) pieces in their order: (P,)."""
    gate, is_voice, spoken = VadConfig(), False, []
    voice.reset()
    for piece in pieces:
        is_voice = voice(piece) >= (gate.leave_probability if is_voice else gate.enter_probability)
        spoken.append(is_voice)
    return np.array(spoken, bool)


def _background(powers: NDArray[np.float64], spoken: NDArray[np.bool_]) -> float:
    """Return the power of what is heard where nobody speaks: the median of those pieces."""
    near = np.convolve(spoken, np.ones(2 * EDGE + 1), "full")[EDGE : EDGE + len(spoken)] > 0
    if (~near).sum() >= FEWEST_QUIET:
        return float(np.median(powers[~near]))
    return float(np.quantile(powers, 0.1))


def _dbfs(power: float) -> float:
    return 10.0 * math.log10(max(power, QUIETEST_RMS**2))


def _power(dbfs: float) -> float:
    return float(10.0 ** (dbfs / 10.0))
