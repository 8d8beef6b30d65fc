"""The engine that stays is the fastest that does what ONNX Runtime does; a bad one replaces nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edge.arrays import Array
from edge.engine_builder import selection as engine_choice
from edge.engine_builder.candidates import (
    PRECISIONS,
    candidates,
    largest_difference,
    reference_of,
)
from edge.engine_builder.selection import BuildEnvironment, build_engine, build_environment
from edge.errors import BundleError, EngineError, UsageError, VerificationError
from edge.gpu.plan import Plan, PlanRequirements, open_plan, plan_path
from edge.gpu.probe import Gpu
from edge.inference.engine import WindowEngine
from edge.model.bundle import Bundle, load_bundle
from edge.model.engine_files import GOLDEN, engine_graph
from edge.model.manifest import WINDOW, read_manifest, write_manifest
from tests.command_line import exit_code_of
from tests.edge.gpu.fake_tensorrt import MAGIC, FakeSession, FakeTensorrt, interrupt_at

ORIN = Gpu("Orin", "8.7", 8 << 30, "12.6")
LIMITS = {"fp32": 1e-4, "fp16": 2e-2}

FOUR_WINDOWS = PlanRequirements(batch=4)


@dataclass
class Desk:
    """A machine whose engines are as fast and as wrong as a test wants them, by a word of their name."""

    trt: FakeTensorrt = field(default_factory=FakeTensorrt)
    costs: dict[str, float] = field(default_factory=dict)
    """Seconds a run."""
    errors: dict[str, float] = field(default_factory=dict)
    sessions: list[FakeSession] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: float = 0.0

    @property
    def environment(self) -> BuildEnvironment:
        return BuildEnvironment(ORIN, self.trt, self.open, lambda: self.now)

    def open(self, plan: bytes) -> FakeSession:
        cost, error = self._of(plan, self.costs), self._of(plan, self.errors)

        def tick() -> None:
            self.now += cost

        self.sessions.append(FakeSession(plan, error, tick))
        return self.sessions[-1]

    @staticmethod
    def _of(plan: bytes, values: dict[str, float]) -> float:
        return next((value for name, value in values.items() if name.encode() in plan), 0.0)

    def build(
        self, bundle: Bundle, folder: Path, requirements: PlanRequirements = FOUR_WINDOWS, **rest: Any
    ) -> Plan:
        return build_engine(
            bundle, requirements, self.environment, folder=folder, say=self.said.append, **rest
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture(scope="session")
def windows(bundle: Bundle) -> Array:
    shape = (5, bundle.manifest.front_end.window_frames, bundle.manifest.front_end.bins)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def named(graph: bytes, name: str) -> bytes:
    """Append the name as the producer's: the same graph, other bytes."""
    return graph + bytes([0x12, len(name)]) + name.encode()


@pytest.fixture
def exported(bundle_folder: Path, windows: Array) -> Bundle:
    """A bundle with every encoding, all of them the same graph, and golden windows."""
    bundle = load_bundle(bundle_folder)
    (bundle_folder / "engine").mkdir()
    graph = bundle.graph(WINDOW).read_bytes()
    names = [engine_graph("lstm", precision) for precision in PRECISIONS]
    names += [engine_graph("unrolled", precision) for precision in PRECISIONS]
    for name in names:
        (bundle_folder / name).write_bytes(named(graph, name))
    write_golden(bundle, windows)
    return listed(bundle_folder, *names, GOLDEN)


def write_golden(bundle: Bundle, windows: Array, error: float = 0.0, metadata: Any = None) -> None:
    embedding, logits = WindowEngine(bundle)(windows)
    tensors = {"frames": windows, "embedding": embedding, "logits": logits + np.float32(error)}
    described = metadata or {"mmtl": json.dumps({"tolerance": LIMITS})}
    save_file(tensors, bundle.folder / GOLDEN, described)


def listed(folder: Path, *names: str) -> Bundle:
    """Write the manifest for files of the folder, and load it."""
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, files=manifest.files | dict.fromkeys(names, "")))
    return load_bundle(folder)


def test_the_fastest_that_agrees_stays(desk: Desk, exported: Bundle, engines: Path) -> None:
    desk.costs = {"lstm.fp32": 4.0, "unrolled.fp32": 3.0, "unrolled.fp16": 2.0, "lstm.fp16": 1.0}
    desk.errors = {"lstm.fp16": 0.03, "unrolled.fp16": 0.01}
    plan = desk.build(exported, engines)
    assert (plan.fingerprint.recurrence, plan.fingerprint.precision) == ("unrolled", "fp16")
    assert plan.data == MAGIC + (exported.folder / engine_graph("unrolled", "fp16")).read_bytes()
    assert plan == open_plan(exported, desk.environment.target, PlanRequirements(batch=4), engines)
    assert [(item["agrees"], item["milliseconds"]) for item in plan.report["candidates"]] == [
        (True, 4000.0),
        (True, 3000.0),
        (False, 1000.0),
        (True, 2000.0),
    ]


def test_each_candidate_is_a_line_with_what_was_measured(desk: Desk, exported: Bundle, engines: Path) -> None:
    desk.costs, desk.errors = {"": 0.002}, {"lstm.fp16": 0.03}
    desk.build(exported, engines)
    assert desk.said[0] == "no engine has been built for this model yet: building"
    assert len(desk.said) == 5
    assert "lstm fp32: 2.00 ms per window; 0.0e+00 from ONNX Runtime, 0.0001 allowed" in desk.said
    assert "lstm fp16: 2.00 ms per window; 3.0e-02 from ONNX Runtime, 0.02 allowed: rejected" in desk.said


@pytest.mark.parametrize("error", [0.5, float("nan"), float("inf")])
def test_where_none_agrees_nothing_is_written_and_the_old_engine_stays(
    desk: Desk, exported: Bundle, engines: Path, error: float
) -> None:
    old = desk.build(exported, engines)
    desk.errors = {"": error}
    with pytest.raises(VerificationError, match="every engine differs too much from ONNX Runtime") as caught:
        desk.build(exported, engines, force=True)
    assert caught.value.exit_code == 7
    assert open_plan(exported, desk.environment.target, PlanRequirements(batch=4), engines) == old


def test_an_engine_that_gives_nan_is_left_out_and_the_report_stays_json(
    desk: Desk, exported: Bundle, engines: Path
) -> None:
    desk.errors = {"lstm.fp32": float("nan")}
    plan = desk.build(exported, engines, PlanRequirements("fp32"))
    assert plan.fingerprint.recurrence == "unrolled"
    text = plan.path.with_name(f"{plan.path.name}.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["report"]["candidates"][0]["difference"] is None


def test_a_candidate_that_cannot_be_built_is_left_out_with_its_reason(
    desk: Desk, exported: Bundle, engines: Path
) -> None:
    desk.trt._complaints = {
        "window.lstm": ["Error Code 10: (Could not find any implementation for node lstm.)"]
    }
    assert desk.build(exported, engines).fingerprint.recurrence == "unrolled"
    reasons = [line for line in desk.said if "cannot compute a layer" in line]
    assert [line.partition(":")[0] for line in reasons] == ["lstm fp32", "lstm fp16"]


def test_where_none_can_be_built_the_error_is_tensorrts_in_our_words(
    desk: Desk, exported: Bundle, engines: Path
) -> None:
    desk.trt._complaints = {"": ["Error Code 9: (Target GPU SM 87 is not supported by this release.)"]}
    with pytest.raises(EngineError, match="does not support this GPU"):
        desk.build(exported, engines)
    assert not plan_path(exported, engines).exists()


def test_an_engine_that_holds_is_kept_unless_forced(desk: Desk, exported: Bundle, engines: Path) -> None:
    first = desk.build(exported, engines)
    desk.said.clear()
    built = len(desk.trt._built)
    leftover = plan_path(exported, engines).with_name(".1.plan.mmtl-abcd1234")
    leftover.mkdir()
    assert desk.build(exported, engines) == first
    assert (len(desk.trt._built), desk.said) == (built, [])
    assert not leftover.exists()
    desk.build(exported, engines, force=True)
    assert (len(desk.trt._built), desk.said[0]) == (2 * built, "building again, as --force asks")


def test_an_update_of_tensorrt_rebuilds_with_one_line_of_why(
    desk: Desk, exported: Bundle, engines: Path
) -> None:
    desk.build(exported, engines)
    desk.trt, desk.said = FakeTensorrt("10.13.3.9"), []
    plan = desk.build(exported, engines)
    assert desk.said[0] == "the engine was built for TensorRT 10.3.0, this is 10.13.3.9: rebuilding"
    assert plan.fingerprint.tensorrt == "10.13.3.9"


def test_a_bundle_without_encodings_gives_an_engine_of_its_window_graph(
    desk: Desk, bundle: Bundle, engines: Path
) -> None:
    plan = desk.build(bundle, engines)
    assert (plan.fingerprint.graph, plan.fingerprint.precision) == (WINDOW, "fp32")
    assert plan.report["candidates"][0]["difference"] == 0.0


def test_a_graph_that_the_manifest_does_not_list_is_no_candidate(exported: Bundle) -> None:
    kept = [name for name in exported.manifest.files if name != engine_graph("lstm", "fp16")]
    unlisted = replace(exported, manifest=replace(exported.manifest, files=dict.fromkeys(kept, "")))
    assert [str(item) for item in candidates(unlisted, "fp16")] == ["unrolled fp16"]


@pytest.mark.parametrize(
    ("precision", "part"), [("fp16", "--format tensorrt"), ("int8", "choose auto, fp32")]
)
def test_a_precision_that_is_not_to_be_had_is_a_usage_error(
    desk: Desk, bundle: Bundle, engines: Path, precision: str, part: str
) -> None:
    with pytest.raises(UsageError, match=part):
        desk.build(bundle, engines, PlanRequirements(precision))


def test_windows_are_compared_singly_and_in_batches_larger_than_there_are_windows(
    desk: Desk, exported: Bundle, engines: Path, windows: Array
) -> None:
    desk.build(exported, engines, PlanRequirements("fp32", batch=2 * len(windows)))
    assert [session.largest for session in desk.sessions] == [2 * len(windows)] * 2


def test_sessions_are_closed_whatever_becomes_of_them(desk: Desk, exported: Bundle, engines: Path) -> None:
    def lose_the_gpu() -> None:
        raise EngineError("the GPU failed")

    environment = replace(
        desk.environment, open_session=lambda plan: lost(FakeSession(plan, tick=lose_the_gpu))
    )
    opened: list[FakeSession] = []

    def lost(session: FakeSession) -> FakeSession:
        opened.append(session)
        return session

    with pytest.raises(EngineError, match="the GPU failed"):
        build_engine(exported, PlanRequirements(), environment, folder=engines)
    desk.build(exported, engines)
    assert len(opened) == len(desk.sessions) == 4
    assert all(session.closed for session in [*opened, *desk.sessions])


def test_progress_runs_through_all_candidates_once(desk: Desk, exported: Bundle, engines: Path) -> None:
    shares: list[float] = []
    desk.build(exported, engines, progress=shares.append)
    assert shares == sorted(shares)
    assert (shares[0], round(shares[-1])) == (0.0625, 1)


def test_ctrl_c_leaves_the_timings_and_nothing_else(desk: Desk, exported: Bundle, engines: Path) -> None:
    interrupt = interrupt_at(1)
    desk.trt._during = lambda step: interrupt(step) if desk.sessions else None  # the second build
    desk.trt._steps = 50_000
    with pytest.raises(KeyboardInterrupt):
        desk.build(exported, engines)
    assert len(desk.trt._built) == 1
    assert [path.name for path in engines.iterdir()] == ["timing-10.3.0-sm8.7.cache"]
    desk.trt._during, desk.trt._steps = (lambda step: None), 2
    assert desk.build(exported, engines).path.is_file()


def test_a_full_disk_is_noticed_before_minutes_are_spent(
    desk: Desk, exported: Bundle, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=3 << 20))
    with pytest.raises(EngineError, match="has 3 MB free, an engine needs 64 MB"):
        desk.build(exported, engines)
    assert desk.trt._built == []


def test_a_folder_that_cannot_be_made_is_noticed_before_minutes_are_spent(
    desk: Desk, exported: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="--out"):
        desk.build(exported, tmp_path / "file" / "engines")
    assert desk.trt._built == []


def test_the_golden_windows_are_what_engines_are_checked_on(exported: Bundle, windows: Array) -> None:
    reference = reference_of(exported)
    np.testing.assert_array_equal(reference.frames, windows)
    assert reference.tolerance == LIMITS


@pytest.mark.parametrize(
    "metadata",
    [{"mmtl": "{}"}, {"mmtl": "no JSON"}, {"other": ""}, {"mmtl": '{"tolerance": {"fp32": 1, "fp16": "x"}}'}],
)
def test_golden_windows_without_a_tolerance_are_damaged(
    exported: Bundle, windows: Array, metadata: dict[str, str]
) -> None:
    write_golden(exported, windows, metadata=metadata)
    with pytest.raises(BundleError, match="damaged"):
        reference_of(listed(exported.folder))


def test_golden_windows_of_another_model_are_refused(exported: Bundle, windows: Array) -> None:
    write_golden(exported, windows[:, :200])
    with pytest.raises(BundleError, match="does not hold windows of this model"):
        reference_of(listed(exported.folder))


def test_an_onnx_runtime_that_is_wrong_here_is_noticed(exported: Bundle, windows: Array) -> None:
    write_golden(exported, windows, error=0.1)
    with pytest.raises(VerificationError, match="ONNX Runtime's outputs differ"):
        reference_of(listed(exported.folder))


def test_without_golden_windows_speech_is_used(bundle: Bundle) -> None:
    reference = reference_of(bundle)
    assert len(reference.frames) > 5
    assert np.abs(np.diff(reference.logits, axis=0)).max() > 0.1


def test_a_difference_is_the_largest_and_shapes_count() -> None:
    zeros, some = np.zeros((2, 3), np.float32), np.array([[0, 0, 0], [0, -2, 1]], np.float32)
    assert largest_difference((zeros, zeros), (zeros, some)) == 2.0
    assert largest_difference((zeros, zeros), (zeros[:1], some)) == np.inf
    assert np.isnan(largest_difference((zeros, some * np.nan), (zeros, zeros)))


def test_tensorrt_is_not_touched_before_the_driver_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untouchable(ModuleType):
        def __getattr__(self, name: str) -> object:
            pytest.fail(f"TensorRT was asked for {name}")

    def no_driver() -> tuple[Gpu, ...]:
        raise EngineError("there is no NVIDIA driver here")

    monkeypatch.setitem(sys.modules, "tensorrt", Untouchable("tensorrt"))
    monkeypatch.setattr(engine_choice, "probe", no_driver)
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        build_environment()


def test_without_pycuda_it_is_said_before_minutes_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "probe", lambda: (ORIN,))
    monkeypatch.setattr(engine_choice, "tensorrt_module", FakeTensorrt)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match="pip install pycuda"):
        build_environment()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from edge.cli.main import main; main()", "build-engine", *arguments]


def test_the_command_without_a_driver_is_one_line_and_exit_code_5(tmp_path: Path) -> None:
    program = [*command("default", "--out", str(tmp_path / "engines"))]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if "NVIDIA driver" not in done.stderr:
        pytest.skip("there is a GPU here")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (5, "", 1)
    assert not (tmp_path / "engines").exists()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `mmtl build-engine` here, on the desk's machine."""
    monkeypatch.setattr(engine_choice, "build_environment", lambda: desk.environment)

    def build(*arguments: str) -> tuple[int, str, str]:
        code = exit_code_of("build-engine", *arguments)
        return (code, *capfd.readouterr())

    return build


def test_the_command_says_what_it_built_and_where(run: Run, exported: Bundle, engines: Path) -> None:
    code, out, err = run(str(exported.folder), "--out", str(engines), "--precision", "fp16", "--batch", "3")
    assert code == 0
    assert str(plan_path(exported, engines)) in out
    assert "fp16, up to 3 windows at once, for Orin under TensorRT 10.3.0" in out
    assert err.startswith("mmtl: no engine has been built for this model yet: building\n")
    again = run(str(exported.folder), "--out", str(engines), "--precision", "fp16", "--batch", "2")
    assert again == (0, out, "")


def test_the_command_stopped_by_ctrl_c_says_so(run: Run, desk: Desk, exported: Bundle, engines: Path) -> None:
    desk.trt._steps, desk.trt._during = 50_000, interrupt_at(0)
    code, out, err = run(str(exported.folder), "--out", str(engines))
    assert (code, out, desk.trt._built) == (0, "", [])
    assert err.splitlines()[-2:] == [
        "mmtl: stopping at TensorRT's next step; its kernel timings are kept",
        "mmtl: stopped before it was done",
    ]
