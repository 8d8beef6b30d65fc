"""How far apart two float32 computations of the same may lie, by their size and number of operations."""

from __future__ import annotations

from math import sqrt

import numpy as np
from safetensors.numpy import load_file

from edge.arrays import Array
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.manifest import WEIGHTS

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one rounding to float32."""

CERTAINTY = 6.0
"""Lambda: of 10^7 results that err independently, fewer than one errs by more than the bound."""


def float32_tolerance(terms: int, size: float) -> float:
    """Bound the difference of two float32 sums of the same n products, each summed in its own order.

    A sum rounds n times, each time by at most u of the partial sum s_k. Where these errors are independent,
    the sum errs by at most

        lambda sqrt(sum_k (u s_k)^2) <= lambda sqrt(n) u max_k |s_k|

    with probability 1 - 2 exp(-lambda^2 / 2): Hoeffding's inequality; see Higham and Mary 2019, "A new
    approach to probabilistic rounding error analysis". Two sums may err to opposite sides: twice that.
    The errors of layer upon layer add up in squares, so n counts the products of all of them.

    Args:
        terms: n, > 0.
        size: of the largest partial sum. For products of one sign that is their sum; for products of
            either sign it is about the largest of the results.
    """
    return 2.0 * CERTAINTY * sqrt(terms) * UNIT_ROUNDOFF * size


def largest(*values: object) -> float:
    """Return the largest absolute value in numbers and arrays."""
    return max(float(np.abs(np.asarray(value)).max()) for value in values)


def logits_tolerance(head: Head, inputs: Array) -> float:
    """Bound the difference of a head's logits; half of it, over the temperature, bounds probabilities'."""
    products = np.abs(head.auxiliary_logits(inputs)) @ np.abs(head.fc3_weight).T
    layers = (head.fc1_weight, head.fc2_weight, head.fc3_weight)
    return float32_tolerance(sum(weight.shape[1] for weight in layers), largest(products))


def network_terms(bundle: Bundle, steps: int = 1) -> int:
    """Count the products on a value's way through a bundle's network, the LSTM's once for each step."""
    weights = load_file(bundle.folder / WEIGHTS)
    return sum(
        array[0].size * (steps if ".lstm." in name else 1)
        for name, array in weights.items()
        if array.ndim > 1
    )
