"""The Triton folder: a model repository of the window graph, the bundle that goes with it, and a client.

OUT/models/mmtl_window_onnx     the FP32 graph, ready to serve
OUT/models/mmtl_window_plan     the same for TensorRT; its plan is built on the server
OUT/bundle                      for the client, and what the plan is built from
OUT/client.py, OUT/README.md
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import onnx

from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.engine_files import WindowRecurrence, engine_graph
from edge.model.manifest import MANIFEST
from edge.system.files import atomic_write_folder
from edge.system.outputs import require_free_folder

ONNX_MODEL: Final = "mmtl_window_onnx"
PLAN_MODEL: Final = "mmtl_window_plan"
CONFIG: Final = "config.pbtxt"
LABELS: Final = "emotions.txt"
LARGEST_BATCH: Final = 32
"""Largest batch of windows in Triton; a plan must be built for it."""
LONGEST_DELAY_US: Final = 5_000
"""Time that a window may wait for others to be batched with: about 2 % of the step from one to the next.

There is no queue policy beside it: with one, of either kind, Triton 2.49 let about one window in ten lie for
half a second on an idle server. A window is worth nothing when the next one is there, but it is the client
that gives up on it.
"""
SERVER_FILES: Final = Path(__file__).resolve().parent / "server_files"
"""Files that are copied unchanged."""

_TYPES: Final[dict[int, str]] = {onnx.TensorProto.FLOAT: "TYPE_FP32"}

_CONFIG: Final = """\
# One window of 3 s: frames in, embedding and logits out. Windows know nothing of each other.
# Model {model}, fingerprint {fingerprint}
name: "{name}"
backend: "{backend}"
max_batch_size: {largest}
input [
{inputs}
]
output [
{outputs}
]
version_policy {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
instance_group [ {{ count: 1 kind: {kind} }} ]
model_warmup [
{warmup}
]
"""

_PLAN_ADVICE: Final = """\

# The plan belongs at 1/model.plan; README.md says how to build it. A plan holds for one kind of GPU: where
# the servers' GPUs differ, put one beside the other, and name each by the GPU's compute capability:
#
# cc_model_filenames [
#   { key: "8.0" value: "sm80.plan" },
#   { key: "9.0" value: "sm90.plan" }
# ]
"""


def write_repository(bundle: Bundle, out: Path, *, replace: bool = False) -> None:
    """Write what a Triton server and its clients need.

    Args:
        bundle: the model, with its graphs for TensorRT.
        out: the folder.
        replace: whether one that is there already may go, and with it a plan that was put there.

    Raises:
        UsageError: the folder is in the way, or cannot be written.
    """
    require_writable_repository(out, replace=replace)
    with atomic_write_folder(out) as staged:
        shutil.copytree(SERVER_FILES, staged, ignore=shutil.ignore_patterns("__pycache__"))
        _copy_bundle(bundle, staged / "bundle")
        _write_models(bundle, staged / "models")


def served_graph(bundle: Bundle) -> Path:
    """Return the graph of the bundle that is served: full windows, FP32."""
    recurrence: WindowRecurrence = "lstm" if bundle.manifest.graphs.execution == "incremental" else "none"
    return bundle.graph(engine_graph(recurrence, "fp32"))


def config(bundle: Bundle, name: str) -> str:
    """Return the config.pbtxt of one of the two models.

    Args:
        bundle: the model.
        name: `ONNX_MODEL` or `PLAN_MODEL`.
    """
    graph = onnx.load(str(served_graph(bundle))).graph
    backend, kind, advice = {
        ONNX_MODEL: ("onnxruntime", "KIND_AUTO", ""),  # the GPUs where there are any, else the CPU
        PLAN_MODEL: ("tensorrt", "KIND_GPU", _PLAN_ADVICE),
    }[name]
    text = _CONFIG.format(
        model=json.dumps(bundle.manifest.name),  # on one line, whatever it is
        fingerprint=bundle.fingerprint,
        name=name,
        backend=backend,
        largest=LARGEST_BATCH,
        inputs=_listed([f'name: "{value.name}" {_type(value)}' for value in graph.input]),
        outputs=_listed([f'name: "{value.name}" {_type(value)}{_labels(value)}' for value in graph.output]),
        delay=LONGEST_DELAY_US,
        kind=kind,
        warmup=_listed([_warmup(size, graph.input) for size in _warm_sizes()]),
    )
    return text + advice


def _type(value: onnx.ValueInfoProto) -> str:
    """Return type and shape of a graph's input or output, without the batch."""
    tensor = value.type.tensor_type
    _, *sizes = tensor.shape.dim
    dims = ", ".join(str(size.dim_value) for size in sizes)
    return f"data_type: {_TYPES[tensor.elem_type]} dims: [ {dims} ]"


def _labels(value: onnx.ValueInfoProto) -> str:
    return f' label_filename: "{LABELS}"' if value.name == "logits" else ""


def _warmup(size: int, inputs: Sequence[onnx.ValueInfoProto]) -> str:
    """Describe the warm-up: a batch of silence, computed before the model is reported ready."""
    entries = " ".join(
        f'inputs {{ key: "{value.name}" value {{ {_type(value)} zero_data: true }} }}' for value in inputs
    )
    return f'name: "batch of {size}" batch_size: {size}\n    {entries}'


def _warm_sizes() -> list[int]:
    """Return 1, 2, 4 ... up to the largest batch: a GPU chooses its kernels by size."""
    return [2**power for power in range(LARGEST_BATCH.bit_length())]


def _listed(items: Sequence[str]) -> str:
    return ",\n".join(f"  {{ {item} }}" for item in items)


def _write_models(bundle: Bundle, models: Path) -> None:
    for name in (ONNX_MODEL, PLAN_MODEL):
        (models / name).mkdir(parents=True)
        (models / name / CONFIG).write_text(config(bundle, name), "utf-8")
        (models / name / LABELS).write_text("".join(f"{emotion}\n" for emotion in EMOTIONS), "utf-8")
    version = models / ONNX_MODEL / "1"
    version.mkdir()
    shutil.copyfile(served_graph(bundle), version / "model.onnx")


def _copy_bundle(bundle: Bundle, folder: Path) -> None:
    for name in (MANIFEST, *bundle.manifest.files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.folder / name, folder / name)


def require_writable_repository(out: Path, *, replace: bool) -> None:
    """Check that the folder may be written.

    Raises:
        UsageError: something is there that may not go.
    """

    def ours(folder: Path) -> bool:
        return (folder / "models" / ONNX_MODEL / CONFIG).is_file()

    require_free_folder(out, "a Triton folder of mmtl", ours=ours, replace=replace)
