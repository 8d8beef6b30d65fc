"""The quality gate for takes: level, clipping, noise, length and the presence of speech.

The limits are those of `calibrate.take_limits`. Anything that the voice activity model accepts counts as
speech; identity is not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.take_limits import (
    BLOCK_S,
    CLIPPED_FROM,
    LEAST_ORDINARY_S,
    LEAST_SNR_DB,
    LEAST_SPEECH_DBFS,
    LEAST_VOICE_S,
    LONGEST_PROMPTED_S,
    MOST_CLIPPED,
    SILENT_DBFS,
    SOME_VOICE_S,
    dbfs,
    split_blocks,
)
from edge.arrays import SAMPLE_RATE, Array
from edge.features.frontend import FrontEnd, filtered
from edge.features.silero_vad import PIECE, SileroVad, VoiceActivityModel
from edge.features.vad import VadConfig

NOTHING_HEARD: Final = "Nothing was heard: check that the microphone is switched on and not muted."
NO_SPEECH: Final = "No speech was heard, only other sound: turn off music and noise, and speak aloud."

MARGIN_BLOCKS: Final = 3
"""Blocks (0.1 s) on either side of voice that may contain some of it, and do not count as background."""

FEWEST_NOISE_BLOCKS: Final = 4
"""Blocks without voice needed to measure the background; with fewer, the quietest tenth is used."""


@dataclass(frozen=True)
class Quality:
    """Measurements of a take."""

    duration_s: float
    voice_s: float
    """Duration of voice in it."""
    loudest_dbfs: float
    """Root mean square of the loudest block."""
    level_dbfs: float
    """Root mean square of the voice; of the whole take if it contains none."""
    noise_dbfs: float
    """Root mean square of the background."""
    clipped: float
    """Share of samples at full scale."""

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio, at least 0; the power of the background is subtracted from the voice's."""
        speech = _power(self.level_dbfs) - _power(self.noise_dbfs)
        return max(0.0, dbfs(speech) - self.noise_dbfs)


class VoiceCounter:
    """Measures the duration of voice in a stream, in blocks of `PIECE` samples.

    Remembers less than a block of samples, and the states of the input filter and of the model.
    """

    def __init__(self, voice: VoiceActivityModel | None = None) -> None:
        """Begin a stream.

        Args:
            voice: voice activity model; Silero if None. It is reset.
        """
        self.seconds = 0.0
        """Duration of voice so far."""
        self._voice, self._gate, self._voiced = voice or SileroVad(), VadConfig(), False
        self._filter, self._rest = FrontEnd().input_filter(), np.zeros(0, np.float32)
        self._voice.reset()

    def feed(self, samples: Array) -> None:
        """Take the next (N,) samples at 16 kHz."""
        sound = np.concatenate([self._rest, self._filter.feed(samples)])
        whole = len(sound) // PIECE * PIECE
        self._rest = sound[whole:]
        voiced = [self.judge(block) for block in sound[:whole].reshape(-1, PIECE)]
        self.seconds += sum(voiced) * BLOCK_S

    def judge(self, block: Array) -> bool:
        """Return whether the next (512,) filtered samples are voiced."""
        gate = self._gate
        threshold = gate.leave_probability if self._voiced else gate.enter_probability
        self._voiced = self._voice(block) >= threshold
        return self._voiced


def measure(samples: Array, voice: VoiceActivityModel | None = None) -> Quality:
    """Measure a take.

    Args:
        samples: (N,) float32 at 16 kHz in [-1, 1].
        voice: voice activity model; Silero if None. It is reset.
    """
    blocks = _filtered_blocks(samples)
    powers = np.square(blocks, dtype=np.float64).mean(axis=1)
    voiced = _voiced(blocks, voice or SileroVad())
    level = powers[voiced].mean() if voiced.any() else powers.mean()
    return Quality(
        duration_s=len(samples) / SAMPLE_RATE,
        voice_s=float(voiced.sum() * BLOCK_S),
        loudest_dbfs=dbfs(powers.max()),
        level_dbfs=dbfs(level),
        noise_dbfs=dbfs(_noise_power(powers, voiced)),
        clipped=float((np.abs(samples) >= CLIPPED_FROM).mean()) if len(samples) else 0.0,
    )


def voiced_blocks(samples: Array, voice: VoiceActivityModel | None = None) -> NDArray[np.bool_]:
    """Tell which of the consecutive blocks of (N,) samples are voiced: (P,); a block has `PIECE` samples."""
    return _voiced(_filtered_blocks(samples), voice or SileroVad())


def refusal(quality: Quality) -> str:
    """Return in one sentence why a take cannot be used and what to do; empty: it can be used."""
    if quality.loudest_dbfs < SILENT_DBFS:
        return NOTHING_HEARD
    return _clipping(quality) or _length(quality) or setup_advice(quality)


def ordinary_refusal(quality: Quality) -> str:
    """Return in one sentence why ordinary speech cannot be used and what to do; empty: it can be used."""
    if quality.loudest_dbfs < SILENT_DBFS:
        return NOTHING_HEARD
    if clipping := _clipping(quality):
        return clipping
    if quality.voice_s < SOME_VOICE_S:
        return NO_SPEECH
    if quality.voice_s < LEAST_ORDINARY_S:
        return (
            f"Only {quality.voice_s:.0f} s of speech was heard, at least {LEAST_ORDINARY_S:.0f} s are "
            "needed: speak for longer."
        )
    return setup_advice(quality)


def setup_advice(quality: Quality) -> str:
    """Return in one sentence what is wrong with the microphone or the room; empty: nothing."""
    if reason := _clipping(quality):
        return reason
    if quality.level_dbfs < LEAST_SPEECH_DBFS:
        return (
            f"Too quiet ({quality.level_dbfs:.0f} dBFS, at least {LEAST_SPEECH_DBFS:.0f} is needed): "
            "come closer to the microphone, or turn the input level up."
        )
    if quality.snr_db < LEAST_SNR_DB:
        return (
            f"Too much noise (speech is {quality.snr_db:.0f} dB above it, at least {LEAST_SNR_DB:.0f} dB is "
            "needed): find a quieter place, or come closer to the microphone."
        )
    return ""


def _clipping(quality: Quality) -> str:
    if quality.clipped > MOST_CLIPPED:
        return "Too loud (clipping): move back a little, or turn the input level down."
    return ""


def _length(quality: Quality) -> str:
    if quality.voice_s < SOME_VOICE_S:
        return NO_SPEECH
    if quality.voice_s < LEAST_VOICE_S:
        return f"Only {quality.voice_s:.1f} s of speech was heard: say the whole sentence."
    if quality.duration_s > LONGEST_PROMPTED_S:
        return f"It lasts more than {LONGEST_PROMPTED_S:.0f} s: say the sentence once, without long pauses."
    return ""


def _filtered_blocks(samples: Array) -> Array:
    """Cut (N,) samples into blocks, without offset, rumble and hum, which the recogniser removes too."""
    return split_blocks(filtered(samples, FrontEnd()))


def _voiced(blocks: Array, voice: VoiceActivityModel) -> NDArray[np.bool_]:
    """Tell which of the (P, 512) consecutive blocks are voiced: (P,)."""
    counter = VoiceCounter(voice)
    return np.array([counter.judge(block) for block in blocks], bool)


def _noise_power(powers: NDArray[np.float64], voiced: NDArray[np.bool_]) -> float:
    """Return the power of the background: the median of the blocks without voice."""
    near = (
        np.convolve(voiced, np.ones(2 * MARGIN_BLOCKS + 1), "full")[
            MARGIN_BLOCKS : MARGIN_BLOCKS + len(voiced)
        ]
        > 0
    )
    if (~near).sum() >= FEWEST_NOISE_BLOCKS:
        return float(np.median(powers[~near]))
    return float(np.quantile(powers, 0.1))


def _power(dbfs: float) -> float:
    return float(10.0 ** (dbfs / 10.0))
