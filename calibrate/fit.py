"""What can be fitted to one speaker, simplest first: statistics, temperature and bias, the last layers.

Losses are cross entropies of single windows, for that is what the recogniser shows. The emotions
count alike, the takes of an emotion alike, the windows of a take alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.takes import Normalisation, Take
from edge.frontend import Array
from edge.head import Head
from edge.labels import EMOTIONS
from edge.normaliser import (
    DECIBEL,
    BinStatistics,
    follow_levels,
    for_speaker,
    frame_levels,
    initial_state,
    log_power,
)

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
"""Loss at a point, and its gradient."""

STATISTICS_PRIOR_FRAMES: Final = 3000.0
"""Frames that the training set's bin statistics are worth: 30 s."""

LEVEL_PRIOR_FRAMES: Final = 200.0
"""Frames of speech that the speaker's own level is worth to a new stream: 2 s."""

FEWEST_EMOTIONS: Final = 3
"""A session of fewer says more about the emotions than about the speaker."""

LARGEST_IMBALANCE: Final = 4.0
"""At most so much longer may one emotion's takes be than another's for statistics."""

BIAS_PULL: Final = 0.8
"""How hard `fit_bias` pulls towards the generic temperature and bias: lambda = BIAS_PULL / takes."""

HEAD_PULL: Final = 2.4
"""How hard `fit_head` pulls towards the generic weights: lambda = HEAD_PULL / takes.

Both were chosen on validation speakers with 1, 2 and 4 takes of each emotion: the best lambda fell
with the number of takes, as it does where the distance is a prior.
"""

STEPS: Final = 200
"""Most steps of the descent."""


@dataclass(frozen=True)
class Examples:
    """Windows to fit on."""

    embeddings: Array
    """(M, D)."""
    emotions: NDArray[np.int64]
    """(M,)."""
    weights: Floats
    """(M,), sum 1."""
    takes: int
    """How many takes the windows are of."""


@dataclass(frozen=True)
class Candidate:
    """One way to fit a speaker."""

    name: str
    own_statistics: bool
    """Whether the takes are heard with the speaker's statistics."""
    fit: Callable[[Head, Examples], Head] | None
    """Fits the head; None leaves it."""

    def head(self, generic: Head, examples: Examples) -> Head:
        """Return the head for the speaker."""
        return self.fit(generic, examples) if self.fit else generic


def candidates(takes: Sequence[Take], sounds: Sequence[Array]) -> list[Candidate]:
    """List what a session can support, simplest first.

    The head is fitted only to a session of all emotions: what is fitted to some of them forgets the
    others, and no held-out take would show it.

    Args:
        takes: of the session.
        sounds: (N,) samples of each.
    """
    lengths: Counter[int] = Counter()
    for take, sound in zip(takes, sounds, strict=True):
        lengths[take.emotion] += len(sound)
    even = max(lengths.values()) <= LARGEST_IMBALANCE * min(lengths.values())
    own_statistics = even and len(lengths) >= FEWEST_EMOTIONS
    every = len(lengths) == len(EMOTIONS)
    return [
        candidate
        for candidate in CANDIDATES
        if (own_statistics or not candidate.own_statistics) and (every or not candidate.fit)
    ]


def examples(embeddings: Sequence[Array], emotions: Sequence[int]) -> Examples:
    """Put the windows of takes together.

    w = 1 / (emotions * takes of the emotion * windows of the take)

    Args:
        embeddings: (W, D) of each take.
        emotions: of each take.
    """
    weights = [
        np.full(len(windows), share / len(windows))
        for windows, share in zip(embeddings, take_shares(emotions), strict=True)
    ]
    labels = np.repeat(np.asarray(emotions, np.int64), [len(windows) for windows in embeddings])
    return Examples(np.concatenate(embeddings), labels, np.concatenate(weights), len(embeddings))


def take_shares(emotions: Sequence[int]) -> Floats:
    """Weight takes so that the emotions count alike: (N,), sum 1."""
    takes = Counter(emotions)
    return np.array([1.0 / (len(takes) * takes[emotion]) for emotion in emotions])


def speaker_normalisation(
    generic: Normalisation, powers: Sequence[Array], emotions: Sequence[int]
) -> Normalisation:
    """Estimate the speaker's level and bin statistics, shrunk towards the generic ones.

    The emotions count alike, so that a session with more of one does not make it the measure.

    Args:
        generic: of the bundle.
        powers: (T, F) power spectra of each take.
        emotions: of each take.
    """
    gate = generic.levels.gate_db * DECIBEL
    followed = [frame_levels(power) for power in powers]
    speech = [frames[frames > frames.max() - gate].mean() for frames in followed]
    shares = take_shares(emotions)
    levels = for_speaker(generic.levels, float(shares @ np.array(speech)), LEVEL_PRIOR_FRAMES)
    mean = np.zeros(len(generic.statistics.mean))
    square = np.zeros(len(mean))
    for share, power, frames in zip(shares, powers, followed, strict=True):
        estimates, _ = follow_levels(frames, initial_state(levels), levels)
        logs = log_power(power, estimates, levels.eps).astype(np.float64)
        mean += share * logs.mean(axis=0)
        square += share * (logs**2).mean(axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    own = BinStatistics(mean.astype(np.float32), std.astype(np.float32))
    frames_heard = float(sum(map(len, powers)))
    return Normalisation(levels, generic.statistics.shrunk(own, frames_heard, STATISTICS_PRIOR_FRAMES))


def fit_bias(generic: Head, examples: Examples) -> Head:
    """Fit a temperature and a bias for each emotion.

    min over s, b of sum_m w_m CE(softmax(exp(s) z_m + b)) + lambda (s^2 + |b|^2)

    z are the generic logits over the generic temperature. In the head, T' = T exp(-s) and FC 3's
    bias grows by T' b.
    """
    scaled = generic.logits(examples.embeddings).astype(np.float64) / generic.temperature
    fitted = descend(
        bias_objective(scaled, examples, BIAS_PULL / examples.takes), np.zeros(1 + scaled.shape[1])
    )
    temperature = generic.temperature * float(np.exp(-fitted[0]))
    bias = (generic.fc3_bias + temperature * fitted[1:]).astype(np.float32)
    return replace(generic, fc3_bias=bias, temperature=temperature)


def fit_head(generic: Head, examples: Examples) -> Head:
    """Fit FC 2 and FC 3, pulled towards the generic ones.

    min over W of sum_m w_m CE(softmax(z_m(W) / T)) + lambda |W - W_generic|^2
    """
    hidden = np.maximum(examples.embeddings @ generic.fc1_weight.T + generic.fc1_bias, 0.0)
    start = _flat(generic)
    objective = head_objective(hidden.astype(np.float64), generic, examples, HEAD_PULL / examples.takes)
    return _with_layers(generic, descend(objective, start))


CANDIDATES: Final = (
    Candidate("generic", own_statistics=False, fit=None),
    Candidate("statistics", own_statistics=True, fit=None),
    Candidate("bias", own_statistics=False, fit=fit_bias),
    Candidate("head", own_statistics=False, fit=fit_head),
    Candidate("statistics + head", own_statistics=True, fit=fit_head),
)
"""Simplest first; the first changes nothing."""


def bias_objective(scaled: Floats, examples: Examples, pull: float) -> Objective:
    """Return the loss of `fit_bias` as a function of (1 + C,): s, then b.

    Args:
        scaled: (M, C) generic logits over the generic temperature.
        examples: their emotions and weights.
        pull: lambda, > 0.
    """

    def objective(point: Floats) -> tuple[float, Floats]:
        stretch = np.exp(point[0])
        loss, errors = _cross_entropy(stretch * scaled + point[1:], examples)
        slope = np.concatenate([[stretch * (errors * scaled).sum()], errors.sum(axis=0)])
        return loss + pull * float(point @ point), slope + 2.0 * pull * point

    return objective


def head_objective(hidden: Floats, generic: Head, examples: Examples, pull: float) -> Objective:
    """Return the loss of `fit_head` as a function of FC 2's and FC 3's weights and biases in a row.

    Args:
        hidden: (M, H) what FC 1 makes of the embeddings, after its ReLU.
        generic: the head that is pulled towards.
        examples: emotions and weights of the M windows.
        pull: lambda, > 0.
    """
    origin = _flat(generic)

    def objective(point: Floats) -> tuple[float, Floats]:
        fc2_weight, fc2_bias, fc3_weight, fc3_bias = _layers(generic, point)
        auxiliary = hidden @ fc2_weight.T + fc2_bias
        logits = auxiliary @ fc3_weight.T + fc3_bias
        loss, errors = _cross_entropy(logits / generic.temperature, examples)
        errors = errors / generic.temperature
        back = errors @ fc3_weight
        slopes = (back.T @ hidden, back.sum(axis=0), errors.T @ auxiliary, errors.sum(axis=0))
        away = point - origin
        slope = np.concatenate([part.ravel() for part in slopes])
        return loss + pull * float(away @ away), slope + 2.0 * pull * away

    return objective


def descend(objective: Objective, start: Floats) -> Floats:
    """Go downhill from a point: gradient descent whose step is halved until the loss falls enough.

    Deterministic. Ends after `STEPS` steps, or where the gradient vanishes.

    Args:
        objective: smooth and bounded below.
        start: where to begin.
    """
    point, (loss, slope) = start, objective(start)
    step = 1.0 / max(1.0, float(np.linalg.norm(slope)))
    for _ in range(STEPS):
        steepness = float(slope @ slope)
        if steepness < 1e-12:
            break
        ahead = point - step * slope
        ahead_loss, ahead_slope = objective(ahead)
        while not ahead_loss <= loss - 0.5 * step * steepness and step > 1e-12:
            step *= 0.5
            ahead = point - step * slope
            ahead_loss, ahead_slope = objective(ahead)
        if not ahead_loss < loss:
            break
        point, loss, slope, step = ahead, ahead_loss, ahead_slope, 2.0 * step
    return point


def _cross_entropy(logits: Floats, examples: Examples) -> tuple[float, Floats]:
    """Return the weighted cross entropy of (M, C) logits, and its (M, C) gradient."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(logits))
    loss = -float(examples.weights @ log_probs[rows, examples.emotions])
    errors = np.exp(log_probs)
    errors[rows, examples.emotions] -= 1.0
    return loss, errors * examples.weights[:, None]


def _flat(head: Head) -> Floats:
    """Lay FC 2's and FC 3's weights and biases in a row."""
    parts = (head.fc2_weight, head.fc2_bias, head.fc3_weight, head.fc3_bias)
    return np.concatenate([part.ravel() for part in parts]).astype(np.float64)


def _layers(head: Head, flat: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Undo `_flat`, for layers of the shapes of a head's."""
    a, b, c, _ = np.cumsum([head.fc2_weight.size, head.fc2_bias.size, head.fc3_weight.size, 0])
    fc2_weight, fc3_weight = flat[:a].reshape(head.fc2_weight.shape), flat[b:c].reshape(head.fc3_weight.shape)
    return fc2_weight, flat[a:b], fc3_weight, flat[c:]


def _with_layers(head: Head, flat: Floats) -> Head:
    fc2_weight, fc2_bias, fc3_weight, fc3_bias = (part.astype(np.float32) for part in _layers(head, flat))
    return replace(head, fc2_weight=fc2_weight, fc2_bias=fc2_bias, fc3_weight=fc3_weight, fc3_bias=fc3_bias)
