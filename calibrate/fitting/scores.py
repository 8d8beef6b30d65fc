"""Scores of held-out predictions, and bootstrap intervals of their improvement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.examples import Integers, take_shares
from calibrate.fitting.gradient_descent import Floats
from edge.labels import EMOTIONS

CALIBRATION_BINS: Final = 10

BOOTSTRAP_SAMPLES: Final = 1000
"""Bootstrap resamples of a session's takes."""


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of held-out predictions. In `uar` and `log_loss` every emotion has the same weight."""

    uar: float
    """Unweighted average recall, in [0, 1]."""
    log_loss: float
    """Nats; guessing among four emotions gives log(4) = 1.39."""
    ece: float
    """Expected calibration error, in [0, 1] (Guo et al. 2017, eq. 3)."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts; rows are the truth, columns the predictions."""

    def described(self) -> dict[str, float]:
        """Return the figures, rounded for a report."""
        numbers = {"uar": self.uar, "log_loss": self.log_loss, "ece": self.ece}
        return {name: round(value, 4) for name, value in numbers.items()}

    def described_confusion(self) -> dict[str, dict[str, int]]:
        """Return the counts by true emotion, then by predicted emotion."""
        rows = (dict(zip(EMOTIONS, row, strict=True)) for row in self.confusion)
        return {truth: row for truth, row in zip(EMOTIONS, rows, strict=True) if any(row.values())}


@dataclass(frozen=True)
class Improvement:
    """Improvement of one model over another, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def described(self) -> dict[str, float]:
        """Return the fields, rounded for a report."""
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True)
class HeldOutPredictions:
    """Held-out posteriors of every take, once in each round."""

    posteriors: Floats
    """(R, N, C)."""
    truth: Integers
    """(N,)."""
    entropies: Floats | None = None
    """(N,) entropy in nats of each take's windows, averaged over them and the rounds; None: not computed."""

    def losses(self) -> Floats:
        """Return the log loss of each take, (N,), averaged over the rounds."""
        given = self.posteriors[:, np.arange(len(self.truth)), self.truth]
        losses: Floats = -np.log(np.maximum(given, 1e-6)).mean(axis=0)
        return losses

    def labels(self) -> Integers:
        """Return the predicted emotion of each take, (N,), by the posteriors averaged over the rounds."""
        labels: Integers = self.posteriors.mean(axis=0).argmax(axis=1)
        return labels

    def correct(self) -> NDArray[np.bool_]:
        """Tell which takes are recognised correctly, (N,)."""
        correct: NDArray[np.bool_] = self.labels() == self.truth
        return correct


def score(predictions: HeldOutPredictions) -> HeldOutScores:
    """Score predictions."""
    shares, correct = take_shares(predictions.truth.tolist()), predictions.correct()
    return HeldOutScores(
        uar=float(shares @ correct),
        log_loss=float(shares @ predictions.losses()),
        ece=_calibration_error(predictions.posteriors.mean(axis=0).max(axis=1), correct),
        confusion=_confusion(predictions),
    )


def improvement(better: Floats, emotions: Sequence[int]) -> Improvement:
    """Average the improvement of the takes over the emotions, with a stratified bootstrap interval.

    Takes are resampled with replacement within each emotion.

    Args:
        better: (N,) improvement of each take.
        emotions: (N,).
    """
    random, truth, means = np.random.default_rng(0), np.asarray(emotions), []
    for emotion in np.unique(truth):
        own = np.flatnonzero(truth == emotion)
        means.append(better[random.choice(own, (BOOTSTRAP_SAMPLES, len(own)))].mean(axis=1))
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return Improvement(float(take_shares(emotions) @ better), float(low), float(high))


def _confusion(predictions: HeldOutPredictions) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64)
    np.add.at(counts, (predictions.truth, predictions.labels()), 1)
    return tuple(tuple(row) for row in counts.tolist())


def _calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """ECE = sum_b |B_b| / N * |accuracy(B_b) - mean confidence(B_b)|."""
    index = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(index, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(correct))
