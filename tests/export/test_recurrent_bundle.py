"""A checkpoint of a network on a recurrent encoder becomes a bundle that computes each frame once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.arrays import Array
from edge.diagnostics.benchmark import whole_window
from edge.diagnostics.verification import verify
from edge.engine_builder.candidates import candidates
from edge.errors import EngineError, ModelError, UsageError, VerificationError
from edge.features.mel_power import MEL_POWER
from edge.inference.engine import EncoderState, Engine
from edge.inference.provider import open_engine
from edge.model.bundle import Bundle, load_bundle
from edge.model.engine_files import require_window_graph
from edge.model.manifest import Graphs, required_files
from export.bundling import export_bundle
from export.parity import Checks
from export.parity_audio import shipped_sound
from export.recurrent_graph import recurrent_encoder_graph
from export.targets import ExportRequest, export_target
from export.trained_model import TrainedModel
from tests.train.synthetic import TINY_RECURRENT, tiny_checkpoint, tiny_pretrained, tiny_recurrent
from train.checkpoint import load_checkpoint, load_pretrained, save_checkpoint
from train.recurrent_net import RecurrentNet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "recurrent"
    parity = export_bundle(tiny_recurrent(), path, "recurrent one")
    assert [row.name for row in parity.rows] == ["stream", "stream with a baseline"]
    assert all(row.passed for row in parity.rows)
    return path


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


def test_it_has_an_encoder_and_a_classifier_and_no_graph_of_windows(folder: Path, bundle: Bundle) -> None:
    assert {path.name for path in folder.iterdir()} == {*required_files("recurrent"), "model.json"}
    assert bundle.manifest.front_end == MEL_POWER
    assert bundle.manifest.graphs == Graphs(
        state_shapes=((16,),) * 6,
        feature_size=2 * 16 + 1,
        embedding_size=3 * 16,
        frames_per_feature=8,
        frames_for_first=8,
        window_features=37,
        execution="recurrent",
        first_window_features=19,
    )


def test_streaming_equals_the_encoder_over_the_whole_recording(bundle: Bundle) -> None:
    report = verify(bundle, shipped_sound(), step_ms=240)
    assert report.passed
    assert report.spread > 0.05


def test_a_state_that_is_not_carried_over_is_found(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Engine.encode

    def forgetful(self: Engine, frames: Array, state: EncoderState) -> tuple[Array, EncoderState]:
        return encode(self, frames, state)[0], self.initial_state()

    monkeypatch.setattr(Engine, "encode", forgetful)
    assert not verify(bundle, shipped_sound(), step_ms=240).equal


def test_the_benchmark_has_a_whole_window_to_compare_a_step_with(bundle: Bundle) -> None:
    probs = whole_window(bundle)(shipped_sound())
    assert isinstance(probs, np.ndarray)
    assert probs.shape == (1, 4)


def test_streams_keep_states_of_their_own(bundle: Bundle) -> None:
    engine = open_engine(bundle, "cpu")
    frames = np.random.default_rng(0).random((2, 16, 40)).astype(np.float32)
    both, _ = engine.encode(frames, engine.initial_state(2))
    for index in range(2):
        alone, _ = engine.encode(frames[index : index + 1], engine.initial_state())
        np.testing.assert_allclose(both[index], alone[0], rtol=0, atol=1e-6)


def test_tensorrt_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot run on TensorRT"):
        require_window_graph(bundle)
    with pytest.raises(EngineError, match="cannot run on TensorRT"):
        candidates(bundle, "auto")
    request = ExportRequest("tensorrt", tmp_path / "engine")
    with pytest.raises(UsageError, match="for networks that run by whole windows"):
        export_target(TrainedModel(tiny_recurrent()), request, Checks())


def test_graphs_of_other_weights_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = recurrent_encoder_graph(tiny_recurrent(seed=1).net)
    monkeypatch.setattr("export.bundling.recurrent_encoder_graph", lambda net: drawn)
    with pytest.raises(VerificationError, match="nothing was written"):
        export_bundle(tiny_recurrent(), tmp_path / "wrong", "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_checkpoint_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = tiny_recurrent()
    save_checkpoint(tmp_path / "one.safetensors", saved)
    read = load_checkpoint(tmp_path / "one.safetensors")
    assert isinstance(read.net, RecurrentNet)
    assert read.net.arch == TINY_RECURRENT
    assert (read.front_end, read.normalisation.levels) == (saved.front_end, saved.normalisation.levels)
    for name, tensor in saved.net.state_dict().items():
        torch.testing.assert_close(read.net.state_dict()[name], tensor, rtol=0, atol=0)
    with pytest.raises(ModelError, match="recurrent encoder"):
        load_pretrained(tmp_path / "one.safetensors")


def test_the_front_end_of_another_network_is_refused(tmp_path: Path) -> None:
    for other in (tiny_checkpoint().front_end, tiny_pretrained().front_end):
        save_checkpoint(tmp_path / "one.safetensors", replace(tiny_recurrent(), front_end=other))
        with pytest.raises(ModelError, match="front-end"):
            load_checkpoint(tmp_path / "one.safetensors")
