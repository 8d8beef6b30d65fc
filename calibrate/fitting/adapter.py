"""An L2-regularised linear adapter that is added to the generic head.

    logits' / T = logits / T + A x,     x = [e / s_e, (v - c) / s_v, h / s_h, 1]

e is the embedding, v the long-term spectrum, c its mean over the session, and h the output of FC 1.
`fit_embedding_adapter` leaves v out. The part on h lets the emotions use all of FC 1 and not only the few
auxiliary logits; the part on e uses what FC 1 discards, and the part on v what the network discards. A = 0 is
the generic head, so the penalty keeps the fit near the generic meta and transfer learner. Differs: Cai et al.
2020, section 2.4, tune these two without a penalty.
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
"""lambda, chosen on validation speakers (`docs/calibration.md`).

It does not depend on the number of takes, because those of one session resemble one another.
"""

EMBEDDING_SCALE: Final = 0.3
"""s_e: about the root mean square of an embedding's values."""

STANDARDISED_SCALE: Final = 0.05
"""s_e of embeddings whose values have a deviation of 1; chosen on development speakers
(`docs/calibration.md`)."""

MEAN_SCALE: Final = 0.5
"""s_v of the spectrum's means, in nats; chosen with the next one (`docs/calibration.md`)."""

DEVIATION_SCALE: Final = 0.125
"""s_v of its deviations, in nats."""

HIDDEN_SCALE: Final = 0.42
"""s_h: about half the root mean square of FC 1's outputs, so their weights are penalised less."""


@dataclass(frozen=True)
class InputScaling:
    """Standardisation of the head's inputs to the layer's x."""

    offset: Floats
    """(X,): 0 for the embedding, c for the spectrum."""
    scale: Floats
    """(X,): s_e, then s_v."""

    @staticmethod
    def of(generic: Head, examples: Examples, embedding_scale: float = EMBEDDING_SCALE) -> InputScaling:
        """Centre on the session's mean spectrum, in which every emotion has the same weight."""
        size, values = generic.input_size, examples.inputs.shape[1]
        offset = examples.weights @ examples.inputs
        offset[:size] = 0.0
        spread = np.repeat([MEAN_SCALE, DEVIATION_SCALE], (values - size) // 2)
        return InputScaling(offset, np.concatenate([np.full(size, embedding_scale), spread]))

    def inputs(self, generic: Head, windows: Array) -> Floats:
        """Turn the (M, X) inputs of windows into the layer's (M, X + H + 1) x."""
        hidden = generic.hidden(windows) / HIDDEN_SCALE
        return np.concatenate(
            [(windows - self.offset) / self.scale, hidden, np.ones((len(windows), 1))], axis=1
        )


def fit_adapter(generic: Head, examples: Examples) -> Head:
    """Fit the layer and fold it into a head.

    min over A of sum_m w_m CE(softmax(z_m / T + A x_m)) + lambda |A|^2
    """
    return _fit(generic, examples, InputScaling.of(generic, examples))


def fit_embedding_adapter(generic: Head, examples: Examples) -> Head:
    """Fit the same layer without the spectrum, for standardised embeddings, and fold it into a head.

    These retain the timbre that the spectrum would add.
    """
    heard = replace(examples, inputs=examples.inputs[:, : generic.input_size])
    return _fit(generic, heard, InputScaling.of(generic, heard, STANDARDISED_SCALE))


def _fit(generic: Head, examples: Examples, scaling: InputScaling) -> Head:
    inputs = scaling.inputs(generic, examples.inputs)
    objective = adapter_objective(inputs, generic, examples, L2_PENALTY)
    fitted = descend(objective, np.zeros(len(generic.fc3_bias) * inputs.shape[1]))
    return with_adapter(generic, fitted.reshape(len(generic.fc3_bias), -1), scaling)


def adapter_objective(inputs: Floats, generic: Head, examples: Examples, l2_penalty: float) -> Objective:
    """Return the loss as a function of the flattened A.

    Args:
        inputs: (M, X + H + 1) x of the windows.
        generic: the head that the layer is added to.
        examples: the windows, their emotions and weights.
        l2_penalty: lambda, > 0.
    """
    generic_logits = generic.logits(examples.inputs).astype(np.float64) / generic.temperature

    def objective(point: Floats) -> tuple[float, Floats]:
        layer = point.reshape(generic_logits.shape[1], -1)
        loss, errors = cross_entropy(generic_logits + inputs @ layer.T, examples.emotions, examples.weights)
        return loss + l2_penalty * float(point @ point), (
            errors.T @ inputs
        ).ravel() + 2.0 * l2_penalty * point

    return objective


def with_adapter(generic: Head, layer: Floats, scaling: InputScaling) -> Head:
    """Fold a layer (C, X + H + 1) into a wider head of the ordinary form.

    The products y of A with e and v pass FC 1's ReLU as relu(y) - relu(-y); FC 2 gets one more output for
    each emotion, the sum of the products with h and of y, and FC 3 adds it to the emotion's logit.
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
