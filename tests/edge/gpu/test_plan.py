"""A plan is loaded where it is exactly what was built here, for this; all else is a line, and built again."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UsageError
from edge.gpu.plan import (
    Fingerprint,
    Plan,
    PlanRequirements,
    PlanTarget,
    StalePlanError,
    fingerprint_of_graph,
    open_plan,
    plan_folder,
    plan_path,
    stale,
    write_plan,
)
from edge.gpu.probe import Gpu
from edge.model.bundle import Bundle, load_bundle
from edge.model.manifest import WINDOW

ORIN = Gpu("Orin", "8.7", 8 << 30, "12.6")
HERE = PlanTarget.of(ORIN, "10.3.0")
DATA = bytes(range(256)) * 8


def fingerprint(bundle: Bundle, **changed: Any) -> Fingerprint:
    made = Fingerprint(
        graph=WINDOW,
        onnx_sha256=fingerprint_of_graph(bundle, WINDOW),
        tensorrt=HERE.tensorrt,
        gpu=HERE.gpu,
        compute_capability=HERE.compute_capability,
        precision="fp32",
        recurrence="lstm",
        frames=bundle.manifest.front_end.window_frames,
        batch=4,
    )
    return replace(made, **changed)


def built(bundle: Bundle, folder: Path, **changed: Any) -> Plan:
    return write_plan(plan_path(bundle, folder), DATA, fingerprint(bundle, **changed), {"of": "a test"})


ANY_PLAN = PlanRequirements()


def why(
    bundle: Bundle, folder: Path, here: PlanTarget = HERE, requirements: PlanRequirements = ANY_PLAN
) -> str:
    """Return the line, having checked that nothing can be opened, and that the line is one."""
    line = stale(bundle, here, requirements, folder)
    with pytest.raises(StalePlanError) as caught:
        open_plan(bundle, here, requirements, folder)
    assert caught.value.exit_code == 5
    assert str(caught.value) == f"{caught.value.problem}: run mmtl build-engine BUNDLE"
    assert "\n" not in line
    return line


def test_what_was_built_here_is_opened_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    written = built(bundle, tmp_path)
    assert open_plan(bundle, HERE, PlanRequirements(batch=4), tmp_path) == written
    assert stale(bundle, HERE, PlanRequirements("fp32", 4), tmp_path) == ""


def test_the_plan_itself_has_nothing_before_or_after_it(bundle: Bundle, tmp_path: Path) -> None:
    assert built(bundle, tmp_path).path.read_bytes() == DATA


def test_writing_leaves_the_plan_its_fingerprint_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    path = built(bundle, tmp_path).path
    assert sorted(tmp_path.iterdir()) == [path, path.with_name(f"{path.name}.json")]


def test_the_fingerprint_names_all_that_a_plan_depends_on(bundle: Bundle, tmp_path: Path) -> None:
    path = built(bundle, tmp_path).path
    described = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert described["schema_version"] == 1
    assert described["plan_bytes"] == len(DATA)
    assert set(described["fingerprint"]) == {item.name for item in fields(Fingerprint)}


def test_no_plan_yet_is_built_not_rebuilt(bundle: Bundle, tmp_path: Path) -> None:
    assert why(bundle, tmp_path) == "no engine has been built for this model yet: building"


def test_a_plan_that_another_user_keeps_is_one_line_too(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = built(bundle, tmp_path).path
    monkeypatch.setattr(Path, "is_file", refuse)
    assert why(bundle, tmp_path) == f"the engine {path} cannot be read (Permission denied): rebuilding"


@pytest.mark.parametrize(
    ("here", "line"),
    [
        (
            replace(HERE, tensorrt="10.13.3.9"),
            "the engine was built for TensorRT 10.3.0, this is 10.13.3.9: rebuilding",
        ),
        (
            replace(HERE, gpu="Thor", compute_capability="11.0"),
            "the engine was built for another GPU (Orin, compute capability 8.7), this is Thor, compute "
            "capability 11.0: rebuilding",
        ),
        (
            replace(HERE, compute_capability="8.6"),
            "the engine was built for another GPU (Orin, compute capability 8.7), this is Orin, compute "
            "capability 8.6: rebuilding",
        ),
    ],
)
def test_a_plan_of_another_tensorrt_or_gpu_is_explained(
    bundle: Bundle, tmp_path: Path, here: PlanTarget, line: str
) -> None:
    built(bundle, tmp_path)
    assert why(bundle, tmp_path, here) == line


@pytest.mark.parametrize(
    ("requirements", "part"),
    [
        (PlanRequirements("fp16"), "computes in fp32, fp16 was asked for"),
        (PlanRequirements(batch=5), "at most 4 windows at once, 5 were asked for"),
    ],
)
def test_a_plan_that_cannot_do_what_is_wanted_is_built_again(
    bundle: Bundle, tmp_path: Path, requirements: PlanRequirements, part: str
) -> None:
    built(bundle, tmp_path)
    assert part in why(bundle, tmp_path, requirements=requirements)


def test_a_plan_of_another_graph_is_built_again(bundle: Bundle, tmp_path: Path) -> None:
    built(bundle, tmp_path, onnx_sha256="0" * 64)
    assert (
        why(bundle, tmp_path) == "the engine was built from another window.onnx than the model's: rebuilding"
    )


def test_a_plan_of_a_graph_that_is_gone_is_built_again(bundle: Bundle, tmp_path: Path) -> None:
    built(bundle, tmp_path, graph="engine/window.lstm.fp16.onnx")
    assert "no longer has the graph engine/window.lstm.fp16.onnx" in why(bundle, tmp_path)


def test_a_plan_of_another_window_is_built_again(bundle: Bundle, tmp_path: Path) -> None:
    built(bundle, tmp_path, frames=100)
    assert "takes windows of 100 frames" in why(bundle, tmp_path)


def test_two_models_have_two_plans(bundle: Bundle, tmp_path: Path) -> None:
    temperature = replace(bundle.manifest, files=bundle.manifest.files | {"head.safetensors": "0" * 64})
    assert plan_path(replace(bundle, manifest=temperature), tmp_path) != plan_path(bundle, tmp_path)


@given(kept=st.integers(0, len(DATA) - 1))
def test_a_plan_cut_short_anywhere_is_truncated(
    bundle: Bundle, kept: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plans")
    built(bundle, folder).path.write_bytes(DATA[:kept])
    assert f"truncated: {kept} of {len(DATA)} bytes: rebuilding" in why(bundle, folder)


@given(position=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed(
    bundle: Bundle, position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plans")
    damaged = bytearray(DATA)
    damaged[position] ^= 1 << bit
    built(bundle, folder).path.write_bytes(damaged)
    assert "its SHA-256 differs: rebuilding" in why(bundle, folder)


def spoil(folder: Path, bundle: Bundle, text: str | None) -> None:
    """Replace or remove the fingerprint."""
    path = built(bundle, folder).path
    record = path.with_name(f"{path.name}.json")
    if text is None:
        record.unlink()
    else:
        record.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "no fingerprint beside it"),
        ("", "cannot be read"),
        ("\x00\x01", "cannot be read"),
        ("[]", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "cannot be read"),
        ('{"schema_version": 2}', "has schema version 2, this program's 1"),
        ('{"schema_version": 1}', "is incomplete"),
        ('{"schema_version": 1, "fingerprint": {}}', "is incomplete"),
        ('{"schema_version": 1, "fingerprint": 3}', "is incomplete"),
    ],
)
def test_a_plan_without_its_fingerprint_is_never_trusted(
    bundle: Bundle, tmp_path: Path, text: str | None, part: str
) -> None:
    spoil(tmp_path, bundle, text)
    assert part in why(bundle, tmp_path)


@pytest.mark.parametrize(("name", "value"), [("batch", "8"), ("batch", True), ("frames", 3.0), ("gpu", None)])
def test_a_fingerprint_with_an_entry_of_another_kind_is_not_used(
    bundle: Bundle, tmp_path: Path, name: str, value: Any
) -> None:
    built(bundle, tmp_path, **{name: value})
    assert "is incomplete" in why(bundle, tmp_path)


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_files_that_others_may_change_are_not_loaded(bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    path = built(bundle, tmp_path).path
    path.with_name(path.name + suffix).chmod(0o666)
    assert "belongs to another user or can be written by one" in why(bundle, tmp_path)


def test_a_build_interrupted_between_its_two_files_is_noticed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built(bundle, tmp_path).path

    @contextlib.contextmanager
    def stop_at_the_second(file: Path) -> Iterator[Path]:
        if file != path:
            raise KeyboardInterrupt
        yield file

    monkeypatch.setattr("edge.gpu.plan.atomic_write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_plan(path, DATA[::-1], fingerprint(bundle), {})
    assert "its SHA-256 differs: rebuilding" in why(bundle, tmp_path)


def test_a_full_disk_is_one_line_that_names_the_file(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"cannot write .*\.plan \(No space left on device\): make room"):
        built(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_usage_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        built(bundle, tmp_path / "file" / "engines")


def test_plans_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plan_folder() == tmp_path / "mmtl" / "engines"


def test_a_service_keeps_plans_in_its_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/var/lib/other")
    assert plan_folder() == tmp_path / "engines"
    assert plan_folder(tmp_path / "named") == tmp_path / "named"


def test_a_copy_of_a_model_uses_the_same_plan(bundle: Bundle, bundle_folder: Path, tmp_path: Path) -> None:
    assert plan_path(load_bundle(bundle_folder), tmp_path) == plan_path(bundle, tmp_path)
