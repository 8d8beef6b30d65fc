"""What held-out answers are worth, and how sure that is."""

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

DRAWS: Final = 1000
"""Sessions drawn anew from a session's takes, for the uncertainty."""


@dataclass(frozen=True)
class Scores:
    """What held-out answers are worth. The emotions count alike in the first two."""

    uar: float
    """Unweighted average recall, in [0, 1]."""
    log_loss: float
    """Nats; log(4) = 1.39 is worth nothing."""
    ece: float
    """Expected calibration error, in [0, 1] (Guo et al. 2017, eq. 3)."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts; rows are the truth, columns the answers."""

    def described(self) -> dict[str, float]:
        """Return the numbers as a report shows them."""
        numbers = {"uar": self.uar, "log_loss": self.log_loss, "ece": self.ece}
        return {name: round(value, 4) for name, value in numbers.items()}

    def described_confusion(self) -> dict[str, dict[str, int]]:
        """Return the counts by the name of the truth, then of the answer."""
        rows = (dict(zip(EMOTIONS, row, strict=True)) for row in self.confusion)
        return {truth: row for truth, row in zip(EMOTIONS, rows, strict=True) if any(row.values())}


@dataclass(frozen=True)
class Gain:
    """How much better one is than another, with the 95 % interval over sessions of such takes."""

    mean: float
    low: float
    high: float

    def described(self) -> dict[str, float]:
        """Return the fields as a report shows them."""
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True)
class Answers:
    """Held-out answers to every take, once in each round."""

    posteriors: Floats
    """(R, N, C)."""
    truth: Integers
    """(N,)."""

    def losses(self) -> Floats:
        """Return the log loss of each take, (N,), averaged over the rounds."""
        given = self.posteriors[:, np.arange(len(self.truth)), self.truth]
        losses: Floats = -np.log(np.maximum(given, 1e-6)).mean(axis=0)
        return losses

    def labels(self) -> Integers:
        """Return the answer to each take, (N,), by the posteriors averaged over the rounds."""
        labels: Integers = self.posteriors.mean(axis=0).argmax(axis=1)
        return labels

    def right(self) -> NDArray[np.bool_]:
        """Tell which takes are answered rightly, (N,)."""
        right: NDArray[np.bool_] = self.labels() == self.truth
        return right


def score(answers: Answers) -> Scores:
    """Score answers."""
    shares, right = take_shares(answers.truth.tolist()), answers.right()
    return Scores(
        uar=float(shares @ right),
        log_loss=float(shares @ answers.losses()),
        ece=_calibration_error(answers.posteriors.mean(axis=0).max(axis=1), right),
        confusion=_confusion(answers),
    )


def gain(better: Floats, emotions: Sequence[int]) -> Gain:
    """Average how much better each take does, the emotions alike, and say how sure that is.

    Takes are drawn anew with replacement, as many of each emotion.

    Args:
        better: (N,) differences.
        emotions: (N,).
    """
    random, truth, means = np.random.default_rng(0), np.asarray(emotions), []
    for emotion in np.unique(truth):
        own = np.flatnonzero(truth == emotion)
        means.append(better[random.choice(own, (DRAWS, len(own)))].mean(axis=1))
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return Gain(float(take_shares(emotions) @ better), float(low), float(high))


def _confusion(answers: Answers) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64)
    np.add.at(counts, (answers.truth, answers.labels()), 1)
    return tuple(tuple(row) for row in counts.tolist())


def _calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """ECE = sum_b |B_b| / N * |accuracy(B_b) - mean confidence(B_b)|."""
    index = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(index, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))
