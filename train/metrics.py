"""Metrics of predictions. Every score is a fraction, not a percentage.

Shapes by letter: N clips, C classes. Labels and predictions are class indices, in the order of
`edge.labels.EMOTIONS` unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.labels import EMOTIONS

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int = len(EMOTIONS)) -> Counts:
    """Count the clips by label and prediction.

    M[i, j] = number of clips with label i and prediction j

    Args:
        labels: (N,) the truth, integers in [0, C).
        predictions: (N,) integers in [0, C).
        classes: C.

    Returns:
        (C, C) counts: rows are the truth.

    Raises:
        ValueError: there are no clips, the lengths differ, or a class is out of range.
    """
    truth, guesses = _class_indices(labels, classes), _class_indices(predictions, classes)
    if len(truth) != len(guesses):
        raise ValueError(f"{len(truth)} labels, but {len(guesses)} predictions: give one for each clip")
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, guesses), 1)
    return matrix


def uar(labels: ArrayLike, predictions: ArrayLike, classes: int = len(EMOTIONS)) -> float:
    """Compute the unweighted average recall (the paper's UA).

    UAR = mean over classes i of M[i, i] / sum_j M[i, j]

    Convention: a class absent from the truth is left out of the mean.

    Args:
        labels: (N,) the truth.
        predictions: (N,).
        classes: C.

    Returns:
        In [0, 1]; chance is 1 / C when all classes are present.

    Raises:
        ValueError: as `confusion_matrix`.
    """
    return float(uar_of(confusion_matrix(labels, predictions, classes)))


def recalls(confusion: ArrayLike) -> tuple[float | None, ...]:
    """Compute the recall of each class from (C, C) counts, rows the truth.

    recall_i = M[i, i] / sum_j M[i, j]

    Convention: None for a class absent from the truth.
    """
    matrix = np.asarray(confusion)
    return tuple(float(row[index] / row.sum()) if row.sum() else None for index, row in enumerate(matrix))


def accuracy(labels: ArrayLike, predictions: ArrayLike, classes: int = len(EMOTIONS)) -> float:
    """Compute the share of correct predictions (the paper's WA, weighted accuracy).

    accuracy = sum_i M[i, i] / N

    Args:
        labels: (N,) the truth.
        predictions: (N,).
        classes: C.

    Returns:
        In [0, 1].

    Raises:
        ValueError: as `confusion_matrix`.
    """
    return _accuracy_of(confusion_matrix(labels, predictions, classes))


def macro_f1(labels: ArrayLike, predictions: ArrayLike, classes: int = len(EMOTIONS)) -> float:
    """Compute the unweighted mean of the classes' F1.

    F1_i = 2 M[i, i] / (sum_j M[i, j] + sum_j M[j, i])

    Convention: a class neither in the truth nor predicted is left out of the mean; one that is
    predicted but absent from the truth counts as 0. This is scikit-learn's.

    Args:
        labels: (N,) the truth.
        predictions: (N,).
        classes: C.

    Returns:
        In [0, 1].

    Raises:
        ValueError: as `confusion_matrix`.
    """
    return _macro_f1_of(confusion_matrix(labels, predictions, classes))


def ece(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Compute the expected calibration error of the most probable class.

    ECE = sum_b |B_b| / N * |accuracy(B_b) - mean confidence(B_b)|      Guo et al. 2017, eq. 3

    Convention: B_b holds the clips with confidence in (b / bins, (b + 1) / bins]; of equally probable classes
    the first is the prediction.

    Args:
        probs: (N, C) probabilities.
        labels: (N,) the truth, integers in [0, C).
        bins: number of equally wide bins, > 0.

    Returns:
        In [0, 1]; 0 is perfectly calibrated.

    Raises:
        ValueError: the lengths differ, or `probs` are not probabilities that sum to 1.
    """
    posteriors = _posteriors(probs)
    truth = _class_indices(labels, posteriors.shape[1])
    _require_as_many(len(posteriors), len(truth))
    if bins < 1:
        raise ValueError(f"{bins} bins: use at least one")
    confidence = posteriors.max(axis=1)
    right = (posteriors.argmax(axis=1) == truth).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


@dataclass(frozen=True)
class SelectiveAccuracy:
    """Coverage and accuracy at one threshold of "unsure"."""

    threshold: float
    """Smallest probability of the most probable class that counts as an answer; below it: "unsure"."""
    coverage: float
    """Share of clips with an answer, in [0, 1]."""
    accuracy: float | None
    """Share of answers that are correct, in [0, 1]; None without answers."""


def answers(probs: ArrayLike, labels: ArrayLike, threshold: float) -> SelectiveAccuracy:
    """Compute coverage and accuracy at a threshold of "unsure" (selective classification).

    coverage = |{n: max_c p_nc >= threshold}| / N
    accuracy = |{n answered: argmax_c p_nc = label_n}| / |{n answered}|

    Args:
        probs: (N, C) probabilities.
        labels: (N,) the truth, integers in [0, C).
        threshold: in [0, 1].

    Raises:
        ValueError: the lengths differ, or `probs` are not probabilities that sum to 1.
    """
    posteriors = _posteriors(probs)
    truth = _class_indices(labels, posteriors.shape[1])
    _require_as_many(len(posteriors), len(truth))
    answered = posteriors.max(axis=1) >= threshold
    right = posteriors.argmax(axis=1) == truth
    return SelectiveAccuracy(
        threshold=threshold,
        coverage=float(answered.mean()),
        accuracy=float(right[answered].mean()) if answered.any() else None,
    )


def ccc(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Compute the concordance correlation coefficient.

    CCC = 2 cov(t, p) / (var(t) + var(p) + (mean(t) - mean(p))^2)      Lin 1989

    Convention: variances and covariance divide by N. For two constant and equal series, which
    say nothing about agreement, it is 0.

    Args:
        truth: (N,) finite numbers.
        prediction: (N,) finite numbers.

    Returns:
        In [-1, 1].

    Raises:
        ValueError: the lengths differ, are 0, or a number is not finite.
    """
    t, p = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if t.ndim != 1 or t.shape != p.shape or t.size == 0:
        raise ValueError(f"two series of one length, at least 1, are needed, not {t.shape} and {p.shape}")
    if not (np.isfinite(t).all() and np.isfinite(p).all()):
        raise ValueError("a number is not finite: leave out the clips without a rating")
    covariance = ((t - t.mean()) * (p - p.mean())).mean()
    spread = t.var() + p.var() + (t.mean() - p.mean()) ** 2
    return float(2.0 * covariance / spread) if spread > 0.0 else 0.0


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of one set of predictions."""

    uar: float
    """In [0, 1], as the other scores."""
    accuracy: float
    macro_f1: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]
    """(C, C) counts: rows are the truth."""
    clips: int
    per_speaker: dict[str, float]
    """UAR by speaker, sorted; over the classes of which the speaker has clips."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return {**asdict(self), "confusion": [list(row) for row in self.confusion]}


def score(labels: ArrayLike, probs: ArrayLike, speakers: Sequence[str]) -> ClassificationScores:
    """Compute every score of a set of predictions.

    Args:
        labels: (N,) the truth, integers in [0, C).
        probs: (N, C) probabilities; the most probable class is the prediction.
        speakers: (N,) names.

    Raises:
        ValueError: the lengths differ, there are no clips, or `probs` are not probabilities.
    """
    posteriors = _posteriors(probs)
    classes = posteriors.shape[1]
    predictions = posteriors.argmax(axis=1)
    by_speaker = confusion_by_speaker(labels, predictions, speakers, classes)
    total = np.sum(list(by_speaker.values()), axis=0)
    return ClassificationScores(
        uar=float(uar_of(total)),
        accuracy=_accuracy_of(total),
        macro_f1=_macro_f1_of(total),
        ece=ece(posteriors, labels),
        confusion=tuple(tuple(row) for row in total.tolist()),
        clips=len(posteriors),
        per_speaker={name: float(uar_of(matrix)) for name, matrix in by_speaker.items()},
    )


def speaker_uars(
    labels: ArrayLike, predictions: ArrayLike, speakers: Sequence[str], classes: int = len(EMOTIONS)
) -> dict[str, float]:
    """Compute the UAR of each speaker, by name, over the classes of which the speaker has clips.

    Args:
        labels: (N,) the truth.
        predictions: (N,).
        speakers: (N,) names.
        classes: C.

    Raises:
        ValueError: as `confusion_matrix`, or there is not one speaker for each clip.
    """
    by_speaker = confusion_by_speaker(labels, predictions, speakers, classes)
    return {name: float(uar_of(matrix)) for name, matrix in by_speaker.items()}


def bootstrap_uar(
    labels: ArrayLike,
    predictions: ArrayLike,
    speakers: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
    *,
    classes: int = len(EMOTIONS),
) -> tuple[float, float]:
    """Estimate the 95 % confidence interval of the UAR for other speakers.

    Bootstrap over speakers, not clips: as many speakers as there are, drawn with replacement. The interval is
    the 2.5th to the 97.5th percentile of the UAR over all clips of the drawn speakers.

    Convention: for a single speaker the interval is (0, 1).

    Args:
        labels: (N,) the truth.
        predictions: (N,).
        speakers: (N,) names.
        draws: bootstrap samples, > 0.
        seed: of the generator.
        classes: C.

    Raises:
        ValueError: as `confusion_matrix`, or there is not one speaker for each clip.
    """
    matrices = np.stack(list(confusion_by_speaker(labels, predictions, speakers, classes).values()))
    count = len(matrices)
    if count == 1:
        return 0.0, 1.0
    generator = np.random.default_rng(seed)
    times_drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=draws)
    low, high = np.percentile(uar_of(np.tensordot(times_drawn, matrices, axes=1)), [2.5, 97.5])
    return float(low), float(high)


def confusion_by_speaker(
    labels: ArrayLike, predictions: ArrayLike, speakers: Sequence[str], classes: int = len(EMOTIONS)
) -> dict[str, Counts]:
    """Count the answers by speaker, as `confusion_matrix` does, in the order of the names.

    Raises:
        ValueError: as `confusion_matrix`, or there is not one speaker for each clip, or there is no clip.
    """
    truth, guesses = np.asarray(labels), np.asarray(predictions)
    names = np.asarray(speakers)
    _require_as_many(len(truth), len(names), "speakers")
    _require_as_many(len(truth), len(guesses), "predictions")
    if not len(truth):
        raise ValueError("there are no clips to score")
    return {
        str(name): confusion_matrix(truth[names == name], guesses[names == name], classes)
        for name in np.unique(names)
    }


def uar_of(matrix: Counts) -> Floats:
    """Map (..., C, C) counts to (...) UAR."""
    clips = matrix.sum(axis=-1)
    recalls = np.diagonal(matrix, axis1=-2, axis2=-1) / np.maximum(clips, 1)
    average: Floats = recalls.sum(axis=-1) / (clips > 0).sum(axis=-1)
    return average


def _accuracy_of(matrix: Counts) -> float:
    return float(np.trace(matrix) / matrix.sum())


def _macro_f1_of(matrix: Counts) -> float:
    mentions = matrix.sum(axis=0) + matrix.sum(axis=1)
    present = mentions > 0
    return float((2.0 * np.diagonal(matrix)[present] / mentions[present]).mean())


def _class_indices(values: ArrayLike, classes: int) -> Counts:
    indices = np.asarray(values)
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"a class for each of at least one clip is needed, not shape {indices.shape}")
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"classes are integers, not {indices.dtype}")
    if indices.min() < 0 or indices.max() >= classes:
        raise ValueError(f"classes are 0 to {classes - 1}, not {indices.min()} to {indices.max()}")
    return indices.astype(np.int64)


def _posteriors(probs: ArrayLike) -> Floats:
    posteriors = np.asarray(probs, np.float64)
    if posteriors.ndim != 2 or posteriors.size == 0:
        raise ValueError(f"probabilities of (clips, classes) are needed, not shape {posteriors.shape}")
    if not (posteriors >= 0.0).all() or not np.allclose(posteriors.sum(axis=1), 1.0, atol=1e-3):
        raise ValueError("each row of probabilities must be >= 0 and sum to 1: apply the softmax first")
    return posteriors


def _require_as_many(clips: int, others: int, what: str = "labels") -> None:
    if clips != others:
        raise ValueError(f"{clips} clips, but {others} {what}: give one for each clip")
