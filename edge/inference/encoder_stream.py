"""Samples to features: one every 80 ms, each computed once, independent of the block sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.arrays import Array
from edge.features.frontend import FrontEnd, PowerStream
from edge.features.network_input import network_input
from edge.features.normaliser import BinStatistics, GainConfig, frame_levels
from edge.inference.engine import EngineLike
from edge.stream_buffer import StreamBuffer


@dataclass(frozen=True)
class EncodedBlock:
    """The frames and features that a block of samples completed."""

    power: Array
    """(T, F) power spectra of the new frames."""
    levels: Array
    """(T,) level of each frame in nats."""
    features: Array
    """(n, P) new features."""
    front_end_s: float
    """Compute time of spectra and normalisation."""
    encoder_s: float


class FeatureStream:
    """Front-end, normaliser and encoder as one stream.

    Remembers less than a frame of samples, the level, fewer frames than one more feature takes, and
    the encoder's state. There is nothing to flush: a feature is emitted with the last frame it covers.

    The convolutions of a CNN-LSTM are valid in time: feature j is made of frames 8 j to 8 j + 48 only. The
    encoder runs on 8 frames at a time from a state of zeros, so it is fed 7 empty frames first (which puts
    its steps in line with the pools' pairs) and its first 6 outputs are incomplete and dropped. A feature of
    other networks is made of 8 frames, and none is incomplete.
    """

    def __init__(
        self,
        engine: EngineLike,
        front_end: FrontEnd,
        levels: GainConfig,
        statistics: BinStatistics,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._power = PowerStream(front_end)
        self._normaliser = network_input(front_end, levels, statistics)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        graphs = self._engine.graphs
        self._power.reset()
        self._normaliser.reset()
        self._state = self._engine.initial_state()
        self._incomplete = (graphs.frames_for_first - 1) // graphs.frames_per_feature
        ahead = (self._incomplete + 1) * graphs.frames_per_feature - graphs.frames_for_first
        self._frames = StreamBuffer(np.zeros((ahead, self._engine.bins), np.float32))
        self._encoded = 0

    def feed(self, samples: Array) -> EncodedBlock:
        """Take (N,) samples at 16 kHz, as the input filter leaves them, and return what they complete."""
        began = self._clock()
        power = self._power.feed(samples)
        levels = frame_levels(power)
        self._frames.append(self._normaliser(power, levels))
        prepared = self._clock()
        features = self._encode()
        return EncodedBlock(
            power=power,
            levels=levels,
            features=features,
            front_end_s=prepared - began,
            encoder_s=self._clock() - prepared,
        )

    def _encode(self) -> Array:
        """Encode the frames that are due and drop the incomplete first features."""
        graphs = self._engine.graphs
        count = (self._frames.end - self._encoded) // graphs.frames_per_feature
        if count == 0:
            return np.zeros((0, graphs.feature_size), np.float32)
        due = self._encoded + count * graphs.frames_per_feature
        features, self._state = self._engine.encode(self._frames[self._encoded : due][None], self._state)
        self._frames.forget(due)
        self._encoded = due
        drop = min(self._incomplete, len(features[0]))
        self._incomplete -= drop
        complete: Array = features[0, drop:]
        return complete
