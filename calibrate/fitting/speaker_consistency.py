"""Outlier detection: takes of a session that may be of another person. A warning, not a proof.

There is no speaker model. The pitch of a take and the shape of its spectrum are compared with those of
the nearest takes of any emotion: a person's own takes have close neighbours, a single take of another
person often has none. Error rates are in `docs/calibration.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.gradient_descent import Floats
from edge.arrays import Array
from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.normaliser import DECIBEL, frame_levels

FRAMES: Final = FrontEnd()
"""The frames that the constants were chosen with, whatever those of the bundle are."""

OUTLIER_THRESHOLD: Final = 2.6
"""Outlier score above which a take is suspected.

Chosen so that 2 % of a person's own takes are suspected in sessions of eight takes; in longer sessions
it is fewer. Like all constants here, chosen on the training and validation speakers of the shipped model.
"""

SHORTEST_SESSION: Final = 8
"""Takes; `OUTLIER_THRESHOLD` was not chosen on shorter sessions, so those are not checked."""

NEIGHBOURS: Final = 2
"""Nearest takes that a take is compared with."""

DISTANCE_PRIOR: Final = 0.25
"""Squared spreads added to the usual distance, which may be small by chance."""

WARNED_SEPARATION: Final = 2.8
"""Separation of two groups of pieces from which two people may speak (`docs/calibration.md`) ..."""

REFUSED_SEPARATION: Final = 3.6
"""... and from which it is likely."""

PIECE_S: Final = 1.5
"""Duration of voice in a piece of ordinary speech."""

FEWEST_PIECES: Final = 5
"""With fewer, two groups say nothing."""

MOST_PIECES: Final = 40
"""Of a longer recording, as many are compared."""

MEANS_STEPS: Final = 6
"""Steps of k-means."""

SPEECH_RANGE_DB: Final = 25.0
"""Frames at most this far below the loudest one count as speech."""

VOICED_RANGE_DB: Final = 15.0
"""Frames at most this far below the loudest one may be voiced ..."""

LEAST_PERIODICITY: Final = 0.7
"""... if their normalised autocorrelation exceeds this at some period."""

PEAK_RATIO: Final = 0.88
"""The pitch period is the shortest peak that reaches this share of the highest peak."""

LOWEST_HZ: Final = 65
HIGHEST_HZ: Final = 500

SHAPE_FROM_HZ: Final = 300
"""The spectrum below depends on hum and on the pitch, and is left out."""

POWER_FLOOR: Final = 1e-3
"""Added to the power relative to that of speech: 30 dB below speech is the room's noise.

A tenth of this value detects slightly more in corpora, where the noise of a recording may reveal the
speaker.
"""

PITCH_SPREAD: Final = 0.18
"""Octaves; half the spread within a speaker, so that the pitch weighs as much as four coefficients."""

SHAPE_SPREADS: Final = (0.30, 0.23, 0.15, 0.17, 0.15, 0.12, 0.11, 0.09)
"""Nats; spread within a speaker of the first cosine coefficients. Six or twelve of them detect less."""


def find_outliers(sounds: Sequence[Array]) -> list[int]:
    """List the takes, by index, that do not sound like the other takes of the session.

    Args:
        sounds: (N,) samples of each take, none silent.
    """
    if len(sounds) < SHORTEST_SESSION:
        return []
    voices = np.stack([voice_features(sound) for sound in sounds])
    return np.flatnonzero(outlier_scores(voices) > OUTLIER_THRESHOLD).tolist()


def voice_separation(pieces: Sequence[Array]) -> float:
    """Return the `separation` of pieces of ordinary speech; 0 if they are too few to tell.

    Only for ordinary speech: the emotions of one person are as far apart.

    Args:
        pieces: (N,) samples of each, with about `PIECE_S` of voice, in the order of the recording.
    """
    if len(pieces) < FEWEST_PIECES:
        return 0.0
    spread = np.linspace(0, len(pieces) - 1, min(len(pieces), MOST_PIECES)).round().astype(int)
    voices = np.stack([voice_features(pieces[index]) for index in spread])
    return separation(voices)


def separation(voices: Floats) -> float:
    """Return how far apart two groups of pieces are, relative to the spread within them.

    s = d / (v + DISTANCE_PRIOR), d the mean square distance of the groups' means, v the mean variance within
    them with N - 2 degrees of freedom; for the division by k-means that has the smallest v. Each group has
    two pieces or more.

    Args:
        voices: (N, V) in spreads, N > 2.
    """
    count, best = len(voices), (np.inf, 0.0)
    for first in range(count):
        for second in range(first):
            group = _two_means(voices, voices[first], voices[second])
            if not 2 <= group.sum() <= count - 2:
                continue
            one, other = voices[group], voices[~group]
            within = (len(one) * one.var(axis=0).mean() + len(other) * other.var(axis=0).mean()) / (count - 2)
            between = np.square(one.mean(axis=0) - other.mean(axis=0)).mean()
            best = min(best, (float(within), float(between / (within + DISTANCE_PRIOR))))
    return best[1]


def outlier_scores(voices: Floats) -> Floats:
    """Return the distance of each take to its nearest ones, relative to that among the other takes.

    s_i = d_i / (mean_j d_j + DISTANCE_PRIOR), d_j of the takes without i

    Args:
        voices: (N, V) in spreads, N > 1 + `NEIGHBOURS`.

    Returns:
        (N,), about 1 for a take that resembles the others. d is a mean square over V.
    """
    distances = np.square(voices[:, None] - voices[None]).mean(axis=2)
    np.fill_diagonal(distances, np.inf)
    scores = np.empty(len(voices))
    for index, distance in enumerate(_neighbour_distances(distances)):
        others = np.delete(np.delete(distances, index, 0), index, 1)
        scores[index] = distance / (_neighbour_distances(others).mean() + DISTANCE_PRIOR)
    return scores


def voice_features(sound: Array, front_end: FrontEnd = FRAMES) -> Floats:
    """Return the pitch of a take and the shape of its spectrum: (1 + 8,), in spreads."""
    power = power_spectrogram(filtered(sound, front_end), front_end)
    levels = frame_levels(power)
    below_db = (levels.max() - levels) / DECIBEL
    speech = below_db < SPEECH_RANGE_DB
    shape = _shape(power[speech] / np.exp(levels[speech].mean()), front_end)
    pitch = _pitch(power[below_db < VOICED_RANGE_DB], front_end)
    return np.concatenate([[pitch / PITCH_SPREAD], shape / np.array(SHAPE_SPREADS)])


def _two_means(voices: Floats, one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Divide (N, V) voices by the nearer of two means, (N,), from (V,) first ones."""
    group = np.zeros(len(voices), bool)
    for _ in range(MEANS_STEPS):
        nearer: NDArray[np.bool_] = np.square(voices - one).sum(axis=1) <= np.square(voices - other).sum(
            axis=1
        )
        if (nearer == group).all() or nearer.all() or not nearer.any():
            return nearer
        group = nearer
        one, other = voices[group].mean(axis=0), voices[~group].mean(axis=0)
    return group


def _neighbour_distances(distances: Floats) -> Floats:
    """Average the (N, N) distances over the nearest takes of each one: (N,)."""
    nearest: Floats = np.sort(distances, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    return nearest


def _shape(power: Array, front_end: FrontEnd) -> Floats:
    """Return cosine coefficients 1 to 8 of the mean log of (T, F) power: (8,), nats."""
    lowest = SHAPE_FROM_HZ * front_end.n_fft // front_end.sample_rate
    spectrum = np.log(power[:, lowest:] + POWER_FLOOR).mean(axis=0)
    places = (np.arange(len(spectrum)) + 0.5) / len(spectrum)
    cosines = np.cos(np.pi * np.outer(1 + np.arange(len(SHAPE_SPREADS)), places))
    shape: Floats = 2.0 * (cosines @ spectrum) / len(spectrum)
    return shape


def _pitch(power: Array, front_end: FrontEnd) -> float:
    """Return the median pitch of (T, F) power in octaves above 1 Hz; of all frames if none is voiced.

    The autocorrelation, the Fourier transform of the power, is divided by that of the window.
    """
    rate = front_end.sample_rate
    shortest, longest = rate // HIGHEST_HZ, rate // LOWEST_HZ
    window = power_spectrogram(np.ones(front_end.win_length, np.float32), front_end)
    autocorrelation = _autocorrelation(power, front_end) / _autocorrelation(window, front_end)
    autocorrelation = autocorrelation[:, shortest - 1 : longest + 2]
    before, inner, after = autocorrelation[:, :-2], autocorrelation[:, 1:-1], autocorrelation[:, 2:]
    best = inner.max(axis=1)
    peaks = (inner >= before) & (inner >= after) & (inner >= PEAK_RATIO * best[:, None])
    voiced = (best > LEAST_PERIODICITY) & peaks.any(axis=1)
    periods = shortest + peaks.argmax(axis=1)
    return float(np.median(np.log2(rate / periods[voiced if voiced.any() else slice(None)])))


def _autocorrelation(power: Array, front_end: FrontEnd) -> Floats:
    """Transform (T, F) power to (T, n_fft) autocorrelations, 1 at lag 0."""
    correlation: Floats = np.fft.irfft(power, front_end.n_fft).astype(np.float64)
    largest = np.maximum(correlation[:, :1], 1e-20)
    return correlation / largest
