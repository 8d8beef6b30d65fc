"""The last layers, in NumPy: embedding to emotion probabilities. A speaker's profile replaces them.

A bundle's head reads the embedding only; a speaker's may read the long-term spectrum too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final

import numpy as np

from edge.arrays import Array
from edge.bounds import tensor
from edge.errors import ModelError

MOST_WEIGHT: Final = 1e4
"""Largest magnitude of a weight or bias: training gives less than 10; three layers of this stay finite."""
TEMPERATURES: Final = (0.01, 100.0)


@dataclass(frozen=True)
class Head:
    """FC 1 and FC 2 of the meta learner, FC 3 of the transfer learner (Cai et al. 2020, Table 1).

    Weights are (outputs, inputs), biases (outputs,), all float32.
    """

    fc1_weight: Array
    fc1_bias: Array
    fc2_weight: Array
    fc2_bias: Array
    fc3_weight: Array
    fc3_bias: Array
    temperature: float = 1.0
    """Divides the logits before the softmax; > 0."""

    @property
    def input_size(self) -> int:
        """Number of values that the head reads of each window."""
        return int(self.fc1_weight.shape[1])

    def hidden(self, inputs: Array) -> Array:
        """Map (B, X), X >= `input_size`, to the (B, H) outputs of FC 1; further values are ignored."""
        outputs: Array = np.maximum(inputs[:, : self.input_size] @ self.fc1_weight.T + self.fc1_bias, 0.0)
        return outputs

    def auxiliary_logits(self, inputs: Array) -> Array:
        """Map (B, X) to the (B, A) logits of the auxiliary classes."""
        logits: Array = self.hidden(inputs) @ self.fc2_weight.T + self.fc2_bias
        return logits

    def logits(self, inputs: Array) -> Array:
        """Map (B, X) to (B, C) emotion logits."""
        logits: Array = self.auxiliary_logits(inputs) @ self.fc3_weight.T + self.fc3_bias
        return logits

    def probs(self, inputs: Array) -> Array:
        """Map (B, X) to (B, C) probabilities that sum to 1."""
        return softmax(self.logits(inputs) / np.float32(self.temperature))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, as they are stored."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        temperature = np.array([self.temperature], np.float32)
        return {f"head.{name}": value for name, value in (arrays | {"temperature": temperature}).items()}

    @staticmethod
    def from_tensors(tensors: dict[str, Array]) -> Head:
        """Read what `tensors` wrote.

        Raises:
            ModelError: a tensor is missing or has another type, the shapes do not match, or a number is
                out of range. The caller adds the file and the remedy.
        """
        layers = {
            f"{name}_{kind}": tensor(tensors, f"head.{name}_{kind}", ndim, -MOST_WEIGHT, MOST_WEIGHT)
            for name in ("fc1", "fc2", "fc3")
            for kind, ndim in (("weight", 2), ("bias", 1))
        }
        temperature = tensor(tensors, "head.temperature", 1, *TEMPERATURES)
        if temperature.size != 1:
            raise ModelError(f"the head has {temperature.size} temperatures, expected one")
        head = Head(**layers, temperature=temperature.item())
        head._check()
        return head

    def _check(self) -> None:
        layers = [
            (self.fc1_weight, self.fc1_bias),
            (self.fc2_weight, self.fc2_bias),
            (self.fc3_weight, self.fc3_bias),
        ]
        if any(len(weight) != len(bias) for weight, bias in layers):
            raise ModelError("the head's weights and biases do not fit together")
        if any(below.shape[0] != above.shape[1] for (below, _), (above, _) in pairwise(layers)):
            raise ModelError("the head's layers do not fit together")


def softmax(logits: Array) -> Array:
    """Turn (..., C) logits into probabilities."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probs
