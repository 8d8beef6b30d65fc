"""The speaker's baseline: the shrunken mean of the speaker's embeddings, of recordings or while listening."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from edge.arrays import Array
from edge.model.bundle import BaselineConfig


class SpeakerBaseline:
    """Estimates the mean embedding of the current speaker, without labels.

    b = sum of w_i e_i / (sum of w_i + k), k = `prior_windows`

    over the full windows of speech that ended before the current window began, so that a window is never
    compared with its own sound. Windows overlap: each weighs its new share, step / window. When the sum of
    the weights reaches `memory_windows`, older windows fade, so that another speaker replaces the first one.

    Remembers the weighted sum and the windows that may overlap the next one; `reset` forgets them.
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
        self._weight = 0.0
        self._recent: deque[tuple[int, Array]] = deque()

    def add(self, end: int, embedding: Array) -> None:
        """Take the (D,) embedding of a full window of speech; windows come in order of their ends."""
        self._recent.append((end, embedding))

    def before(self, end: int) -> Array:
        """Return the (D,) baseline for the window that ends with a feature; ends never decrease."""
        while self._recent and self._recent[0][0] <= end - self._window_features:
            self._include(self._recent.popleft()[1])
        estimate: Array = (self._sum / (self._weight + self._config.prior_windows)).astype(np.float32)
        return estimate

    def _include(self, embedding: Array) -> None:
        kept = min(self._weight, max(0.0, self._config.memory_windows - self._share))
        if self._weight > 0.0:
            self._sum *= kept / self._weight
        self._sum += self._share * embedding
        self._weight = kept + self._share


def shrunken_baseline(means: Array, weights: Sequence[float], prior: float) -> Array:
    """Return the (D,) baseline: b = sum of w_i m_i / (sum of w_i + k).

    The mean of the training speakers' embeddings, with weight k, is 0.

    Args:
        means: (n, D) mean embedding of each recording.
        weights: w, > 0, in windows.
        prior: k, in windows.
    """
    shares = np.asarray(weights, np.float64)
    baseline: Array = (shares @ means / (shares.sum() + prior)).astype(np.float32)
    return baseline
