"""The last layers, in NumPy: embedding to emotion probabilities. A speaker's profile replaces these."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from edge.errors import ModelError
from edge.frontend import Array


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
    def embedding_size(self) -> int:
        """Length of the embedding it takes."""
        return int(self.fc1_weight.shape[1])

    def auxiliary_logits(self, embedding: Array) -> Array:
        """Map (B, D) to the (B, A) logits of the auxiliary classes."""
        hidden = np.maximum(embedding @ self.fc1_weight.T + self.fc1_bias, 0.0)
        logits: Array = hidden @ self.fc2_weight.T + self.fc2_bias
        return logits

    def logits(self, embedding: Array) -> Array:
        """Map (B, D) to (B, C) emotion logits."""
        logits: Array = self.auxiliary_logits(embedding) @ self.fc3_weight.T + self.fc3_bias
        return logits

    def probs(self, embedding: Array) -> Array:
        """Map (B, D) to (B, C) probabilities that sum to 1."""
        return softmax(self.logits(embedding) / np.float32(self.temperature))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, as they are stored."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        temperature = np.array([self.temperature], np.float32)
        return {f"head.{name}": value for name, value in (arrays | {"temperature": temperature}).items()}

    @staticmethod
    def from_tensors(tensors: dict[str, Array]) -> Head:
        """Read what `tensors` wrote.

        Raises:
            ModelError: a tensor is missing or the shapes do not fit together.
        """
        names = [field.name for field in fields(Head)]
        missing = [name for name in names if f"head.{name}" not in tensors]
        if missing:
            raise ModelError(f"the head has no {', '.join(missing)}: export the model again")
        arrays = {name: tensors[f"head.{name}"] for name in names}
        temperature = float(arrays.pop("temperature")[0])
        head = Head(**arrays, temperature=temperature)
        head._check()
        return head

    def with_temperature(self, temperature: float) -> Head:
        """Return the same head with another temperature."""
        return replace(self, temperature=temperature)

    def _check(self) -> None:
        layers = [
            (self.fc1_weight, self.fc1_bias),
            (self.fc2_weight, self.fc2_bias),
            (self.fc3_weight, self.fc3_bias),
        ]
        inputs = [weight.shape[1] for weight, _ in layers[1:]]
        outputs = [weight.shape[0] for weight, _ in layers]
        finite = all(np.isfinite(array).all() for layer in layers for array in layer)
        if inputs != outputs[:-1] or [len(bias) for _, bias in layers] != outputs:
            raise ModelError("the head's layers do not fit together: export the model again")
        if not finite or not 0.0 < self.temperature < 100.0:
            raise ModelError("the head holds numbers that are not usable: export the model again")


def softmax(logits: Array) -> Array:
    """Turn (..., C) logits into probabilities."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probs
