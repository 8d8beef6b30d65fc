"""Power spectra to the network's input: automatic gain, logarithm, per-bin normalisation.

A frame's features depend on the stream up to that frame only, not on a window, so they are computed once
for all windows that contain the frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.bounds import tensor, within
from edge.errors import ModelError

DECIBEL = math.log(10.0) / 10.0
"""One decibel of power in nats."""
MOST_MEAN: Final = 100.0
"""Nats: the logarithm of any power that float32 can hold, and of `GainConfig.eps`, is smaller."""
LEAST_STD: Final = 1e-3
MOST_STD: Final = 100.0
"""Nats, of the standard deviation of a bin; speech has 3 to 5."""


@dataclass(frozen=True)
class GainConfig:
    """How the gain follows the level of the stream. Levels are natural logarithms of mean bin power."""

    reference: float = field(default=0.0, metadata=within(-50.0, 50.0))
    """Mean level of the speech frames of the training set: the prior estimate for a new stream."""
    prior_frames: float = field(default=20.0, metadata=within(1.0, 1e6))
    """Weight of the prior estimate, in frames of speech."""
    memory_frames: float = field(default=2000.0, metadata=within(1.0, 1e6))
    """Largest number of frames of speech that the estimate averages (20 s)."""
    gate_db: float = field(default=20.0, metadata=within(0.0, 200.0))
    """A frame counts as speech if it is at most this far below the recent peak ..."""
    peak_decay_db: float = field(default=0.003, metadata=within(0.0, 10.0))
    """... which decays by this each frame (0.3 dB a second with a hop of 10 ms) ..."""
    quiet_start_db: float = field(default=20.0, metadata=within(0.0, 200.0))
    """... and starts this far below the reference."""
    faintest_db: float = field(default=60.0, metadata=within(0.0, 200.0))
    """A frame this far below the reference is silence, even if the peak has decayed."""
    eps: float = field(default=1e-5, metadata=within(1e-10, 1.0))
    """Added to the power after the gain, where speech has a mean bin power of 1."""


@dataclass(frozen=True)
class LevelState:
    """State of the gain between frames."""

    level: float
    """Estimate of the mean level of speech, nats."""
    weight: float
    """Weight of the estimate, in frames of speech."""
    peak: float
    """Decaying peak level, nats."""


def initial_state(levels: GainConfig) -> LevelState:
    """Return the state of a new stream."""
    return LevelState(
        level=levels.reference,
        weight=levels.prior_frames,
        peak=levels.reference - levels.quiet_start_db * DECIBEL,
    )


def frame_levels(power: Array) -> Array:
    """Return the (T,) level in nats of each frame of (T, F) power."""
    level: Array = np.log(power.mean(axis=1) + np.float32(1e-12))
    return level


def track_gain(frames: Array, state: LevelState, levels: GainConfig) -> tuple[Array, LevelState]:
    """Estimate the mean level of speech over (T,) frame levels.

    Returns:
        (T,) float32 estimates after each frame, and the state after the last.
    """
    level, weight, peak = state.level, state.weight, state.peak
    decay, gate = levels.peak_decay_db * DECIBEL, levels.gate_db * DECIBEL
    faintest = levels.reference - levels.faintest_db * DECIBEL
    estimates = np.empty(len(frames), np.float32)
    for index, frame in enumerate(frames.tolist()):
        peak = max(frame, peak - decay)
        if frame > max(peak - gate, faintest):
            weight = min(weight + 1.0, levels.memory_frames)
            level += (frame - level) / weight
        estimates[index] = level
    return estimates, LevelState(level, weight, peak)


@dataclass(frozen=True)
class BinStatistics:
    """Mean and standard deviation of the log power of each bin, after the gain; each (F,)."""

    mean: Array
    std: Array

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, as they are stored."""
        return {"statistics.mean": self.mean, "statistics.std": self.std}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Array]) -> BinStatistics:
        """Read what `tensors` wrote.

        Raises:
            ModelError: one is missing or has another type, their shapes differ, or a number is out of
                range. The caller adds the file and the remedy.
        """
        mean = tensor(tensors, "statistics.mean", 1, -MOST_MEAN, MOST_MEAN)
        std = tensor(tensors, "statistics.std", 1, LEAST_STD, MOST_STD)
        if mean.shape != std.shape:
            raise ModelError(f"the statistics of the bins have the shapes {mean.shape} and {std.shape}")
        return BinStatistics(mean, std)

    def shrunk(self, speaker: BinStatistics, frames: float, prior_frames: float) -> BinStatistics:
        """Move towards a speaker's own statistics in proportion to the amount of speech.

        mu = (n mu_speaker + k mu_train) / (n + k), and likewise for the standard deviation

        Args:
            speaker: statistics of n frames of the speaker.
            frames: n, > 0.
            prior_frames: k, > 0.
        """
        share = np.float32(frames / (frames + prior_frames))
        return BinStatistics(
            mean=self.mean + share * (speaker.mean - self.mean),
            std=self.std + share * (speaker.std - self.std),
        )


def log_power(power: Array, level: Array, eps: float) -> Array:
    """Divide out the level and take the logarithm: log(power / exp(level) + eps).

    Args:
        power: (T, F).
        level: (T,) in nats.
        eps: smallest power that counts, > 0.
    """
    logs: Array = np.log(power * np.exp(-level)[:, None] + np.float32(eps))
    return logs


class Normaliser:
    """Turns the power spectra of a stream into the network's input.

    Remembers a `LevelState` (three numbers); `reset` returns it to the prior estimate exactly.
    """

    def __init__(self, levels: GainConfig, statistics: BinStatistics) -> None:
        self._levels = levels
        self._statistics = statistics
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self.state = initial_state(self._levels)

    def __call__(self, power: Array, levels: Array | None = None) -> Array:
        """Normalise the next (T, F) power spectra to (T, F) float32 of about unit variance.

        Args:
            power: (T, F).
            levels: their `frame_levels`, (T,), if already computed.
        """
        heard = frame_levels(power) if levels is None else levels
        level, self.state = track_gain(heard, self.state, self._levels)
        normalised: Array = (self.values(power, level) - self._statistics.mean) / self._statistics.std
        return normalised

    def values(self, power: Array, level: Array) -> Array:
        """Return what the statistics are of: the logarithm of (T, F) power at a level of 0."""
        return log_power(power, level, self._levels.eps)


def for_speaker(levels: GainConfig, level: float, prior_frames: float) -> GainConfig:
    """Start the gain from a known speaker's level instead of the training set's."""
    return replace(levels, reference=level, prior_frames=prior_frames)
