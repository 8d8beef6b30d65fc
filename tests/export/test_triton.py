"""The Triton folder. Configs are read by the schema that NVIDIA publishes in tritonclient; no server runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edge.errors import UsageError
from edge.inference.engine import WindowEngine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, load_bundle
from export.parity import Checks
from export.targets import ExportRequest, export_target
from export.trained_model import TrainedModel
from export.triton import LARGEST_BATCH, ONNX_MODEL, PLAN_MODEL, config, write_repository
from tests.tolerances import float32_tolerance, largest, network_terms
from tests.train.synthetic import tiny_checkpoint

MODELS = [ONNX_MODEL, PLAN_MODEL]
TYPES = {"TYPE_FP32": "tensor(float)"}


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's published schema of config.pbtxt, without the parts of tritonclient that need gRPC."""
    text_format()
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Triton's schema comes with tritonclient, which is not installed")
    path = Path(found.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    return load_bundle(
        export_target(TrainedModel(tiny_checkpoint()), ExportRequest("tensorrt", folder), Checks())
    )


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "out"
    write_repository(bundle, out)
    return out


def parsed(schema: Any, text: str) -> Any:
    """Read a config as strictly as Triton does: what the schema does not know is an error."""
    return text_format().Parse(text, schema.ModelConfig())


def text_format() -> Any:
    return pytest.importorskip("google.protobuf.text_format", reason="reading Triton's schema needs protobuf")


def config_of(schema: Any, repository: Path, model: str) -> Any:
    return parsed(schema, (repository / "models" / model / "config.pbtxt").read_text("utf-8"))


def session_of(repository: Path) -> onnxruntime.InferenceSession:
    path = repository / "models" / ONNX_MODEL / "1" / "model.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def declared(schema: Any, tensors: Any) -> dict[str, tuple[str, list[int]]]:
    """Name a config's inputs or outputs with what ONNX Runtime calls their type, and their sizes."""
    return {item.name: (TYPES[schema.DataType.Name(item.data_type)], list(item.dims)) for item in tensors}


def real(tensors: Any) -> dict[str, tuple[str, list[int]]]:
    """The same of a graph, whose first axis is the batch."""
    assert all(isinstance(item.shape[0], str) for item in tensors), "the batch is fixed"
    return {item.name: (item.type, item.shape[1:]) for item in tensors}


# Configs


@pytest.mark.parametrize("model", MODELS)
def test_a_config_says_what_the_graph_takes_and_gives(schema: Any, repository: Path, model: str) -> None:
    found, session = config_of(schema, repository, model), session_of(repository)
    assert declared(schema, found.input) == real(session.get_inputs())
    assert declared(schema, found.output) == real(session.get_outputs())
    assert declared(schema, found.input) == {"frames": ("tensor(float)", [297, 200])}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("max_batch_size", "max_batchsize"),
        ("max_queue_delay_microseconds", "max_queue_delay_us"),
        ("TYPE_FP32", "TYPE_FLOAT"),
        ("KIND_AUTO", "KIND_ANY"),
        ("[ 297, 200 ]", '[ "297", 200 ]'),
        ("model_warmup [", "model_warmup ["[:-1]),
    ],
)
def test_a_misspelt_config_would_be_noticed(schema: Any, bundle: Bundle, right: str, wrong: str) -> None:
    text = config(bundle, ONNX_MODEL)
    assert right in text
    parsed(schema, text)
    with pytest.raises(text_format().ParseError):
        parsed(schema, text.replace(right, wrong))


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_named_after_its_folder_and_its_newest_version_serves(
    schema: Any, repository: Path, model: str
) -> None:
    found = config_of(schema, repository, model)
    assert found.name == model
    assert found.version_policy.latest.num_versions == 1
    assert found.backend == {ONNX_MODEL: "onnxruntime", PLAN_MODEL: "tensorrt"}[model]


@pytest.mark.parametrize("model", MODELS)
def test_windows_wait_for_company_a_little_and_for_nothing_else(
    schema: Any, repository: Path, model: str
) -> None:
    batching = config_of(schema, repository, model).dynamic_batching
    assert 0 < batching.max_queue_delay_microseconds <= 0.05 * 240_000
    assert not batching.HasField("default_queue_policy"), "see LONGEST_DELAY_US"


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_warm_for_every_size_of_batch_before_it_is_ready(
    schema: Any, repository: Path, model: str
) -> None:
    found = config_of(schema, repository, model)
    assert [item.batch_size for item in found.model_warmup] == [1, 2, 4, 8, 16, 32]
    assert found.model_warmup[-1].batch_size == found.max_batch_size == LARGEST_BATCH
    for warmup in found.model_warmup:
        assert set(warmup.inputs) == {item.name for item in found.input}
        for item in found.input:
            filling = warmup.inputs[item.name]
            assert (filling.data_type, list(filling.dims)) == (item.data_type, list(item.dims))
            assert filling.zero_data


@pytest.mark.parametrize("model", MODELS)
def test_the_logits_are_labelled_with_the_emotions_in_order(
    schema: Any, repository: Path, model: str
) -> None:
    labels = {item.name: item.label_filename for item in config_of(schema, repository, model).output}
    assert labels == {"embedding": "", "logits": "emotions.txt"}
    lines = (repository / "models" / model / "emotions.txt").read_text("utf-8").splitlines()
    assert tuple(lines) == EMOTIONS


def test_the_advice_for_several_gpus_is_part_of_the_schema(schema: Any, repository: Path) -> None:
    text = (repository / "models" / PLAN_MODEL / "config.pbtxt").read_text("utf-8")
    advice = text[text.index("# cc_model_filenames") :].replace("# ", "").replace("#", "")
    found = parsed(schema, text + advice)
    assert dict(found.cc_model_filenames) == {"8.0": "sm80.plan", "9.0": "sm90.plan"}


@pytest.mark.parametrize("name", ['my "best"', "two\nlines: max_batch_size: 1", "{braces}", "ärger"])
def test_a_config_can_be_read_whatever_the_model_is_called(schema: Any, bundle: Bundle, name: str) -> None:
    named = replace(bundle, manifest=replace(bundle.manifest, name=name))
    found = parsed(schema, config(named, ONNX_MODEL))
    assert found.max_batch_size == LARGEST_BATCH


# What is served


def test_the_served_graph_does_what_the_bundle_does_one_by_one_and_in_the_largest_batch(
    bundle: Bundle, repository: Path
) -> None:
    frames = np.random.default_rng(0).standard_normal((LARGEST_BATCH, 297, 200)).astype(np.float32)
    expected = WindowEngine(bundle)(frames)
    session, terms = session_of(repository), network_terms(bundle, bundle.manifest.graphs.window_features)
    for batch in (frames, frames[:1]):
        found = session.run(["embedding", "logits"], {"frames": batch})
        for one, other in zip(found, expected, strict=True):
            tolerance = float32_tolerance(terms, largest(other))
            np.testing.assert_allclose(one, other[: len(batch)], rtol=0, atol=tolerance)


def test_the_served_graph_is_fp32_throughout(repository: Path) -> None:
    graph = onnx.load(str(repository / "models" / ONNX_MODEL / "1" / "model.onnx")).graph
    kinds = {item.data_type for item in graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert "Cast" not in {node.op_type for node in graph.node}


def test_the_folder_holds_models_bundle_and_client_and_no_invented_plan(
    bundle: Bundle, repository: Path
) -> None:
    models = {
        *(f"models/{model}/{name}" for model in MODELS for name in ("config.pbtxt", "emotions.txt")),
        f"models/{ONNX_MODEL}/1/model.onnx",
    }
    of_bundle = {f"bundle/{name}" for name in ("model.json", *bundle.manifest.files)}
    assert files_of(repository) == {"README.md", "client.py", *models, *of_bundle}
    assert load_bundle(repository / "bundle").fingerprint == bundle.fingerprint


@pytest.mark.parametrize("model", MODELS)
def test_the_readme_names_what_there_is(repository: Path, model: str) -> None:
    text = (repository / "README.md").read_text("utf-8")
    assert model in text
    assert f"--batch {LARGEST_BATCH} " in text


# In the way


def test_a_folder_is_replaced_only_if_asked_for_and_wholly(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_repository(bundle, out)
    plan = out / "models" / PLAN_MODEL / "1" / "model.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"of the old model")
    with pytest.raises(UsageError, match="add --replace"):
        write_repository(bundle, out)
    assert plan.exists()
    write_repository(bundle, out, replace=True)
    assert not plan.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture(params=["folder", "file"])
def stranger(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    out = tmp_path / "out"
    if request.param == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    else:
        out.write_text("years of work")
    yield out
    assert "years of work" in (out if out.is_file() else out / "thesis.txt").read_text()


def test_what_is_not_ours_is_never_replaced(bundle: Bundle, stranger: Path) -> None:
    with pytest.raises(UsageError, match="is not a Triton folder of mmtl"):
        write_repository(bundle, stranger, replace=True)


def test_a_failure_leaves_the_old_folder_and_nothing_else(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_repository(bundle, out)
    before = files_of(out)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("export.triton._copy_bundle", full)
    with pytest.raises(UsageError, match=r"\(No space left on device\): make room"):
        write_repository(bundle, out, replace=True)
    assert files_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write") as caught:
        write_repository(bundle, tmp_path / "file" / "out")
    assert "\n" not in str(caught.value)


def test_an_export_writes_it(tmp_path: Path) -> None:
    request = ExportRequest("triton", tmp_path / "out", name="anna")
    out = export_target(TrainedModel(tiny_checkpoint()), request, Checks())
    assert load_bundle(out / "bundle").manifest.name == "anna"
    assert 'Model "anna"' in (out / "models" / ONNX_MODEL / "config.pbtxt").read_text("utf-8")
