"""The candidate fits to one speaker, simplest first, and which of them a session supports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np

from calibrate.fitting.adapter import fit_adapter, fit_embedding_adapter
from calibrate.fitting.examples import Examples, cross_entropy, take_shares
from calibrate.fitting.gradient_descent import Floats, Objective, descend
from calibrate.fitting.mmtl_adaptation import fit_dimensions, has_dimensions
from calibrate.takes import InputNormalisation, Take
from edge.arrays import Array
from edge.features.frontend import Spectrum
from edge.features.normaliser import (
    DECIBEL,
    BinStatistics,
    for_speaker,
    frame_levels,
    initial_state,
    log_power,
    track_gain,
)
from edge.labels import EMOTIONS
from edge.model.head import Head

STATISTICS_PRIOR_FRAMES: Final = 3000.0
"""Weight of the training set's bin statistics in frames: 30 s."""

LEVEL_PRIOR_FRAMES: Final = 200.0
"""Weight of the speaker's own level at the start of a stream, in frames of speech: 2 s."""

LARGEST_IMBALANCE: Final = 4.0
"""Largest ratio between the durations of two emotions' takes at which statistics are estimated."""

BIAS_L2_PENALTY: Final = 0.1
"""lambda of `fit_bias`, chosen on validation speakers: 0.8 divided by eight takes."""


@dataclass(frozen=True)
class Candidate:
    """One way to fit a speaker."""

    name: str
    own_statistics: bool
    """Whether the takes are normalised with the speaker's statistics."""
    fit: Callable[[Head, Examples], Head] | None
    """Fits the head, from the one for the speaker's baseline; None keeps the generic one."""
    complexity_penalty: float = 0.0
    """Nats added to the held-out log loss when candidates are compared."""
    spectra: tuple[Spectrum, ...] = get_args(Spectrum)
    """What the network may read for it to be tried."""

    def head(self, generic: Head, start: Head, examples: Examples) -> Head:
        """Return the head for the speaker.

        Args:
            generic: the bundle's.
            start: the same for the speaker's baseline, if it reads one.
            examples: the windows that are fitted to.
        """
        return self.fit(start, examples) if self.fit else generic


def candidates(
    takes: Sequence[Take], sounds: Sequence[Array], generic: Head, spectrum: Spectrum
) -> list[Candidate]:
    """List the candidates that a session supports, simplest first.

    The head is fitted only to a session of all emotions: a fit to some of them forgets the others, and
    no held-out take would show it. Statistics need about the same duration of each emotion, otherwise
    they would absorb emotion differences as speaker traits.

    Args:
        takes: of the session.
        sounds: (N,) samples of each.
        generic: the head to start from.
        spectrum: what the network reads.
    """
    lengths: Counter[int] = Counter()
    for take, sound in zip(takes, sounds, strict=True):
        lengths[take.emotion] += len(sound)
    balanced = max(lengths.values()) <= LARGEST_IMBALANCE * min(lengths.values())
    complete = len(lengths) == len(EMOTIONS)
    return [
        candidate
        for candidate in CANDIDATES
        if spectrum in candidate.spectra
        and (balanced or not candidate.own_statistics)
        and (complete or not candidate.fit)
        and (generic.baseline_weight is not None or candidate.fit is not keep_baseline)
        and (has_dimensions(generic) or candidate.fit is not fit_dimensions)
    ]


def keep_baseline(start: Head, examples: Examples) -> Head:
    """Return the head for the speaker's baseline as it is: no label is used."""
    return start


def speaker_normalisation(
    generic: InputNormalisation, powers: Sequence[Array], emotions: Sequence[int]
) -> InputNormalisation:
    """Estimate the speaker's level and bin statistics, shrunk towards the generic ones.

    Every emotion has the same weight, however many takes of it there are.

    Args:
        generic: the bundle's.
        powers: (T, F) power spectra of each take.
        emotions: of each take.
    """
    gate = generic.levels.gate_db * DECIBEL
    take_levels = [frame_levels(power) for power in powers]
    speech = [frames[frames > frames.max() - gate].mean() for frames in take_levels]
    shares = take_shares(emotions)
    levels = for_speaker(generic.levels, float(shares @ np.array(speech)), LEVEL_PRIOR_FRAMES)
    mean = np.zeros(len(generic.statistics.mean))
    square = np.zeros(len(mean))
    for share, power, frames in zip(shares, powers, take_levels, strict=True):
        estimates, _ = track_gain(frames, initial_state(levels), levels)
        logs = log_power(power, estimates, levels.eps).astype(np.float64)
        mean += share * logs.mean(axis=0)
        square += share * (logs**2).mean(axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    own = BinStatistics(mean.astype(np.float32), std.astype(np.float32))
    frame_count = float(sum(map(len, powers)))
    return InputNormalisation(levels, generic.statistics.shrunk(own, frame_count, STATISTICS_PRIOR_FRAMES))


def fit_bias(generic: Head, examples: Examples) -> Head:
    """Fit a temperature and a bias for each emotion.

    min over s, b of sum_m w_m CE(softmax(exp(s) z_m + b)) + lambda (s^2 + |b|^2)

    z are the generic logits over the generic temperature. In the head, T' = T exp(-s) and FC 3's
    bias grows by T' b.
    """
    scaled = generic.logits(examples.inputs).astype(np.float64) / generic.temperature
    fitted = descend(bias_objective(scaled, examples, BIAS_L2_PENALTY), np.zeros(1 + scaled.shape[1]))
    temperature = generic.temperature * float(np.exp(-fitted[0]))
    bias = (generic.fc3_bias + temperature * fitted[1:]).astype(np.float32)
    return replace(generic, fc3_bias=bias, temperature=temperature)


def bias_objective(scaled: Floats, examples: Examples, l2_penalty: float) -> Objective:
    """Return the loss of `fit_bias` as a function of (1 + C,): s, then b.

    Args:
        scaled: (M, C) generic logits over the generic temperature.
        examples: their emotions and weights.
        l2_penalty: lambda, > 0.
    """

    def objective(point: Floats) -> tuple[float, Floats]:
        stretch = np.exp(point[0])
        loss, errors = cross_entropy(stretch * scaled + point[1:], examples.emotions, examples.weights)
        slope = np.concatenate([[stretch * (errors * scaled).sum()], errors.sum(axis=0)])
        return loss + l2_penalty * float(point @ point), slope + 2.0 * l2_penalty * point

    return objective


CANDIDATES: Final = (
    Candidate("generic", own_statistics=False, fit=None),
    Candidate("baseline", own_statistics=False, fit=keep_baseline, complexity_penalty=0.05),
    Candidate("bias", own_statistics=False, fit=fit_bias, complexity_penalty=0.15),
    Candidate("dimensions", own_statistics=False, fit=fit_dimensions, complexity_penalty=0.15),
    Candidate("adapter", own_statistics=False, fit=fit_adapter, spectra=("linear",)),
    Candidate(
        "embedding adapter",
        own_statistics=False,
        fit=fit_embedding_adapter,
        spectra=("log_mel", "mel_power"),
    ),
    Candidate(
        "statistics + adapter",
        own_statistics=True,
        fit=fit_adapter,
        complexity_penalty=0.15,
        spectra=("linear",),
    ),
)
"""Simplest first; the first is the generic model. The networks on a published encoder read mel bands, have no
bin statistics, and standardise their embedding."""
