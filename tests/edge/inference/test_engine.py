from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.arrays import Array
from edge.errors import BundleError, EngineError, UsageError
from edge.inference import engine as engine_module
from edge.inference.engine import EncoderState, Engine, WindowEngine, choose_provider
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import CLASSIFIER, ENCODER, read_manifest, write_manifest
from tests.tolerances import float32_tolerance, largest, network_terms


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, "cpu")


def frames(count: int, streams: int = 1, seed: int = 0) -> Array:
    shape = (streams, count, 200)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def encoded(engine: Engine, given: Array, *sizes: int) -> Array:
    state, pieces, done = engine.initial_state(len(given)), [], 0
    for size in sizes:
        features, state = engine.encode(given[:, done : done + size], state)
        pieces.append(features)
        done += size
    return np.concatenate(pieces, axis=1)


def test_encoding_step_by_step_equals_encoding_at_once(engine: Engine, bundle: Bundle) -> None:
    given = frames(96)
    at_once = encoded(engine, given, 96)
    assert at_once.shape == (1, 12, engine.graphs.feature_size)
    tolerance = float32_tolerance(network_terms(bundle), largest(at_once))
    for sizes in ([8] * 12, [40, 8, 48]):
        np.testing.assert_allclose(encoded(engine, given, *sizes), at_once, rtol=0, atol=tolerance)


def test_the_state_handed_in_is_left_alone(engine: Engine) -> None:
    state = engine.initial_state()
    engine.encode(frames(16), state)
    assert all((maps == 0).all() for maps in state.maps)


def test_the_state_has_the_shapes_of_the_manifest(engine: Engine) -> None:
    _, state = engine.encode(frames(8, streams=3), engine.initial_state(3))
    assert isinstance(state, EncoderState)
    assert [maps.shape for maps in state.maps] == [(3, *shape) for shape in engine.graphs.state_shapes]


def test_streams_side_by_side_do_not_touch_each_other(engine: Engine, bundle: Bundle) -> None:
    given = frames(48, streams=2)
    together = encoded(engine, given, 24, 24)
    tolerance = float32_tolerance(network_terms(bundle), largest(together))
    for stream in range(2):
        alone = encoded(engine, given[stream : stream + 1], 24, 24)
        np.testing.assert_allclose(together[stream : stream + 1], alone, rtol=0, atol=tolerance)


def test_windows_classified_together_equal_windows_alone(engine: Engine, bundle: Bundle) -> None:
    windows = np.random.default_rng(0).standard_normal((3, 32, 128)).astype(np.float32)
    together = engine.classify(windows)
    assert together.shape == (3, engine.graphs.embedding_size)
    tolerance = float32_tolerance(network_terms(bundle, steps=32), largest(together))
    for index in range(3):
        alone = engine.classify(windows[index : index + 1])[0]
        np.testing.assert_allclose(together[index], alone, rtol=0, atol=tolerance)


def test_encoder_and_classifier_make_the_window_graph(engine: Engine, bundle: Bundle) -> None:
    given = frames(297)
    ahead = np.zeros((1, 7, 200), np.float32)
    features, _ = engine.encode(np.concatenate([ahead, given], axis=1), engine.initial_state())
    embedding, logits = WindowEngine(bundle)(given)
    tolerance = float32_tolerance(network_terms(bundle, steps=32), largest(embedding))
    np.testing.assert_allclose(engine.classify(features[:, 6:]), embedding, rtol=0, atol=tolerance)
    assert logits.shape == (1, 4)


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "tensorrt"])
def test_an_unknown_provider_is_a_usage_error_that_lists_them(bundle: Bundle, name: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu or cuda"):
        Engine(bundle, name)


def with_providers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def test_a_provider_that_is_not_built_in_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with_providers(monkeypatch, "CPUExecutionProvider")
    with pytest.raises(EngineError, match="--provider cpu"):
        choose_provider("cuda")
    assert choose_provider("auto") == "cpu"


def test_auto_prefers_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    with_providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    assert choose_provider("auto") == "cuda"
    assert choose_provider("cpu") == "cpu"


def test_auto_falls_back_where_the_driver_is_missing(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    with_providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    open_session = engine_module._session

    def without_driver(bundle: Bundle, name: str, provider: str, threads: int) -> Any:
        if provider == "cuda":
            raise EngineError("no driver")
        return open_session(bundle, name, provider, threads)

    monkeypatch.setattr(engine_module, "_session", without_driver)
    assert Engine(bundle).provider == "cpu"
    with pytest.raises(EngineError, match="no driver"):
        Engine(bundle, "cuda")


class LostGpu:
    """ONNX Runtime's own session, which fails as it does when the GPU is lost."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> None:
        from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

        raise EPFail("CUDA failure 700: an illegal memory access")


def with_a_gpu_that_fails(monkeypatch: pytest.MonkeyPatch, at: str) -> list[Any]:
    """Let ONNX Runtime have CUDA, which fails at "open" or "run"; return the providers it was asked for."""
    import onnxruntime

    asked: list[Any] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def _create_inference_session(self, providers: Any, *_: Any) -> None:
            on_cuda = "CUDA" in str(providers)
            if on_cuda:
                asked.extend(providers)
            if on_cuda and at == "open":
                self._fallback_providers = ["CPUExecutionProvider"]
                raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected\nat line 1")
            super()._create_inference_session(["CPUExecutionProvider"], None)
            if on_cuda:
                self._providers = ["CUDAExecutionProvider"]
                self._sess: Any = LostGpu(self._sess)

    with_providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return asked


def test_tf32_is_off_on_cuda(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    asked = with_a_gpu_that_fails(monkeypatch, at="run")
    Engine(bundle, "cuda")
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"})] * 2


def test_a_gpu_that_is_lost_is_noticed_and_onnxruntime_keeps_silent(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    with_a_gpu_that_fails(monkeypatch, at="run")
    lost = Engine(bundle, "cuda")
    assert lost.provider == "cuda"
    given = frames(96)
    np.testing.assert_array_equal(encoded(lost, given, 48, 48), encoded(engine, given, 48, 48))
    assert (lost.provider, lost.reason) == ("cpu", "CUDA failure 700: an illegal memory access")
    assert capfd.readouterr() == ("", "")


def test_a_gpu_that_cannot_be_opened_is_an_engine_error_and_onnxruntime_keeps_silent(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    with_a_gpu_that_fails(monkeypatch, at="open")
    with pytest.raises(EngineError, match=r"\(CUDA failure 100: .*\): use --provider cpu"):
        Engine(bundle, "cuda")
    assert Engine(bundle).provider == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [ENCODER, CLASSIFIER])
def test_a_graph_that_cannot_be_loaded_is_a_bundle_error_in_one_line(bundle_folder: Path, name: str) -> None:
    manifest = read_manifest(bundle_folder)
    (bundle_folder / name).write_bytes(b"not a graph\n\x08")
    write_manifest(bundle_folder, manifest)
    with pytest.raises(BundleError, match=name) as caught:
        Engine(load_bundle(bundle_folder), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state_shapes", ((1, 11, 200), (16, 7, 100))),
        ("state_shapes", ((1, 11, 200), (16, 8, 100), (24, 4, 50))),
        ("feature_size", 64),
        ("embedding_size", 64),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(
    bundle: Bundle, key: str, value: object
) -> None:
    graphs = replace(bundle.manifest.graphs, **{key: value})  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="export the model again"):
        Engine(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)), "cpu")
