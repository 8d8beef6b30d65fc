"""The speaker's baseline: how the speaker's embeddings are usually, of recordings or while listening."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.arrays import Array
from edge.model.manifest import BaselineConfig

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SpeakerLevel:
    """Shrunken mean and standard deviation of a speaker's embeddings; each (D,), float32.

    b = sum of w_i e_i / (W + k)    s^2 = (k + sum of w_i (e_i - b)^2) / (W + k)

    e_i are the embeddings of the windows heard, w_i their weights, W the sum of these and k = `prior_windows`
    the weight of the training speakers, whose mean is 0 and whose deviation is 1.
    """

    mean: Array
    """b."""
    deviation: Array | None
    """s, > 0; None where `BaselineConfig.scaled` is off."""


class SpeakerBaseline:
    """Estimates the level of the current speaker, without labels, by the equations of `SpeakerLevel`.

    Over the full windows of speech that ended before the current window began, so that a window is never
    compared with its own sound. Windows overlap: each weighs its new share, step / window. When the sum of
    the weights reaches `memory_windows`, older windows fade, so that another speaker replaces the first one.

    Remembers weighted sums and the windows that may overlap the next one; `reset` forgets them.
    """

    def __init__(
        self, size: int, config: BaselineConfig, *, step_features: int, window_features: int
    ) -> None:
        """Prepare a stream.

        Args:
            size: D, of an embedding.
            config: weights of the training speakers and of the past.
            step_features: features from one window to the next.
            window_features: features of a full window.
        """
        self._size, self._config, self._window_features = size, config, window_features
        self._share = step_features / window_features
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._sum = np.zeros(self._size, np.float64)
        self._squares = np.zeros(self._size, np.float64)
        self._weight = 0.0
        self._recent: deque[tuple[int, Array]] = deque()

    def add(self, end: int, embedding: Array) -> None:
        """Take the (D,) embedding of a full window of speech; windows come in order of their ends."""
        self._recent.append((end, embedding))

    def before(self, end: int) -> SpeakerLevel:
        """Return the level for the window that ends with a feature; ends never decrease."""
        while self._recent and self._recent[0][0] <= end - self._window_features:
            self._include(self._recent.popleft()[1])
        return _shrunken(
            self._sum,
            self._squares if self._config.scaled else None,
            self._weight,
            self._config.prior_windows,
        )

    def _include(self, embedding: Array) -> None:
        kept = min(self._weight, max(0.0, self._config.memory_windows - self._share))
        if self._weight > 0.0:
            self._sum *= kept / self._weight
            self._squares *= kept / self._weight
        self._sum += self._share * embedding
        self._squares += self._share * np.square(embedding, dtype=np.float64)
        self._weight = kept + self._share


def window_weights(weights: Sequence[float], windows: Sequence[int]) -> Floats:
    """Share the weight of each recording evenly among its windows: (N,) for the windows of all.

    Args:
        weights: of each recording.
        windows: number of windows of each, > 0.
    """
    counts = np.asarray(windows, np.int64)
    shares: Floats = np.repeat(np.asarray(weights, np.float64) / counts, counts)
    return shares


def recorded_level(windows: Array, weights: Floats, config: BaselineConfig) -> SpeakerLevel:
    """Return the level of a speaker from windows of recordings.

    Args:
        windows: (N, D) embeddings; there may be none.
        weights: (N,) of each, > 0, in windows without overlap.
        config: weight of the training speakers, and whether there is a deviation.
    """
    squares = weights @ np.square(windows, dtype=np.float64) if config.scaled else None
    return _shrunken(weights @ windows, squares, float(weights.sum()), config.prior_windows)


def _shrunken(total: Floats, squares: Floats | None, weight: float, prior: float) -> SpeakerLevel:
    """Return the level for the (D,) weighted sums of embeddings, and of their squares, in float64."""
    whole = weight + prior
    mean = total / whole
    if squares is None:
        return SpeakerLevel(mean.astype(np.float32), None)
    spread = np.maximum(squares - 2.0 * mean * total + weight * mean**2, 0.0)  # not negative by rounding
    deviation = np.sqrt((prior + spread) / whole)
    return SpeakerLevel(mean.astype(np.float32), deviation.astype(np.float32))
