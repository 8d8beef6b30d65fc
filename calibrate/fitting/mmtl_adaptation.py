"""The paper's adaptation to a new speaker, on the layers after the embedding.

Cai et al. 2020, section 2.4: the meta learner is tuned on the speaker's valence, activation and
dominance (equation 4), then the transfer learner on the emotions of the speaker's labelled clips
(equation 5). Differs: only FC 1 and FC 2 of the meta learner are tuned, because the layers below run in
a graph that all speakers share; and a clip that was tuned on is never scored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from calibrate.fitting.examples import Examples, cross_entropy
from calibrate.fitting.gradient_descent import Floats
from edge.labels import DIMENSION_CLASSES, DIMENSIONS
from edge.model.head import Head

INNER_LR: Final = 0.01
"""alpha, as in training."""

TRANSFER_LR: Final = 0.01
"""beta, as in training."""

TUNING_STEPS: Final = 100
"""Steps of each equation. The paper takes up to 300 epochs."""


def fit_dimensions(generic: Head, examples: Examples) -> Head:
    """Tune FC 1 and FC 2 on the dimensions, then FC 3 on the emotions.

    theta' = theta - alpha grad_theta (1/k) sum_j L_j(theta)      Cai et al. 2020, eq. 4
    phi'   = phi - beta grad_phi L(theta', phi)                   eq. 5, theta' fixed
    """
    meta = [generic.fc1_weight, generic.fc1_bias, generic.fc2_weight, generic.fc2_bias]
    theta = [array.astype(np.float64) for array in meta]
    embeddings = examples.inputs[:, : generic.input_size].astype(np.float64)
    for _ in range(TUNING_STEPS):
        slopes = dimensions_gradient(theta, embeddings, examples)[1]
        theta = [weight - INNER_LR * slope for weight, slope in zip(theta, slopes, strict=True)]
    fc1, fc1_bias, fc2, fc2_bias = (weight.astype(np.float32) for weight in theta)
    tuned = replace(generic, fc1_weight=fc1, fc1_bias=fc1_bias, fc2_weight=fc2, fc2_bias=fc2_bias)
    return _transferred(tuned, examples)


def has_dimensions(head: Head) -> bool:
    """Tell whether FC 2's outputs are the classes of the three dimensions: shared as in the paper, or not."""
    return len(head.fc2_bias) in (DIMENSION_CLASSES, len(DIMENSIONS) * DIMENSION_CLASSES)


def dimensions_gradient(
    theta: list[Floats], embeddings: Floats, examples: Examples
) -> tuple[float, list[Floats]]:
    """Return the mean of the auxiliary losses at theta, and its gradient.

    Args:
        theta: FC 1's weight and bias, FC 2's weight and bias.
        embeddings: (M, D).
        examples: the classes and weights of the windows.
    """
    fc1_weight, fc1_bias, fc2_weight, fc2_bias = theta
    before = embeddings @ fc1_weight.T + fc1_bias
    hidden = np.maximum(before, 0.0)
    logits = hidden @ fc2_weight.T + fc2_bias
    losses, error = [], np.zeros_like(logits)
    for part, labels in zip(_outputs_of_dimensions(len(fc2_bias)), examples.dimensions.T, strict=True):
        loss, slope = cross_entropy(logits[:, part], labels, examples.weights)
        losses.append(loss)
        error[:, part] += slope / len(DIMENSIONS)
    back = (error @ fc2_weight) * (before > 0.0)
    slopes = [back.T @ embeddings, back.sum(axis=0), error.T @ hidden, error.sum(axis=0)]
    return float(np.mean(losses)), slopes


def _outputs_of_dimensions(count: int) -> list[slice]:
    """Return which of a number of outputs each dimension has."""
    if count == DIMENSION_CLASSES:
        return [slice(count)] * len(DIMENSIONS)
    starts = range(0, count, DIMENSION_CLASSES)
    return [slice(start, start + DIMENSION_CLASSES) for start in starts]


def _transferred(head: Head, examples: Examples) -> Head:
    """Take the steps of equation 5 on FC 3."""
    auxiliary = head.auxiliary_logits(examples.inputs).astype(np.float64)
    weight, bias = head.fc3_weight.astype(np.float64), head.fc3_bias.astype(np.float64)
    for _ in range(TUNING_STEPS):
        _, errors = cross_entropy(auxiliary @ weight.T + bias, examples.emotions, examples.weights)
        weight = weight - TRANSFER_LR * errors.T @ auxiliary
        bias = bias - TRANSFER_LR * errors.sum(axis=0)
    return replace(head, fc3_weight=weight.astype(np.float32), fc3_bias=bias.astype(np.float32))
