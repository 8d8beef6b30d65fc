"""A linear layer beside the head, pulled towards nothing: what one speaker does differently.

    logits' / T = logits / T + A x,     x = [e / s_e, (v - c) / s_v, h / s_h, 1]

e is the embedding, v the long-term spectrum, c its mean over the session, and h what FC 1 makes of e.
The part on h moves the map from FC 1 to the emotions off its path through the few auxiliary logits;
the part on e reaches what FC 1 left out, and the part on v what the network left out. A = 0 is the
generic head, so the pull is towards the generic meta and transfer learner (Cai et al. 2020, section
2.4, tune them without any pull).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from calibrate.fitting.examples import Examples, cross_entropy
from calibrate.fitting.gradient_descent import Floats, Objective, descend
from edge.arrays import Array
from edge.model.head import Head

L2_PENALTY: Final = 6.0
"""How hard the layer is pulled towards nothing: lambda.

Chosen on validation speakers, as `docs/calibration.md` says. It does not fall with the number of takes:
those of one session resemble one another.
"""

EMBEDDING_SCALE: Final = 0.3
"""s_e: about the root mean square of an embedding's values."""

MEAN_SCALE: Final = 0.5
"""s_v of the spectrum's means, in nats, chosen with the next as `docs/calibration.md` says."""

DEVIATION_SCALE: Final = 0.125
"""s_v of its deviations, in nats."""

HIDDEN_SCALE: Final = 0.42
"""s_h: about half that of FC 1's outputs, which are pulled less hard for it."""


@dataclass(frozen=True)
class Scaling:
    """How what a head may read becomes the layer's x."""

    offset: Floats
    """(X,): 0 for the embedding, c for the spectrum."""
    scale: Floats
    """(X,): s_e, then s_v."""

    @staticmethod
    def of(generic: Head, examples: Examples) -> Scaling:
        """Take the session's mean spectrum, the emotions counting alike."""
        size, values = generic.input_size, examples.inputs.shape[1]
        offset = examples.weights @ examples.inputs
        offset[:size] = 0.0
        spread = np.repeat([MEAN_SCALE, DEVIATION_SCALE], (values - size) // 2)
        return Scaling(offset, np.concatenate([np.full(size, EMBEDDING_SCALE), spread]))

    def inputs(self, generic: Head, heard: Array) -> Floats:
        """Turn (M, X) of windows into the layer's (M, X + H + 1) x."""
        hidden = generic.hidden(heard) / HIDDEN_SCALE
        return np.concatenate([(heard - self.offset) / self.scale, hidden, np.ones((len(heard), 1))], axis=1)


def fit_adapter(generic: Head, examples: Examples) -> Head:
    """Fit the layer and fold it into a head.

    min over A of sum_m w_m CE(softmax(z_m / T + A x_m)) + lambda |A|^2
    """
    scaling = Scaling.of(generic, examples)
    inputs = scaling.inputs(generic, examples.inputs)
    objective = adapter_objective(inputs, generic, examples, L2_PENALTY)
    fitted = descend(objective, np.zeros(len(generic.fc3_bias) * inputs.shape[1]))
    return with_adapter(generic, fitted.reshape(len(generic.fc3_bias), -1), scaling)


def adapter_objective(inputs: Floats, generic: Head, examples: Examples, pull: float) -> Objective:
    """Return the loss as a function of A's weights in a row.

    Args:
        inputs: x of the windows, a row each.
        generic: the head that the layer stands beside.
        examples: the windows, their emotions and weights.
        pull: lambda, > 0.
    """
    generic_logits = generic.logits(examples.inputs).astype(np.float64) / generic.temperature

    def objective(point: Floats) -> tuple[float, Floats]:
        layer = point.reshape(generic_logits.shape[1], -1)
        loss, errors = cross_entropy(generic_logits + inputs @ layer.T, examples.emotions, examples.weights)
        return loss + pull * float(point @ point), (errors.T @ inputs).ravel() + 2.0 * pull * point

    return objective


def with_adapter(generic: Head, layer: Floats, scaling: Scaling) -> Head:
    """Fold a layer (C, X + H + 1) into a head that is wider, and otherwise a head like any other.

    What A says of e and v passes FC 1's ReLU as relu(y) - relu(-y); FC 2 gets an output for each
    emotion that adds h and y, and FC 3 adds these to the emotions.
    """
    values, classes = len(scaling.scale), len(generic.fc3_bias)
    direct = layer[:, :values] / scaling.scale
    shift = -direct @ scaling.offset
    on_hidden, bias = layer[:, values:-1] / HIDDEN_SCALE, layer[:, -1]
    eye, past = np.eye(classes), np.zeros((len(generic.fc2_bias), 2 * classes))
    unread = np.zeros((len(generic.fc1_bias), values - generic.input_size))
    fc1 = np.block([[generic.fc1_weight, unread], [direct], [-direct]])
    fc1_bias = np.concatenate([generic.fc1_bias, shift, -shift])
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
