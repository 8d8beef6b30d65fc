"""Windows of features to posteriors: the bundle's network, then the head of the bundle or of a speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.arrays import Array
from edge.inference.engine import EngineLike
from edge.model.head import Head
from edge.model.manifest import BaselineConfig
from edge.recognition.speaker_baseline import SpeakerBaseline
from edge.recognition.window_buffer import WindowBuffer


@dataclass(frozen=True)
class EmbeddedWindow:
    """A window between the network and the head."""

    end: int
    """Number of the feature after its last."""
    inputs: Array
    """(X,) what the head reads: the embedding, and the long-term spectrum for some profiles."""


class WindowClassifier:
    """Classifies the windows of a stream.

    Remembers the speaker's baseline, if the head reads one; `reset` forgets it.
    """

    def __init__(
        self, engine: EngineLike, head: Head, baseline: BaselineConfig, *, step_features: int
    ) -> None:
        """Prepare a stream.

        Args:
            engine: runs the network.
            head: of the bundle or of a speaker.
            baseline: how it is estimated, for a head that reads it.
            step_features: features from one window to the next.
        """
        self._engine = engine
        self._head = head
        graphs = engine.graphs
        self.spectrum_size = head.input_size - graphs.embedding_size
        """Values of the long-term spectrum that the head reads behind the embedding; 0 for none."""
        self._baseline = None
        if head.baseline_weight is not None:
            self._baseline = SpeakerBaseline(
                graphs.embedding_size,
                baseline,
                step_features=step_features,
                window_features=graphs.window_features,
            )

    def reset(self) -> None:
        """Forget the stream."""
        if self._baseline:
            self._baseline.reset()

    def embed(self, recent: WindowBuffer, ends: Sequence[int]) -> list[EmbeddedWindow]:
        """Run the network on complete windows, all full ones together.

        Args:
            recent: holds them.
            ends: number of the feature after the last of each, in their order.
        """
        full = self._engine.graphs.window_features
        groups = [[end] for end in ends if end < full] + [[end for end in ends if end >= full]]
        return [window for group in groups if group for window in self._embed(recent, group)]

    def _embed(self, recent: WindowBuffer, ends: Sequence[int]) -> list[EmbeddedWindow]:
        """Run the network on windows of one length."""
        inputs = self._engine.classify(recent.features(ends))
        if self.spectrum_size:
            inputs = np.concatenate([inputs, recent.spectra(ends)], axis=1)
        return [EmbeddedWindow(*window) for window in zip(ends, inputs, strict=True)]

    def probs(self, window: EmbeddedWindow, *, speech: bool) -> Array:
        """Return the (C,) posterior of a window; windows come in the order of their ends.

        Args:
            window: complete.
            speech: whether it is mostly speech; full windows of speech enter the baseline of later ones.
        """
        inputs = window.inputs[None]
        if not self._baseline:
            own: Array = self._head.probs(inputs)[0]
            return own
        level = self._baseline.before(window.end)
        if speech and window.end >= self._engine.graphs.window_features:
            self._baseline.add(window.end, window.inputs)
        posterior: Array = self._head.probs(inputs, level.mean, level.deviation)[0]
        return posterior
