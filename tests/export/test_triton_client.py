"""The client that goes along with the Triton folder, against a stand-in for tritonclient.

The stand-in answers by ONNX Runtime from the very model that Triton would load, and refuses what Triton
refuses; that the real tritonclient has the names used is read from its source.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.events import EngineChange, Event, Window
from edge.model.bundle import load_bundle
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from export.parity import Checks
from export.server_files import client
from export.server_files.client import TritonWindow
from export.targets import ExportRequest, export_target
from export.trained_model import TrainedModel
from export.triton import LARGEST_BATCH, ONNX_MODEL
from tests.edge.streams import assert_same_events, recognised
from tests.tolerances import float32_tolerance, largest, network_terms
from tests.train.synthetic import tiny_checkpoint

TOLERANCE = 1e-4

assert_same = functools.partial(assert_same_events, tolerance=TOLERANCE)
SOUND = read_clip(demo_clip())


@dataclass
class Server:
    """What Triton would be doing."""

    folder: Path
    fails: Callable[[int], bool] = lambda call: False
    """Whether to fail, by the number of the request from 1."""
    calls: list[tuple[int, ...]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    closed: int = 0
    outputs: tuple[str, ...] = ("embedding", "logits")

    def __post_init__(self) -> None:
        path = self.folder / "models" / ONNX_MODEL / "1" / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(self, model: str, frames: Array) -> dict[str, Array]:
        self.calls.append(frames.shape)
        if self.fails(len(self.calls)):
            raise ConnectionResetError("connection reset by peer")
        if model != ONNX_MODEL or frames.shape[1:] != (297, 200) or len(frames) > LARGEST_BATCH:
            raise RuntimeError(f"[400] {model} does not take {frames.shape}")
        return dict(zip(self.outputs, self.session.run(list(self.outputs), {"frames": frames}), strict=True))


class InferInput:
    """Stands for tritonclient's."""

    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        self.declared = (name, tuple(shape), datatype)

    def set_data_from_numpy(self, input_tensor: Array) -> None:
        assert input_tensor.flags.c_contiguous
        assert self.declared == ("frames", input_tensor.shape, "FP32")
        assert input_tensor.dtype == np.float32
        self.frames = input_tensor


@dataclass
class Answer:
    """Stands for tritonclient's InferResult."""

    tensors: dict[str, Array]

    def as_numpy(self, name: str) -> Array | None:
        return self.tensors.get(name)


def stand_in(server: Server) -> ModuleType:
    """Return a tritonclient.http that leads to a server."""

    class InferenceServerClient:
        def __init__(self, url: str, connection_timeout: float, network_timeout: float) -> None:
            assert url == "localhost:8000"
            server.timeouts += [connection_timeout, network_timeout]

        def get_model_config(self, model_name: str) -> dict[str, Any]:
            if model_name != ONNX_MODEL:
                raise RuntimeError(f"[404] unknown model: {model_name}")
            return {"name": model_name, "max_batch_size": LARGEST_BATCH}

        def infer(self, model_name: str, inputs: Sequence[InferInput]) -> Answer:
            (frames,) = inputs
            return Answer(server.answer(model_name, frames.frames))

        def close(self) -> None:
            server.closed += 1

    module = ModuleType("tritonclient.http")
    vars(module).update(InferInput=InferInput, InferenceServerClient=InferenceServerClient)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "out"
    return export_target(TrainedModel(tiny_checkpoint()), ExportRequest("triton", out), Checks())


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    serving = Server(folder)
    parent = ModuleType("tritonclient")
    monkeypatch.setattr(parent, "http", stand_in(serving), raising=False)
    monkeypatch.setitem(sys.modules, "tritonclient", parent)
    monkeypatch.setitem(sys.modules, "tritonclient.http", parent.http)
    return serving


@pytest.fixture
def listener(server: Server) -> Iterator[Recognizer]:
    recognizer = client.recognizer(
        load_bundle(server.folder / "bundle"), TritonWindow("localhost:8000", ONNX_MODEL)
    )
    server.calls.clear()
    yield recognizer
    recognizer.engine.close()


@pytest.fixture(scope="module")
def plain(folder: Path) -> Recognizer:
    return Recognizer(load_bundle(folder / "bundle"), provider="cpu")


def changes(events: Sequence[Event]) -> list[EngineChange]:
    return [event for event in events if isinstance(event, EngineChange)]


# The same events


@pytest.mark.parametrize("sizes", [(1_600,), (123, 7_001, 160), (200_000,)])
def test_a_recognizer_on_triton_says_what_a_plain_one_says(
    listener: Recognizer, plain: Recognizer, server: Server, sizes: tuple[int, ...]
) -> None:
    assert_same(recognised(listener, SOUND, *sizes), recognised(plain, SOUND, 1_600))
    assert len(server.calls) > 3
    assert {shape[1:] for shape in server.calls} == {(297, 200)}


def test_the_events_that_are_compared_differ_among_each_other(plain: Recognizer) -> None:
    windows = [event for event in recognised(plain, SOUND, 1_600) if isinstance(event, Window)]
    spread = np.ptp([list(window.probs.values()) for window in windows], axis=0)
    assert spread.max() > 100 * TOLERANCE


def test_many_windows_at_once_are_sent_in_batches_that_the_server_takes(server: Server) -> None:
    bundle = load_bundle(server.folder / "bundle")
    window = TritonWindow("localhost:8000", ONNX_MODEL)
    frames = np.random.default_rng(0).standard_normal((2 * LARGEST_BATCH + 3, 297, 200)).astype(np.float32)
    embeddings, logits = window(frames)
    assert [shape[0] for shape in server.calls] == [LARGEST_BATCH, LARGEST_BATCH, 3]
    assert embeddings.shape == (len(frames), bundle.manifest.graphs.embedding_size)
    expected = server.session.run(["logits"], {"frames": frames})[0]
    terms = network_terms(bundle, steps=bundle.manifest.graphs.window_features)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=float32_tolerance(terms, largest(expected)))


def test_a_fine_step_and_large_blocks_say_the_same_too(server: Server) -> None:
    bundle, settings = load_bundle(server.folder / "bundle"), Settings(step_ms=80)
    on_triton = client.recognizer(bundle, TritonWindow("localhost:8000", ONNX_MODEL))
    fine = Recognizer(bundle, engine=on_triton.engine, settings=settings)
    assert_same(
        recognised(fine, SOUND, 200_000),
        recognised(Recognizer(bundle, provider="cpu", settings=settings), SOUND, 1_600),
    )
    assert max(shape[0] for shape in server.calls) == LARGEST_BATCH


# When the server fails


def test_a_request_that_fails_is_sent_again_and_nothing_is_noticed(
    listener: Recognizer, plain: Recognizer, server: Server
) -> None:
    server.fails = lambda call: call % 2 == 1  # each first attempt
    assert_same(recognised(listener, SOUND, 1_600), recognised(plain, SOUND, 1_600))
    assert listener.engine.provider == "triton"


def test_a_server_that_is_lost_costs_no_window_and_is_told_once(
    listener: Recognizer, plain: Recognizer, server: Server
) -> None:
    server.fails = lambda call: call > 5
    events = recognised(listener, SOUND, 1_600)
    (change,) = changes(events)
    assert change.provider == "cpu"
    assert "mmtl_window_onnx at localhost:8000 does not serve (connection reset by peer)" in change.reason
    assert_same([event for event in events if event is not change], recognised(plain, SOUND, 1_600))
    assert len(server.calls) == 7, "a lost server is asked twice and no more"


def test_twice_the_timeout_is_less_than_a_microphone_keeps(server: Server) -> None:
    TritonWindow("localhost:8000", ONNX_MODEL)
    assert max(server.timeouts) * 2 < 2.0


# On the command line


def run(server: Server, *arguments: str) -> int:
    return client.main(["demo", "--bundle", str(server.folder / "bundle"), *arguments])


def test_it_writes_events_as_mmtl_run_does(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(server) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (events[0]["type"], events[-1]["type"]) == ("session", "summary")
    assert events[0]["provider"] == "triton"
    assert events[0]["provider_reason"] == "mmtl_window_onnx at localhost:8000"
    assert sum(event["type"] == "window" for event in events) == events[-1]["windows"] > 0
    assert server.closed == 1


def test_the_model_of_another_bundle_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ExportRequest("bundle", tmp_path / "other")
    other = export_target(TrainedModel(tiny_checkpoint(seed=1)), request, Checks())
    assert client.main(["demo", "--bundle", str(other)]) == 7
    told = capsys.readouterr().err
    assert "is not the model in" in told
    assert told.count("\n") == 1
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "mmtl_window_plan"], 5, r"[404] unknown model"),
        (["--url", "http://localhost:8000"], 2, "expected HOST:PORT"),
        (["--bundle", "nowhere"], 4, "is not a bundle"),
        (["--profile", "nobody"], 4, "nobody"),
    ],
)
def test_what_cannot_be_is_one_line_and_an_exit_code(
    server: Server, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    assert run(server, *arguments) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


def test_a_server_that_answers_nothing_of_use_is_refused(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.outputs = ("logits",)
    assert run(server) == 5
    assert "no embedding" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ModuleNotFoundError("tritonclient"), RuntimeError("no http support")])
def test_without_tritonclient_it_says_what_to_install(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "tritonclient.http":
                raise error

    monkeypatch.delitem(sys.modules, "tritonclient.http")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert run(server) == 2
    assert "pip install 'tritonclient[http]'" in capsys.readouterr().err


# The stand-in against the original


def signatures(path: Path) -> dict[str, list[str]]:
    """List the arguments of each method in a file, as Class.method."""
    classes = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)
    ]
    return {
        f"{outer.name}.{inner.name}": [argument.arg for argument in inner.args.args]
        for outer in classes
        for inner in outer.body
        if isinstance(inner, ast.FunctionDef)
    }


def test_the_real_tritonclient_has_what_the_stand_in_has() -> None:
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    folder = Path(found.submodule_search_locations[0], "http")
    real = {name: args for path in sorted(folder.glob("_*.py")) for name, args in signatures(path).items()}
    ours = {
        name.replace("Answer.", "InferResult."): args
        for name, args in signatures(Path(__file__)).items()
        if name.split(".")[0] in {"InferInput", "Answer", "InferenceServerClient"}
    }
    assert len(ours) == 7
    for name, arguments in ours.items():
        assert set(arguments) <= set(real[name]), name
