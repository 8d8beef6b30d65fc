"""The graphs of a bundle, run by ONNX Runtime: the encoder step by step, the classifier by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edge.bundle import CLASSIFIER, ENCODER, WINDOW, Bundle
from edge.errors import BundleError, EngineError
from edge.frontend import Array

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class EncoderState:
    """The frames that each convolution still needs: (1, channels, frames, bins) each."""

    maps: tuple[Array, ...]


class Engine:
    """Runs a bundle's graphs. Remembers nothing: the state of a stream is passed in and handed back."""

    def __init__(self, bundle: Bundle, provider: str = "auto", threads: int = 1) -> None:
        """Load the graphs.

        Args:
            bundle: a checked bundle.
            provider: "auto", "cpu" or "cuda".
            threads: for one operator, >= 1.

        Raises:
            EngineError: the provider is unknown or not to be had.
            BundleError: a graph cannot be loaded or has other inputs than the manifest says.
        """
        self.graphs = bundle.manifest.graphs
        self.bins = bundle.manifest.front_end.bins
        self.provider = choose_provider(provider)
        self._encoder = _session(bundle, ENCODER, self.provider, threads)
        self._classifier = _session(bundle, CLASSIFIER, self.provider, threads)
        expected = ["frames", *(f"state_{index}" for index in range(len(self.graphs.state_shapes)))]
        found = [item.name for item in self._encoder.get_inputs()]
        if found != expected:
            raise BundleError(
                f"the encoder of {bundle.folder} takes {found}, not {expected}: export it again"
            )

    def initial_state(self, streams: int = 1) -> EncoderState:
        """Return the state of streams that have heard nothing."""
        return EncoderState(
            tuple(np.zeros((streams, *shape), np.float32) for shape in self.graphs.state_shapes)
        )

    def encode(self, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        """Encode the next frames.

        Args:
            frames: (B, T, F) normalised, T a multiple of `graphs.frames_per_feature`.
            state: what the streams remember.

        Returns:
            (B, T / frames_per_feature, P) features, and the new state.
        """
        inputs = {"frames": frames} | {f"state_{index}": maps for index, maps in enumerate(state.maps)}
        features, *maps = self._encoder.run(None, inputs)
        return features, EncoderState(tuple(maps))

    def classify(self, windows: Array) -> Array:
        """Summarise (B, S, P) windows of features as (B, D) embeddings."""
        (embedding,) = self._classifier.run(None, {"features": windows})
        result: Array = embedding
        return result


class WindowEngine:
    """The whole-window graph: what the streaming graphs are verified against."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self._session = _session(bundle, WINDOW, "cpu", threads)

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        """Map (B, T, F) normalised frames to (B, D) embeddings and (B, C) generic logits."""
        embedding, logits = self._session.run(None, {"frames": frames})
        return embedding, logits


def choose_provider(wanted: str) -> str:
    """Resolve "auto" to the fastest provider there is, and check any other.

    Raises:
        EngineError: the provider is unknown, or ONNX Runtime here was built without it.
    """
    import onnxruntime

    available = [name for name, long in PROVIDERS.items() if long in onnxruntime.get_available_providers()]
    if wanted == "auto":
        return "cuda" if "cuda" in available else "cpu"
    if wanted not in PROVIDERS:
        raise EngineError(f"there is no provider {wanted!r}: choose auto, {' or '.join(PROVIDERS)}")
    if wanted not in available:
        raise EngineError(
            f"ONNX Runtime here cannot use {wanted}: install onnxruntime-gpu, or use --provider cpu"
        )
    return wanted


def _session(bundle: Bundle, name: str, provider: str, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    path = bundle.graph(name)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS[provider]])
    except Exception as error:
        raise BundleError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from error
    if PROVIDERS[provider] not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime fell back from {provider} to the CPU: use --provider cpu, or mend its driver"
        )
    return session
