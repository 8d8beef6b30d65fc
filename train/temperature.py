"""Temperature scaling, so that confidence matches accuracy (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.arrays import Array
from edge.model.head import softmax

CANDIDATES: NDArray[np.float64] = np.geomspace(0.2, 8.0, 150)


def averaged(logits: Sequence[Array], temperature: float = 1.0) -> Array:
    """Average the posteriors of each clip's segments.

    Args:
        logits: for each clip (S, C), S segments.
        temperature: divides the logits, > 0.

    Returns:
        (clips, C) probabilities.
    """
    counts = np.array([len(clip) for clip in logits])
    posteriors = softmax(np.concatenate(logits) / np.float32(temperature))
    totals = np.add.reduceat(posteriors, np.cumsum(counts) - counts)
    averages: Array = (totals / counts[:, None]).astype(np.float32)
    return averages


def fit_temperature(logits: Sequence[Array], labels: ArrayLike) -> float:
    """Find the temperature whose averaged posteriors give the labels the highest likelihood.

    Differs: the deployed recogniser averages over overlapping windows, not over the segments of training;
    `mmtl evaluate` measures the ECE of that average. On the validation speakers of the shipped model both
    averages have the same best temperature.

    The search is over a fixed grid from 0.2 to 8, so that the result is the same on every machine.

    Args:
        logits: of validation speakers' clips, for each (S, C).
        labels: (clips,) class indices.
    """
    truth = np.asarray(labels)
    losses = [
        -np.log(averaged(logits, temperature)[np.arange(len(truth)), truth] + 1e-12).mean()
        for temperature in CANDIDATES
    ]
    return float(CANDIDATES[int(np.argmin(losses))])
