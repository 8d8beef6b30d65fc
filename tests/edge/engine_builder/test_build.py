"""A graph becomes a plan as TensorRT wants it asked, and a failure becomes a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine_builder.build import BuildConfig, Phases, build_plan
from edge.errors import EngineError
from edge.model.bundle import Bundle
from edge.model.manifest import WINDOW
from tests.edge.gpu.fake_tensorrt import CACHE_HEADER, MAGIC, FakeTensorrt, interrupt_at


@pytest.fixture
def build_config(bundle: Bundle, tmp_path: Path) -> BuildConfig:
    return BuildConfig(
        graph=bundle.graph(WINDOW),
        frames=300,
        bins=200,
        batch=4,
        workspace_bytes=1 << 28,
        timing_cache=tmp_path / "timing.cache",
    )


@pytest.fixture
def trt() -> FakeTensorrt:
    return FakeTensorrt()


def failure(trt: FakeTensorrt, build_config: BuildConfig) -> str:
    with pytest.raises(EngineError) as caught:
        build_plan(trt, build_config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_plan_is_what_tensorrt_built_of_the_graph(trt: FakeTensorrt, build_config: BuildConfig) -> None:
    assert build_plan(trt, build_config) == MAGIC + build_config.graph.read_bytes()


def test_tensorrt_is_asked_for_the_graphs_own_precision_and_full_windows(
    trt: FakeTensorrt, build_config: BuildConfig
) -> None:
    build_plan(trt, build_config)
    (asked,) = trt._built
    assert asked["flags"] == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert asked["tf32"] is False
    assert asked["workspace"] == 1 << 28
    assert asked["shapes"] == ((1, 300, 200), (1, 300, 200), (4, 300, 200))


def test_names_that_a_tensorrt_lacks_are_done_without(
    trt: FakeTensorrt, build_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FakeTensorrt, "IProgressMonitor")
    trt.NetworkDefinitionCreationFlag = trt.BuilderFlag = SimpleNamespace()
    build_plan(trt, build_config)
    assert trt._built[0]["flags"] == 0


def test_no_driver_is_our_line_and_not_pybinds(trt: FakeTensorrt, build_config: BuildConfig) -> None:
    trt._driver = False
    assert "there is no NVIDIA driver" in failure(trt, build_config)


def test_a_graph_that_tensorrt_cannot_read_is_a_line(
    trt: FakeTensorrt, build_config: BuildConfig, tmp_path: Path
) -> None:
    (tmp_path / "window.onnx").write_bytes(b"no graph")
    line = failure(trt, replace(build_config, graph=tmp_path / "window.onnx"))
    assert "Failed to parse ONNX model" in line


def test_a_build_that_fails_is_explained_by_the_log(trt: FakeTensorrt, build_config: BuildConfig) -> None:
    trt._complaints[""] = [
        "Error Code 9: (Target GPU SM 87 is not supported.)",
        "Engine could not be created",
    ]
    assert "on a Jetson use JetPack's own TensorRT" in failure(trt, build_config)


def test_an_earlier_failure_is_not_blamed_for_a_later_one(
    trt: FakeTensorrt, build_config: BuildConfig
) -> None:
    trt._complaints[""] = ["Error Code 2: OutOfMemory"]
    assert "free memory" in failure(trt, build_config)
    trt._complaints[""] = ["another thing"]
    assert "another thing" in failure(trt, build_config)


def test_progress_never_goes_back_and_ends_near_the_end(trt: FakeTensorrt, build_config: BuildConfig) -> None:
    shares: list[float] = []
    build_plan(trt, build_config, shares.append)
    assert shares == sorted(shares)
    assert shares[0] == 0.25
    assert 0.9 < shares[-1] < 1.0


def test_a_screen_that_fails_does_not_end_a_build(trt: FakeTensorrt, build_config: BuildConfig) -> None:
    def fail(share: float) -> None:
        raise BrokenPipeError

    assert build_plan(trt, build_config, fail).startswith(MAGIC)


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "step", "finish"]), st.sampled_from("abc"), st.integers(0, 5))
    )
)
def test_any_order_of_phases_gives_a_share_that_never_shrinks(calls: list[tuple[str, str, int]]) -> None:
    phases, shares = Phases(), [0.0]
    for call, name, number in calls:
        phases.finish(name) if call == "finish" else getattr(phases, call)(name, number)
        shares.append(phases.share)
    assert shares == sorted(shares)
    assert shares[-1] < 1.0


def test_ctrl_c_ends_the_build_at_its_next_step_and_keeps_the_timings(
    trt: FakeTensorrt, build_config: BuildConfig
) -> None:
    done: list[int] = []
    interrupt = interrupt_at(1)

    def note(step: int) -> None:
        done.append(step)
        interrupt(step)

    trt._steps, trt._during = 50_000, note
    with pytest.raises(KeyboardInterrupt):
        build_plan(trt, build_config)
    assert 2 <= len(done) < 100_000
    assert trt._built == []
    assert list(build_config.timing_cache.parent.iterdir()) == [build_config.timing_cache]
    assert build_config.timing_cache.read_bytes() == CACHE_HEADER + b"Orin" + b"." * len(done)


def test_a_second_build_starts_with_the_timings_of_the_first(
    trt: FakeTensorrt, build_config: BuildConfig
) -> None:
    build_plan(trt, build_config)
    first = build_config.timing_cache.read_bytes()
    build_plan(trt, build_config)
    assert build_config.timing_cache.read_bytes().startswith(first + b".")


def test_a_build_that_fails_keeps_its_timings_too(trt: FakeTensorrt, build_config: BuildConfig) -> None:
    trt._complaints[""] = ["no"]
    failure(trt, build_config)
    assert build_config.timing_cache.read_bytes().startswith(CACHE_HEADER + b"Orin")


@pytest.mark.parametrize("content", [CACHE_HEADER + b"Thor...", b"", b"\x00damaged"])
def test_timings_of_another_gpu_or_none_at_all_are_replaced(
    trt: FakeTensorrt, build_config: BuildConfig, content: bytes
) -> None:
    build_config.timing_cache.write_bytes(content)
    build_plan(trt, build_config)
    assert build_config.timing_cache.read_bytes().startswith(CACHE_HEADER + b"Orin")


def test_timings_that_cannot_be_written_do_not_fail_the_build(
    trt: FakeTensorrt, build_config: BuildConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    unwritable = replace(build_config, timing_cache=tmp_path / "file" / "timing.cache")
    assert build_plan(trt, unwritable).startswith(MAGIC)
