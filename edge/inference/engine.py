"""The graphs of a bundle, run by ONNX Runtime: the encoder step by step, the classifier by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from edge.arrays import Array
from edge.bounds import one_line
from edge.errors import BundleError, EngineError, UsageError
from edge.model.bundle import Bundle
from edge.model.manifest import CLASSIFIER, ENCODER, WINDOW, Graphs
from edge.onnx_session import session_options

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PROVIDER_OPTIONS: Final[dict[str, dict[str, str]]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
"""TF32 is on unless it is cleared, and FP32 then has ten bits."""
ASKED_FOR: Final = "asked for"
"""The reason for a provider that the user named."""


@dataclass(frozen=True)
class EncoderState:
    """What the encoder still needs of earlier sound, by the manifest's `state_shapes`.

    The frames that each convolution needs, (B, channels, frames, bins) each, or the hidden and the cell state
    of each recurrent layer, (B, units) each.
    """

    maps: tuple[Array, ...]


class EngineLike(Protocol):
    """Runs a model for the recogniser: frames to features as they arrive, then windows to embeddings.

    If the GPU fails during a stream, an engine repeats the computation on the CPU and stays there;
    `provider` and `reason` then say so.
    """

    graphs: Graphs
    """Sizes of inputs and outputs; `feature_size` is this engine's own."""
    bins: int
    provider: str
    reason: str
    """Why this provider."""

    def initial_state(self, streams: int = 1) -> EncoderState:
        """Return the state of new streams."""

    def encode(self, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        """Turn the next (B, T, F) frames into (B, T / frames_per_feature, P) features, and a new state."""

    def classify(self, windows: Array) -> Array:
        """Summarise (B, S, P) windows of features as (B, D) embeddings."""

    def close(self) -> None:
        """Release the device; a second call does nothing."""


class Engine:
    """Runs the graphs of an incremental or recurrent bundle.

    The state of a stream is an argument and a result.
    """

    def __init__(self, bundle: Bundle, provider: str = "auto", threads: int = 1) -> None:
        """Load the graphs.

        Args:
            bundle: a checked bundle.
            provider: "auto" (the fastest of ONNX Runtime's that works), "cpu" or "cuda".
            threads: for one operator, >= 1.

        Raises:
            UsageError: the provider is unknown.
            EngineError: the provider is not available here.
            BundleError: a graph cannot be loaded or is not what the manifest says.
        """
        self.graphs = bundle.manifest.graphs
        self.bins = bundle.manifest.front_end.frame_size
        maps = [f"state_{index}" for index in range(len(self.graphs.state_shapes))]
        self._encoder_inputs = ("frames", *maps)
        self._encoder_outputs = ("features", *(f"new_{name}" for name in maps))
        self.provider = choose_provider(provider)
        self.reason = ASKED_FOR if provider != "auto" else offered(self.provider)
        self._bundle, self._threads = bundle, threads
        try:
            self._open()
        except EngineError as error:
            if provider != "auto" or self.provider == "cpu":
                raise
            self._fall_back(error)
        self._check(bundle)

    def _open(self) -> None:
        names = (ENCODER, CLASSIFIER)
        self._sessions = {name: _session(self._bundle, name, self.provider, self._threads) for name in names}

    def _fall_back(self, error: Exception) -> None:
        """Continue on the CPU."""
        self.provider, self.reason = "cpu", " ".join(str(error).split())
        self._open()

    def _run(self, name: str, outputs: Sequence[str], inputs: dict[str, Array]) -> list[Array]:
        """Run a graph; if the GPU fails, run it again on the CPU."""
        try:
            results: list[Array] = self._sessions[name].run(outputs, inputs)
        except Exception as error:  # ONNX Runtime's errors have no other base
            if self.provider == "cpu":
                raise
            self._fall_back(error)
            results = self._sessions[name].run(outputs, inputs)
        return results

    def close(self) -> None:
        """Do nothing: ONNX Runtime releases a device by itself."""

    def _check(self, bundle: Bundle) -> None:
        """Compare the inputs and outputs, except batch and time, with the manifest."""
        features, states = self.graphs.feature_size, self.graphs.state_shapes
        maps = {f"state_{index}": shape for index, shape in enumerate(states)}
        expected: dict[str, tuple[_Sizes, _Sizes]] = {
            ENCODER: (
                {"frames": (self.bins,), **maps},
                {"features": (features,), **{f"new_{name}": shape for name, shape in maps.items()}},
            ),
            CLASSIFIER: ({"features": (features,)}, {"embedding": (self.graphs.embedding_size,)}),
        }
        for name, session in self._sessions.items():
            _require_sizes(bundle, name, session, expected[name])

    def initial_state(self, streams: int = 1) -> EncoderState:
        """Return the state of new streams."""
        return EncoderState(
            tuple(np.zeros((streams, *shape), np.float32) for shape in self.graphs.state_shapes)
        )

    def encode(self, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        """Encode the next frames.

        Args:
            frames: (B, T, F) normalised, T a multiple of `graphs.frames_per_feature`.
            state: of the streams.

        Returns:
            (B, T / frames_per_feature, P) features, and the new state.
        """
        inputs = dict(zip(self._encoder_inputs, (frames, *state.maps), strict=True))
        features, *maps = self._run(ENCODER, self._encoder_outputs, inputs)
        return features, EncoderState(tuple(maps))

    def classify(self, windows: Array) -> Array:
        """Summarise (B, S, P) windows of features as (B, D) embeddings."""
        (embedding,) = self._run(CLASSIFIER, ("embedding",), {"features": windows})
        return embedding


class WindowEngine:
    """The whole-window graph on ONNX Runtime, which the streaming graphs are verified against."""

    def __init__(self, bundle: Bundle, threads: int = 1, provider: str = "cpu") -> None:
        """Load the graph.

        Args:
            bundle: a checked bundle.
            threads: for one operator, >= 1.
            provider: one of `PROVIDERS` that is available.

        Raises:
            EngineError: the provider cannot be used.
            BundleError: the graph cannot be loaded, or is not what the manifest says.
        """
        self._session = _session(bundle, WINDOW, provider, threads)
        graphs, outputs = bundle.manifest.graphs, len(bundle.head.fc3_bias)
        expected: tuple[_Sizes, _Sizes] = (
            {"frames": (bundle.manifest.front_end.frame_size,)},
            {"embedding": (graphs.embedding_size,), "logits": (outputs,)},
        )
        _require_sizes(bundle, WINDOW, self._session, expected)

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        """Map (B, T, F) frames of the network's input to (B, D) embeddings and (B, C) generic logits.

        Raises:
            EngineError: the provider has failed.
        """
        try:
            embedding, logits = self._session.run(["embedding", "logits"], {"frames": frames})
        except Exception as error:  # ONNX Runtime's errors have no other base
            raise EngineError(
                f"ONNX Runtime failed ({one_line(error)})", remedy="use --provider cpu"
            ) from error
        return embedding, logits


_Sizes = dict[str, tuple[int, ...]]
"""Of inputs or outputs by name."""


def _require_sizes(
    bundle: Bundle, name: str, session: onnxruntime.InferenceSession, expected: tuple[_Sizes, _Sizes]
) -> None:
    found = (_fixed_sizes(session.get_inputs()), _fixed_sizes(session.get_outputs()))
    if found != expected:
        raise BundleError(
            f"{bundle.graph(name)} has the inputs and outputs {found}, the manifest says {expected}",
            remedy="export the model again",
        )


def _fixed_sizes(items: Sequence[Any]) -> _Sizes:
    """Return the fixed sizes of a graph's inputs or outputs, by name: those of batch and time vary."""
    return {item.name: tuple(size for size in item.shape if isinstance(size, int)) for item in items}


def offered(provider: str) -> str:
    """Say why "auto" is resolved to a provider."""
    return f"ONNX Runtime here has {'no CUDA' if provider == 'cpu' else 'CUDA'}"


def choose_provider(wanted: str) -> str:
    """Resolve "auto" to the fastest available provider, and check any other.

    Raises:
        UsageError: the provider is unknown.
        EngineError: ONNX Runtime here was built without it.
    """
    import onnxruntime

    available = [name for name, long in PROVIDERS.items() if long in onnxruntime.get_available_providers()]
    if wanted == "auto":
        return "cuda" if "cuda" in available else "cpu"
    if wanted not in PROVIDERS:
        raise UsageError(f"unknown provider {wanted!r}", remedy=f"choose auto, {' or '.join(PROVIDERS)}")
    if wanted not in available:
        raise EngineError(
            f"ONNX Runtime here cannot use {wanted}", remedy="install onnxruntime-gpu, or use --provider cpu"
        )
    return wanted


def _session(bundle: Bundle, name: str, provider: str, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    path = bundle.graph(name)
    try:  # ONNX Runtime's own fallback writes to stdout, where events go, and hides the lost GPU
        session = onnxruntime.InferenceSession(
            str(path),
            session_options(threads),
            providers=[(PROVIDERS[provider], PROVIDER_OPTIONS[provider])],
            enable_fallback=0,
        )
    except Exception as error:
        reason = str(error).splitlines()[0]
        if provider != "cpu":
            raise EngineError(
                f"ONNX Runtime cannot use {provider} ({reason})",
                remedy="use --provider cpu, or repair the driver",
            ) from error
        raise BundleError(
            f"ONNX Runtime cannot load {path} ({reason})", remedy="export the model again"
        ) from error
    if PROVIDERS[provider] not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime fell back from {provider} to the CPU",
            remedy="use --provider cpu, or repair the driver",
        )
    return session
