"""Statistics of a calibration session, the reference that `edge.recognition.drift` compares streams with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.events import Drift
from edge.inference.engine import EngineLike
from edge.model.bundle import Bundle
from edge.model.profile import Profile, Reference
from edge.recognition.drift import ENTROPY, summarise
from edge.recognition.recognizer import Recognizer

PAUSE_S: Final = 0.6
"""Between the takes of a session, joined to one stream."""

ROOM: Final = 1e-4
"""Amplitude of the noise added to it: a quiet room. A microphone never delivers digital silence."""


def session_reference(
    bundle: Bundle,
    profile: Profile,
    sounds: Sequence[Array],
    *,
    engine: EngineLike,
    optimism: float = 0.0,
) -> Reference | None:
    """Summarise a session's windows as the recogniser will see those of the speaker's streams.

    The takes are one stream with pauses: windows that begin or end in a pause are normal too. The profile
    was fitted on these takes and is surer of them than of what it will hear.

    Args:
        bundle: the model.
        profile: the speaker's, with or without a reference.
        sounds: (N,) samples at 16 kHz of each take.
        engine: the bundle's graphs.
        optimism: nats by which it is surer of them; added to the mean entropy.

    Returns:
        The reference; None where the session has too few windows of speech.
    """
    statistics = StatisticsCollector()
    recognizer = Recognizer(bundle, profile=profile, engine=engine, observer=statistics)
    recognizer.feed(_as_one_stream(sounds, recognizer.front_end.sample_rate))
    reference = summarise(statistics.observations)
    if reference is not None:
        reference.mean[ENTROPY] += optimism
    return reference


class StatisticsCollector:
    """Keeps the observations of all windows of a session; `reset` forgets them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self.observations: list[Array] = []

    def feed(self, time_s: float, observation: Array) -> Drift | None:
        """Keep the observation."""
        self.observations.append(observation)
        return None


def _as_one_stream(sounds: Sequence[Array], sample_rate: int) -> Array:
    pause = np.zeros(round(PAUSE_S * sample_rate), np.float32)
    level = [take - take.mean() for take in sounds]  # next to a pause, an offset would be a step
    sound: Array = np.concatenate([part for take in level for part in (pause, take)] or [pause])
    sound += np.float32(ROOM) * np.random.default_rng(0).standard_normal(len(sound), np.float32)
    return sound
