"""The last layers, in NumPy: embedding to emotion probabilities. A speaker's profile replaces them.

A bundle's head reads the embedding, and the speaker's baseline if it has weights for one; a speaker's has
the baseline in its first layer, and may read the long-term spectrum too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
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
    baseline_weight: Array | None = None
    """(H, D) weights of FC 1 for the speaker's baseline b, the shrunken mean of the speaker's embeddings;
    None for a head that reads none. FC 1 is trained on e and e - b, or on e and (e - b) / s with the
    speaker's deviation s: its weights for e are W1 + W2, the sum of both parts, those for b are -W2."""

    def for_baseline(self, baseline: Array, deviation: Array | None = None) -> Head:
        """Return the head of a speaker with a fixed level: FC 1 holds it, and none is read any more.

        W1 e + W2 (e - b) / s = (W1 + W2 / s) e - (W2 / s) b

        Args:
            baseline: (D,) b.
            deviation: (D,) s, > 0; None: 1, for a head that was trained on e - b.
        """
        if self.baseline_weight is None:
            return self
        if deviation is None:
            bias = self.fc1_bias + self.baseline_weight @ baseline
            return replace(self, fc1_bias=bias, baseline_weight=None)
        scaled: Array = self.baseline_weight / deviation
        return replace(
            self,
            fc1_weight=self.fc1_weight + (self.baseline_weight - scaled),
            fc1_bias=self.fc1_bias + scaled @ baseline,
            baseline_weight=None,
        )

    @property
    def input_size(self) -> int:
        """Number of values that the head reads of each window."""
        return int(self.fc1_weight.shape[1])

    def hidden(self, inputs: Array, baseline: Array | None = None, deviation: Array | None = None) -> Array:
        """Map (B, X), X >= `input_size`, to the (B, H) outputs of FC 1; further values are ignored.

        Of the head for a speaker's level, without making its weights, since a level changes from window to
        window: W1 e + W2 r = (W1 + W2) e - W2 (e - r) with r = (e - b) / s.

        Args:
            inputs: embeddings, and the long-term spectrum for some profiles.
            baseline: (D,) b; None: that of the training speakers, or the one in the weights.
            deviation: (D,) s, > 0; None: 1.
        """
        read = inputs[:, : self.input_size]
        outputs: Array = read @ self.fc1_weight.T + self.fc1_bias
        if baseline is not None and self.baseline_weight is not None:
            moved = baseline if deviation is None else read - (read - baseline) / deviation
            outputs += moved @ self.baseline_weight.T
        return np.maximum(outputs, 0.0)

    def auxiliary_logits(self, inputs: Array) -> Array:
        """Map (B, X) to the (B, A) logits of the auxiliary classes."""
        return self._auxiliary(self.hidden(inputs))

    def logits(self, inputs: Array) -> Array:
        """Map (B, X) to (B, C) emotion logits."""
        return self._emotions(self.hidden(inputs))

    def probs(self, inputs: Array, baseline: Array | None = None, deviation: Array | None = None) -> Array:
        """Map (B, X) to (B, C) probabilities that sum to 1, for a speaker's level as in `hidden`."""
        logits = self._emotions(self.hidden(inputs, baseline, deviation))
        return softmax(logits / np.float32(self.temperature))

    def _auxiliary(self, hidden: Array) -> Array:
        logits: Array = hidden @ self.fc2_weight.T + self.fc2_bias
        return logits

    def _emotions(self, hidden: Array) -> Array:
        logits: Array = self._auxiliary(hidden) @ self.fc3_weight.T + self.fc3_bias
        return logits

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, as they are stored."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays["temperature"] = np.array([self.temperature], np.float32)
        return {f"head.{name}": value for name, value in arrays.items() if value is not None}

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
        baseline = None
        if "head.baseline_weight" in tensors:
            baseline = tensor(tensors, "head.baseline_weight", 2, -MOST_WEIGHT, MOST_WEIGHT)
        head = Head(**layers, temperature=temperature.item(), baseline_weight=baseline)
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
        if self.baseline_weight is not None and self.baseline_weight.shape != self.fc1_weight.shape:
            raise ModelError("the head's weights for the baseline do not fit its first layer")


def softmax(logits: Array) -> Array:
    """Turn (..., C) logits into probabilities."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probs
