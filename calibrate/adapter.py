"""A linear layer beside the head, pulled towards nothing: what one speaker does differently.

    logits' / T = logits / T + A x,     x = [e / s_e, h / s_h, 1]

e is the embedding and h what FC 1 makes of it. The part on h moves the map from FC 1 to the emotions
off its path through the few auxiliary logits; the part on e reaches what FC 1 left out. A = 0 is the
generic head, so the pull is towards the generic meta and transfer learner (Cai et al. 2020, section
2.4, tune them without any pull).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from calibrate.descent import Floats, Objective, descend
from calibrate.examples import Examples, cross_entropy
from edge.head import Head

PULL: Final = 6.0
"""How hard the layer is pulled towards nothing: lambda.

Chosen on validation speakers, as `docs/calibration.md` says. It does not fall with the number of takes:
those of one session resemble one another.
"""

EMBEDDING_SCALE: Final = 0.3
"""s_e: about the root mean square of an embedding's values."""

HIDDEN_SCALE: Final = 0.42
"""s_h: about half that of FC 1's outputs, which are pulled less hard for it."""


def fit_adapter(generic: Head, examples: Examples) -> Head:
    """Fit the layer and fold it into a head.

    min over A of sum_m w_m CE(softmax(z_m / T + A x_m)) + lambda |A|^2
    """
    inputs = _inputs(generic, examples)
    objective = adapter_objective(inputs, generic, examples, PULL)
    fitted = descend(objective, np.zeros(len(generic.fc3_bias) * inputs.shape[1]))
    return with_adapter(generic, fitted.reshape(len(generic.fc3_bias), -1))


def adapter_objective(inputs: Floats, generic: Head, examples: Examples, pull: float) -> Objective:
    """Return the loss as a function of A's (C * X,) weights in a row.

    Args:
        inputs: (M, X) x of the windows.
        generic: the head that the layer stands beside.
        examples: embeddings, emotions and weights of the windows.
        pull: lambda, > 0.
    """
    generic_logits = generic.logits(examples.embeddings).astype(np.float64) / generic.temperature

    def objective(point: Floats) -> tuple[float, Floats]:
        layer = point.reshape(generic_logits.shape[1], -1)
        loss, errors = cross_entropy(generic_logits + inputs @ layer.T, examples.emotions, examples.weights)
        return loss + pull * float(point @ point), (errors.T @ inputs).ravel() + 2.0 * pull * point

    return objective


def with_adapter(generic: Head, layer: Floats) -> Head:
    """Fold a layer (C, X) into a head that is wider, and otherwise a head like any other.

    e passes FC 1's ReLU as relu(v) - relu(-v), v = A_e e / s_e; FC 2 gets an output for each emotion
    that adds h and v, and FC 3 adds these to the emotions.
    """
    size, classes = generic.embedding_size, len(generic.fc3_bias)
    on_embedding = layer[:, :size] / EMBEDDING_SCALE
    on_hidden, bias = layer[:, size:-1] / HIDDEN_SCALE, layer[:, -1]
    eye, past = np.eye(classes), np.zeros((len(generic.fc2_bias), 2 * classes))
    fc1 = np.concatenate([generic.fc1_weight, on_embedding, -on_embedding])
    fc1_bias = np.concatenate([generic.fc1_bias, np.zeros(2 * classes)])
    fc2 = np.block([[generic.fc2_weight, past], [on_hidden, eye, -eye]])
    fc2_bias = np.concatenate([generic.fc2_bias, bias])
    fc3 = np.concatenate([generic.fc3_weight, generic.temperature * eye], axis=1)
    return replace(
        generic,
        fc1_weight=fc1.astype(np.float32),
        fc1_bias=fc1_bias.astype(np.float32),
        fc2_weight=fc2.astype(np.float32),
        fc2_bias=fc2_bias.astype(np.float32),
        fc3_weight=fc3.astype(np.float32),
    )


def _inputs(head: Head, examples: Examples) -> Floats:
    """Return x: (M, D + H + 1)."""
    hidden = np.maximum(examples.embeddings @ head.fc1_weight.T + head.fc1_bias, 0.0)
    ones = np.ones((len(hidden), 1))
    return np.concatenate([examples.embeddings / EMBEDDING_SCALE, hidden / HIDDEN_SCALE, ones], axis=1)
