"""Does one take of a session sound like another person's? A warning to listen, not a proof.

There is no model of voices here. The pitch of a take and the shape of its spectrum are compared
with those of the takes nearest to it, of whatever emotion: a person's own takes have such
neighbours, a single take of another person often has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from calibrate.fitting.gradient_descent import Floats
from edge.arrays import Array
from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.normaliser import DECIBEL, frame_levels

UNLIKE: Final = 2.6
"""Strangeness above which a take is suspected.

Chosen on the speakers that taught and validated the shipped model, as all numbers here, for 2 of 100 of
a person's own takes to be suspected in sessions of eight. In longer ones it is fewer.
"""

FEWEST: Final = 8
"""Takes in a session that is judged, as many as the shortest one `UNLIKE` was chosen on."""

NEIGHBOURS: Final = 2
"""Takes that a take is compared with, the nearest ones."""

USUAL: Final = 0.25
"""Squared spreads added to what is usual in a session: takes may agree by chance."""

SPEECH_DB: Final = 25.0
"""A frame within so much of the loudest is speech ..."""

VOICED_DB: Final = 15.0
"""... and within so much may have a pitch, if ..."""

LEAST_PERIODICITY: Final = 0.7
"""... its autocorrelation comes to this at some period."""

FIRST_PEAK: Final = 0.88
"""The pitch is that of the shortest period with so much of the best one's autocorrelation."""

LOWEST_HZ: Final = 65
HIGHEST_HZ: Final = 500

SHAPE_FROM_HZ: Final = 300
"""Below, rooms hum, and the pitch decides where the power is."""

FLOOR: Final = 1e-3
"""Added to the power, of which speech has 1: what is 30 dB below it is the room's.

A tenth of it finds a little more in corpora, where the noise of a recording may tell who speaks.
"""

PITCH_SPREAD: Final = 0.18
"""Octaves; half of a speaker's own, so that the pitch counts as much as four of the cosines."""

SHAPE_SPREADS: Final = (0.30, 0.23, 0.15, 0.17, 0.15, 0.12, 0.11, 0.09)
"""Nats; a speaker's own, for the first cosines of the spectrum's shape. Six or twelve tell less."""


def find_outliers(sounds: Sequence[Array], front_end: FrontEnd) -> list[int]:
    """List the takes, by index, that do not sound like the other takes of the session.

    Args:
        sounds: (N,) samples of each take, none silent.
        front_end: the bundle's constants.
    """
    if len(sounds) < FEWEST:
        return []
    voices = np.stack([voice_of(sound, front_end) for sound in sounds])
    return np.flatnonzero(strangeness(voices) > UNLIKE).tolist()


def strangeness(voices: Floats) -> Floats:
    """Say how far each take is from its nearest ones, by what is usual among the others.

    s_i = d_i / (mean_j d_j + USUAL), d_j of the takes without i

    Args:
        voices: (N, V) in spreads, N > 1 + `NEIGHBOURS`.

    Returns:
        (N,), 1 or so where a take is like the others. d is a mean square over V.
    """
    apart = np.square(voices[:, None] - voices[None]).mean(axis=2)
    np.fill_diagonal(apart, np.inf)
    strange = np.empty(len(voices))
    for index, away in enumerate(_nearness(apart)):
        others = np.delete(np.delete(apart, index, 0), index, 1)
        strange[index] = away / (_nearness(others).mean() + USUAL)
    return strange


def voice_of(sound: Array, front_end: FrontEnd) -> Floats:
    """Describe the voice in a take: its pitch and the shape of its spectrum, (1 + 8,) in spreads."""
    power = power_spectrogram(filtered(sound, front_end), front_end)
    levels = frame_levels(power)
    below_db = (levels.max() - levels) / DECIBEL
    speech = below_db < SPEECH_DB
    shape = _shape(power[speech] / np.exp(levels[speech].mean()), front_end)
    pitch = _pitch(power[below_db < VOICED_DB], front_end)
    return np.concatenate([[pitch / PITCH_SPREAD], shape / np.array(SHAPE_SPREADS)])


def _nearness(apart: Floats) -> Floats:
    """Average the distances of each take, (N, N), to the nearest ones: (N,)."""
    nearest: Floats = np.sort(apart, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    return nearest


def _shape(power: Array, front_end: FrontEnd) -> Floats:
    """Describe the mean logarithm of (T, F) power by its first cosines but the constant one: (8,), nats."""
    lowest = SHAPE_FROM_HZ * front_end.n_fft // front_end.sample_rate
    spectrum = np.log(power[:, lowest:] + FLOOR).mean(axis=0)
    places = (np.arange(len(spectrum)) + 0.5) / len(spectrum)
    cosines = np.cos(np.pi * np.outer(1 + np.arange(len(SHAPE_SPREADS)), places))
    shape: Floats = 2.0 * (cosines @ spectrum) / len(spectrum)
    return shape


def _pitch(power: Array, front_end: FrontEnd) -> float:
    """Find the median pitch of (T, F) power, in octaves above 1 Hz; of all frames where none is voiced.

    The autocorrelation is the transform of the power, divided by that of the window alone.
    """
    rate = front_end.sample_rate
    shortest, longest = rate // HIGHEST_HZ, rate // LOWEST_HZ
    window = power_spectrogram(np.ones(front_end.win_length, np.float32), front_end)
    likeness = _autocorrelation(power, front_end) / _autocorrelation(window, front_end)
    likeness = likeness[:, shortest - 1 : longest + 2]
    before, inner, after = likeness[:, :-2], likeness[:, 1:-1], likeness[:, 2:]
    best = inner.max(axis=1)
    peaks = (inner >= before) & (inner >= after) & (inner >= FIRST_PEAK * best[:, None])
    voiced = (best > LEAST_PERIODICITY) & peaks.any(axis=1)
    periods = shortest + peaks.argmax(axis=1)
    return float(np.median(np.log2(rate / periods[voiced if voiced.any() else slice(None)])))


def _autocorrelation(power: Array, front_end: FrontEnd) -> Floats:
    """Transform (T, F) power to (T, n_fft) autocorrelations, 1 at no delay."""
    correlation: Floats = np.fft.irfft(power, front_end.n_fft).astype(np.float64)
    largest = np.maximum(correlation[:, :1], 1e-20)
    return correlation / largest
