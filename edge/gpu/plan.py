"""Plans: the TensorRT engines built on this machine, each beside a fingerprint.

A plan is valid for one model, one TensorRT and one GPU, and TensorRT cannot check that before it loads the
plan. So a JSON file beside the plan states what it was built from and for, with the SHA-256 of the plan. A
plan that does not match is not loaded, but built again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from edge.errors import EngineError, UsageError
from edge.gpu.probe import Gpu
from edge.model.bundle import Bundle
from edge.system.files import atomic_write
from edge.system.user_folders import cache_folder

PLAN_SCHEMA: Final = 1
"""Version of the JSON and of how this program builds: raised when either changes."""
_OTHERS_MAY_WRITE: Final = 0o022
_NONE: Final = "no engine has been built for this model yet"


class StalePlanError(EngineError):
    """A plan is missing, damaged, or was built for something else."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, remedy="run mmtl build-engine BUNDLE")


@dataclass(frozen=True)
class PlanTarget:
    """The TensorRT and the GPU that a plan is valid for."""

    tensorrt: str
    """Full version, as "10.3.0"."""
    gpu: str
    compute_capability: str
    """As "8.7"."""

    @classmethod
    def of(cls, gpu: Gpu, tensorrt_version: str) -> PlanTarget:
        """Describe a GPU under a TensorRT."""
        return cls(tensorrt_version, gpu.name, gpu.compute_capability)


@dataclass(frozen=True)
class PlanRequirements:
    """What the user asks of a plan."""

    precision: str = "auto"
    """One of "fp32", "fp16" and "auto": the fastest that agrees with ONNX Runtime."""
    batch: int = 1
    """Largest number of windows at once, >= 1."""


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a plan depends on: if any of it differs, the plan is built again."""

    graph: str
    """The graph's file, relative to the bundle's folder."""
    onnx_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    precision: str
    """"fp32" or "fp16"."""
    recurrence: str
    """How the LSTM is encoded: "lstm", "unrolled", or "none" for a network without one."""
    frames: int
    """T of a window."""
    batch: int


@dataclass(frozen=True)
class Plan:
    """A plan that is valid for this model on this machine."""

    path: Path
    data: bytes = field(repr=False)
    """The bytes that were checked and that TensorRT deserialises; the file is read once."""
    fingerprint: Fingerprint
    report: dict[str, Any] = field(default_factory=dict)
    """Measurements of its build."""


def plan_folder(out: Path | None = None) -> Path:
    """Return the folder of plans: `out`, or the service's state folder, or this user's cache.

    Raises:
        UsageError: it would be in the cache, and the user has no home folder.
    """
    if out is not None:
        return out
    if state := os.environ.get("STATE_DIRECTORY"):  # systemd's; several are joined by colons
        return Path(state.split(":")[0]) / "engines"
    return cache_folder() / "engines"


def plan_path(bundle: Bundle, folder: Path | None = None) -> Path:
    """Return the path of a bundle's plan; its fingerprint is beside it, with `.json` appended."""
    return plan_folder(folder) / f"{bundle.fingerprint[:16]}.plan"


def find_plan(bundle: Bundle, folder: Path | None = None) -> Path:
    """Return the path of a bundle's plan, valid or not.

    Raises:
        StalePlanError: there is none, or this user may not read its folder.
    """
    try:
        path = plan_path(bundle, folder)
    except UsageError as error:
        raise StalePlanError("this user has no home folder to keep an engine in") from error
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise _unreadable(path, error) from error
    raise StalePlanError(_NONE)


def open_plan(
    bundle: Bundle, here: PlanTarget, requirements: PlanRequirements, folder: Path | None = None
) -> Plan:
    """Read the plan of a bundle and check that it is valid here.

    Raises:
        StalePlanError: it is not; the message says why, and what to do.
    """
    path = find_plan(bundle, folder)
    try:
        plan = _read(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if reason := next(_differences(plan.fingerprint, bundle, here, requirements), ""):
        raise StalePlanError(reason)
    return plan


def stale(
    bundle: Bundle, here: PlanTarget, requirements: PlanRequirements, folder: Path | None = None
) -> str:
    """Return in one line why the plan of a bundle must be built, or "" if it is valid."""
    try:
        open_plan(bundle, here, requirements, folder)
    except StalePlanError as error:
        return f"{error.problem}: {'building' if error.problem == _NONE else 'rebuilding'}"
    return ""


def write_plan(path: Path, data: bytes, fingerprint: Fingerprint, report: dict[str, Any]) -> Plan:
    """Write a plan and its fingerprint, each atomically; neither counts without the other.

    Raises:
        UsageError: the folder cannot be written, or the disk is full.
    """
    described = {
        "schema_version": PLAN_SCHEMA,
        "plan_sha256": _sha256(data),
        "plan_bytes": len(data),
        "fingerprint": asdict(fingerprint),
        "report": report,
    }
    with atomic_write(path) as partial:
        partial.write_bytes(data)
    with atomic_write(_record(path)) as partial:
        partial.write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    return Plan(path, data, fingerprint, report)


def fingerprint_of_graph(bundle: Bundle, graph: str) -> str:
    """Return the SHA-256 of one of a bundle's files."""
    return _sha256((bundle.folder / graph).read_bytes())


def _read(path: Path) -> Plan:
    """Read a plan and its fingerprint and check that they belong together."""
    if not _record(path).is_file():
        raise StalePlanError(f"the engine {path} has no fingerprint beside it")
    _require_ours(path)
    described, fingerprint = _described(_record(path))
    data = path.read_bytes()
    if len(data) != described["plan_bytes"]:
        raise StalePlanError(
            f"the engine {path} is truncated: {len(data)} of {described['plan_bytes']} bytes"
        )
    if _sha256(data) != described["plan_sha256"]:
        raise StalePlanError(f"the engine {path} has changed since it was built: its SHA-256 differs")
    return Plan(path, data, fingerprint, described["report"])


def _unreadable(path: Path, error: OSError) -> StalePlanError:
    return StalePlanError(f"the engine {path} cannot be read ({error.strerror})")


def _described(record: Path) -> tuple[dict[str, Any], Fingerprint]:
    """Read the JSON beside a plan."""
    try:
        described: dict[str, Any] = json.loads(record.read_text("utf-8"))
        version = described["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StalePlanError(f"the engine's fingerprint {record} cannot be read") from error
    if version != PLAN_SCHEMA:
        raise StalePlanError(
            f"the engine's fingerprint has schema version {version}, this program's {PLAN_SCHEMA}"
        )
    try:
        fingerprint = _typed(Fingerprint(**described["fingerprint"]))
        described["plan_bytes"], described["plan_sha256"], described["report"]
    except (KeyError, TypeError) as error:
        raise StalePlanError(f"the engine's fingerprint {record} is incomplete") from error
    return described, fingerprint


def _typed(fingerprint: Fingerprint) -> Fingerprint:
    """Check the type of every entry; a TypeError names the wrong one."""
    kinds = {"str": str, "int": int}
    for item in fields(fingerprint):
        if type(getattr(fingerprint, item.name)) is not kinds[str(item.type)]:
            raise TypeError(item.name)
    return fingerprint


def _require_ours(path: Path) -> None:
    """Refuse files that another user can write: an engine is loaded into this process."""
    for file in (path, _record(path)):
        found = file.stat()
        if found.st_uid not in {os.getuid(), 0} or found.st_mode & _OTHERS_MAY_WRITE:
            raise StalePlanError(f"{file} belongs to another user or can be written by one")


def _differences(
    found: Fingerprint, bundle: Bundle, here: PlanTarget, requirements: PlanRequirements
) -> Iterator[str]:
    """Yield each difference of a plan from the requirements as text; the most telling comes first."""
    if found.tensorrt != here.tensorrt:
        yield f"the engine was built for TensorRT {found.tensorrt}, this is {here.tensorrt}"
    if (found.gpu, found.compute_capability) != (here.gpu, here.compute_capability):
        built, this = _gpu(found), _gpu(here)
        yield f"the engine was built for another GPU ({built}), this is {this}"
    if not (bundle.folder / found.graph).is_file():
        yield f"the model no longer has the graph {found.graph} that the engine was built from"
    elif found.onnx_sha256 != fingerprint_of_graph(bundle, found.graph):
        yield f"the engine was built from another {found.graph} than the model's"
    if found.frames != bundle.manifest.front_end.window_frames:
        expected = bundle.manifest.front_end.window_frames
        yield f"the engine takes windows of {found.frames} frames, the model's have {expected}"
    if requirements.precision not in {"auto", found.precision}:
        yield f"the engine computes in {found.precision}, {requirements.precision} was asked for"
    if found.batch < requirements.batch:
        yield f"the engine takes at most {found.batch} windows at once, {requirements.batch} were asked for"


def _gpu(where: Fingerprint | PlanTarget) -> str:
    return f"{where.gpu}, compute capability {where.compute_capability}"


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
