"""Training examples: the windows of a session's takes, their labels and weights.

Losses are cross entropies of single windows, because the recogniser answers for single windows. The
emotions have equal weights, and so have the takes of an emotion and the windows of a take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.gradient_descent import Floats
from calibrate.takes import Take
from edge.arrays import Array
from edge.labels import EMOTIONS, derived_ratings, dimension_class

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Weighted, labelled windows."""

    inputs: Array
    """(M, X) of the head, from `calibrate.fitting.embeddings.extract_embeddings`."""
    emotions: Integers
    """(M,)."""
    dimensions: Integers
    """(M, 3) classes of valence, arousal and dominance."""
    weights: Floats
    """(M,), sum 1."""


def examples(inputs: Sequence[Array], takes: Sequence[Take]) -> Examples:
    """Join the windows of takes.

    w = 1 / (emotions * takes of the emotion * windows of the take)

    Args:
        inputs: (W, X) of each take.
        takes: their labels.
    """
    emotions = [take.emotion for take in takes]
    counts = [len(windows) for windows in inputs]
    weights = take_shares(emotions) / np.array(counts)
    return Examples(
        inputs=np.concatenate(inputs),
        emotions=np.repeat(np.array(emotions, np.int64), counts),
        dimensions=np.repeat(np.array([dimension_classes(take) for take in takes], np.int64), counts, axis=0),
        weights=np.repeat(weights, counts),
    )


def take_shares(emotions: Sequence[int]) -> Floats:
    """Return weights of takes that give every emotion the same total: (N,), sum 1."""
    takes = Counter(emotions)
    return np.array([1.0 / (len(takes) * takes[emotion]) for emotion in emotions])


def dimension_classes(take: Take) -> tuple[int, int, int]:
    """Return the classes of valence, arousal and dominance, derived from the emotion where not rated."""
    derived = derived_ratings(EMOTIONS[take.emotion])
    assert derived is not None, "every emotion of the recogniser has norms"
    valence, arousal, dominance = (
        dimension_class(norm if rating is None else rating)
        for rating, norm in zip(take.ratings, derived, strict=True)
    )
    return valence, arousal, dominance


def cross_entropy(logits: Floats, labels: Integers, weights: Floats) -> tuple[float, Floats]:
    """Return the weighted cross entropy of (M, C) logits, and its (M, C) gradient."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(logits))
    errors = np.exp(log_probs)
    errors[rows, labels] -= 1.0
    return -float(weights @ log_probs[rows, labels]), errors * weights[:, None]
