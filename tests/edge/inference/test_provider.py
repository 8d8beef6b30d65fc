from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import Array
from edge.diagnostics.verification import TOLERANCE
from edge.errors import EngineError, UsageError
from edge.events import Window
from edge.gpu.plan import Fingerprint, plan_path, write_plan
from edge.gpu.probe import Gpu
from edge.gpu.session import TensorrtSession
from edge.inference import engine as engine_module
from edge.inference import provider as provider_module
from edge.inference.engine import Engine, WindowEngine
from edge.inference.provider import open_engine
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import WINDOW
from edge.recognition.recognizer import Recognizer
from edge.recognition.stream_session import session_of
from edge.server.client_stream import shared_engines
from tests.cnn_lstm import CNN_LSTM
from tests.command_line import exit_code_of
from tests.edge.inference.fake_runtime import FakeTensorrt
from tests.edge.schema import checked

ROOT = Path(__file__).parents[3]

GPU = Gpu("Orin", "8.7", 8 << 30, "12.6")

Build = Callable[..., None]


@pytest.fixture
def machine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorrt:
    """A machine with a GPU and TensorRT, on which no engine has been built yet."""
    fake = FakeTensorrt(WindowEngine(bundle), 297, 200, {"embedding": 256, "logits": 4})
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(provider_module, "probe", lambda: (GPU,))
    monkeypatch.setattr(provider_module, "tensorrt_module", lambda: fake)
    session = functools.partial(TensorrtSession, open_cuda=fake.open_cuda)
    monkeypatch.setattr(provider_module, "TensorrtSession", session)
    return fake


@pytest.fixture
def build(bundle: Bundle, machine: FakeTensorrt) -> Build:
    """Put a plan in its place, as `mmtl build-engine` does."""

    def put(bundle: Bundle = bundle, wrong: str = "", tensorrt: str = "10.3.0") -> None:
        digest = hashlib.sha256((bundle.folder / WINDOW).read_bytes()).hexdigest()
        fingerprint = Fingerprint(WINDOW, digest, tensorrt, "Orin", "8.7", "fp32", "lstm", 297, 4)
        write_plan(plan_path(bundle), machine.plan(wrong=wrong), fingerprint, {})

    return put


def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise EngineError(
            "there is no NVIDIA driver here (libcuda.so.1: cannot open it)", remedy="install it"
        )

    monkeypatch.setattr(provider_module, "probe", fail)


def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime have CUDA, as far as anybody can tell."""
    import onnxruntime

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    real = engine_module._session
    monkeypatch.setattr(
        engine_module, "_session", lambda bundle, name, provider, threads: real(bundle, name, "cpu", threads)
    )


def chosen(bundle: Bundle) -> tuple[str, str]:
    engine = open_engine(bundle)
    engine.close()
    return engine.provider, engine.reason


# What "auto" takes


def test_auto_takes_tensorrt_where_an_engine_was_built(bundle: Bundle, build: Build) -> None:
    build()
    assert chosen(bundle) == ("tensorrt", "an engine was built for Orin")


def test_without_a_driver_it_is_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without_driver(monkeypatch)
    assert chosen(bundle) == ("cpu", "there is no NVIDIA driver here (libcuda.so.1: cannot open it)")


def test_without_an_engine_it_is_cuda_or_the_cpu(
    bundle: Bundle, machine: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = "no engine has been built for this model yet"
    assert chosen(bundle) == ("cpu", f"{none}; ONNX Runtime here has no CUDA")
    with_cuda(monkeypatch)
    assert chosen(bundle) == ("cuda", f"{none}; ONNX Runtime here has CUDA")


def test_a_stale_engine_is_not_loaded_and_reported(
    bundle: Bundle, build: Build, machine: FakeTensorrt
) -> None:
    build(tensorrt="10.7.0")
    provider, reason = chosen(bundle)
    assert provider == "cpu"
    assert reason.startswith("the engine was built for TensorRT 10.7.0, this is 10.3.0; ")
    assert machine.batches == []


@pytest.mark.parametrize(
    ("wrong", "said"), [("names", "the engine has the inputs"), ("memory", "too little")]
)
def test_an_engine_that_does_not_start_is_not_used(
    bundle: Bundle, build: Build, machine: FakeTensorrt, wrong: str, said: str
) -> None:
    build(wrong=wrong)
    provider, reason = chosen(bundle)
    assert provider == "cpu"
    assert said in reason
    assert machine.cuda.closed


def test_an_engine_for_other_windows_is_not_used_and_let_go(
    bundle: Bundle, build: Build, machine: FakeTensorrt
) -> None:
    machine.frames, machine.graph = 200, lambda frames: (frames[:, 0, :1].repeat(256, 1), frames[:, 0, :4])
    build()
    with pytest.raises(EngineError, match=r"200 frames of 200 bins, .* have 297 .*build-engine"):
        open_engine(bundle, "tensorrt")
    assert machine.cuda.closed


# What was asked for


def test_what_was_asked_for_is_taken_or_refused(bundle: Bundle, build: Build) -> None:
    for name in ("cpu", "tensorrt"):
        build()
        engine = open_engine(bundle, name)
        assert (engine.provider, engine.reason) == (name, "asked for")
        engine.close()
    with pytest.raises(EngineError, match="--provider cpu"):
        open_engine(bundle, "cuda")


def test_tensorrt_without_a_driver_or_an_engine_says_what_to_do(
    bundle: Bundle, machine: FakeTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"no engine has been built .*: run mmtl build-engine"):
        open_engine(bundle, "tensorrt")
    without_driver(monkeypatch)
    with pytest.raises(EngineError, match=r"no NVIDIA driver here .*: install it"):
        open_engine(bundle, "tensorrt")


def test_an_unknown_provider_is_a_usage_error_that_lists_them(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="'gpu': choose auto, cpu, cuda or tensorrt"):
        open_engine(bundle, "gpu")


# Who uses it


def test_the_session_says_what_runs_and_why(bundle: Bundle, build: Build) -> None:
    build()
    recognizer = Recognizer(bundle)
    session = session_of("demo", recognizer)
    assert (session.provider, session.provider_reason) == ("tensorrt", "an engine was built for Orin")
    recognizer.engine.close()


def spoken() -> Array:
    return np.random.default_rng(0).uniform(-0.1, 0.1, 64_000).astype(np.float32)


def test_recognizers_of_all_threads_share_one_tensorrt(bundle: Bundle, build: Build) -> None:
    build()
    make = shared_engines(bundle)

    def listen(_: int) -> tuple[WindowwiseEngine, list[dict[str, float]]]:
        recognizer = make()
        assert isinstance(recognizer.engine, WindowwiseEngine)
        events = recognizer.feed(spoken())
        return recognizer.engine, [event.probs for event in events if isinstance(event, Window)]

    with ThreadPoolExecutor(4) as pool:
        heard = list(pool.map(listen, range(8), timeout=60.0))
    assert len({id(engine) for engine, _ in heard}) == 1
    assert heard[0][1]
    for _, windows in heard:
        for window, expected in zip(windows, heard[0][1], strict=True):
            assert window == pytest.approx(expected, rel=0, abs=TOLERANCE)
    heard[0][0].close()


def test_recognizers_of_all_threads_have_their_own_streaming_graphs(bundle: Bundle) -> None:
    make = shared_engines(bundle, provider="cpu")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: make().engine).result(60.0)
    assert isinstance(other, Engine)
    assert make().engine is make().engine
    assert make().engine is not other


def test_the_command_says_what_runs_and_why_in_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_driver(monkeypatch)
    assert exit_code_of("run", "demo", "--jsonl", "-", "--step-ms", "800") == 0
    out, err = capfd.readouterr()
    reason = "there is no NVIDIA driver here (libcuda.so.1: cannot open it)"
    assert err == f"mmtl: runs on cpu: {reason}\n"
    session = checked(out.splitlines()[0])
    assert (session["provider"], session["provider_reason"]) == ("cpu", reason)


def test_the_command_on_tensorrt_lets_go_of_the_gpu(
    capfd: pytest.CaptureFixture[str],
    machine: FakeTensorrt,
    build: Build,
) -> None:
    build(load_bundle(CNN_LSTM))
    assert exit_code_of("run", "demo", "--bundle", str(CNN_LSTM), "--jsonl", "-") == 0
    out, err = capfd.readouterr()
    assert err == "mmtl: runs on tensorrt: an engine was built for Orin\n"
    events = [checked(line) for line in out.splitlines()]
    full = [
        event for event in events if event["type"] == "window" and event["end_s"] - event["start_s"] > 2.9
    ]
    assert sum(machine.batches) == 1 + len(full) > 10, "each full window, and the warm-up"
    assert machine.cuda.closed


@pytest.mark.parametrize("command", ["run", "monitor"])
def test_tensorrt_that_is_not_to_be_had_is_one_line_and_code_5(
    capfd: pytest.CaptureFixture[str], machine: FakeTensorrt, command: str
) -> None:
    assert exit_code_of(command, "demo", "--provider", "tensorrt") == 5
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no engine has been built for this model yet: run mmtl build-engine" in err


def test_importing_and_running_on_the_cpu_touches_neither_tensorrt_nor_pycuda() -> None:
    program = """
import sys
sys.modules["tensorrt"] = sys.modules["pycuda"] = None  # an import would fail
sys.argv = ["mmtl", "run", "demo", "--jsonl", "-", "--step-ms", "800", "--provider", "cpu"]
import edge.gpu.cuda, edge.gpu.runner, edge.gpu.session, edge.inference.window_engine, edge.inference.provider
from edge.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
