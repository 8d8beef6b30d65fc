"""Windows of features to posteriors: the bundle's classifier, then the head of the bundle or of a speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.arrays import Array
from edge.inference.engine import EngineLike
from edge.model.head import Head
from edge.recognition.window_buffer import WindowBuffer


@dataclass(frozen=True)
class ClassifiedWindow:
    """A window between the classifier and its event."""

    end: int
    """Number of the feature after its last."""
    inputs: Array
    """(X,) what the head reads: the embedding, and the long-term spectrum for some profiles."""
    probs: Array
    """(C,)."""


class WindowClassifier:
    """Classifies windows that are complete. Remembers nothing."""

    def __init__(self, engine: EngineLike, head: Head) -> None:
        self._engine = engine
        self._head = head
        self.spectrum_size = head.input_size - engine.graphs.embedding_size
        """Values of the long-term spectrum that the head reads behind the embedding; 0 for none."""

    def classify(self, recent: WindowBuffer, ends: Sequence[int]) -> list[ClassifiedWindow]:
        """Classify windows of one length together.

        Args:
            recent: holds them.
            ends: number of the feature after the last of each.
        """
        if not ends:
            return []
        inputs = self._engine.classify(recent.features(ends))
        if self.spectrum_size:
            inputs = np.concatenate([inputs, recent.spectra(ends)], axis=1)
        probs = self._head.probs(inputs)
        return [ClassifiedWindow(*window) for window in zip(ends, inputs, probs, strict=True)]
