"""A whole-window graph instead of streaming graphs: for bundles that run by windows, and on TensorRT.

    frames -> "features": the frames that a feature covers -> a window's frames -> whole-window graph

The recogniser, its windows and their times are the same; only the content of a feature differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge.arrays import Array
from edge.errors import EngineError
from edge.inference.engine import ASKED_FOR, EncoderState, WindowEngine
from edge.model.bundle import Bundle

WindowGraph = Callable[[Array], tuple[Array, Array]]
"""Maps (B, T, F) normalised frames to (B, D) embeddings and (B, C) generic logits."""


class WindowwiseEngine:
    """Runs a whole-window graph as if it streamed. Several threads may use it at once.

    A graph on another device is given full windows only. A shorter one, at the end of a short utterance or
    of the stream, runs through the same graph on the CPU. After a failure of the given graph, all windows run
    on the CPU, the failed one included: none is lost.

    Remembers whether the given graph has failed; the state of a stream is an argument and a result.
    """

    def __init__(
        self,
        bundle: Bundle,
        window: WindowGraph | None = None,
        *,
        provider: str,
        reason: str = ASKED_FOR,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Load both graphs, so that a later failure needs no file.

        Args:
            bundle: a checked bundle.
            window: runs any number of full windows; an EngineError means that it cannot continue. None: the
                CPU runs all windows.
            provider: that `window` runs on.
            reason: why it was chosen.
            close: releases the resources of `window`.
        """
        graphs, self.bins = bundle.manifest.graphs, bundle.manifest.front_end.frame_size
        self.graphs = replace(graphs, feature_size=graphs.frames_for_first * self.bins)
        self.frames = graphs.frames_in(graphs.window_features)
        """T of a full window."""
        self.provider = provider
        self.reason = reason
        self.close = close
        self._on_cpu = WindowEngine(bundle)
        self.window = window or self._on_cpu
        self._lost = window is None

    def initial_state(self, streams: int = 1) -> EncoderState:
        """Return the state of new streams: the zero frames before the first feature."""
        kept = self.graphs.frames_for_first - self.graphs.frames_per_feature
        return EncoderState((np.zeros((streams, kept, self.bins), np.float32),))

    def encode(self, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        """Gather the frames of each new feature.

        Args:
            frames: (B, T, F) normalised, T a multiple of `graphs.frames_per_feature`.
            state: the frames before them that a feature covers too, (B, K, F).

        Returns:
            (B, T / frames_per_feature, frames_for_first * F) features, and the new state.
        """
        (before,) = state.maps
        joined = np.concatenate([before, frames], axis=1)
        covered = self.graphs.frames_for_first
        starts = range(0, frames.shape[1], self.graphs.frames_per_feature)
        features = np.stack([joined[:, start : start + covered] for start in starts], axis=1)
        return (
            features.reshape(len(frames), len(starts), -1),
            EncoderState((joined[:, frames.shape[1] :].copy(),)),
        )

    def classify(self, windows: Array) -> Array:
        """Summarise (B, S, P) windows of features as (B, D) embeddings."""
        frames = self._frames(windows)
        if frames.shape[1] == self.frames and not self._lost:
            try:
                return self.window(frames)[0]
            except EngineError as error:
                self._lost, self.reason = True, str(error)
                self.provider = "cpu"  # after the reason, for readers in other threads
        return self._on_cpu(frames)[0]

    def _frames(self, windows: Array) -> Array:
        """Restore the (B, T, F) frames of windows from their overlapping features."""
        step, bins = self.graphs.frames_per_feature, self.bins
        first = windows[:, 0].reshape(len(windows), -1, bins)
        new = windows[:, 1:, -step * bins :].reshape(len(windows), -1, bins)
        return np.concatenate([first, new], axis=1)
