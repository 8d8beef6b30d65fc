"""Deterministic gradient descent with backtracking line search, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
"""Loss at a point, and its gradient."""

STEPS: Final = 200
"""Maximum number of steps."""


def descend(objective: Objective, start: Floats) -> Floats:
    """Minimise by gradient descent with backtracking line search (Armijo's condition with factor 0.5).

    The step is halved until the loss falls enough, and doubled for the next iteration. Ends after `STEPS`
    steps, or where the gradient vanishes or no step lowers the loss.

    Args:
        objective: smooth and bounded below.
        start: the initial point.
    """
    point, (loss, slope) = start, objective(start)
    step = 1.0 / max(1.0, float(np.linalg.norm(slope)))
    for _ in range(STEPS):
        steepness = float(slope @ slope)
        if steepness < 1e-12:
            break
        ahead = point - step * slope
        ahead_loss, ahead_slope = objective(ahead)
        while not ahead_loss <= loss - 0.5 * step * steepness and step > 1e-12:
            step *= 0.5
            ahead = point - step * slope
            ahead_loss, ahead_slope = objective(ahead)
        if not ahead_loss < loss:
            break
        point, loss, slope, step = ahead, ahead_loss, ahead_slope, 2.0 * step
    return point
