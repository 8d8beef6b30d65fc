"""The last block of an encoder: its cached states, and its tuning on the emotions of some speakers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.synthetic import write_corpus
from train import last_block
from train.corpora import Clip, read_corpus
from train.feature_cache import Copy, cached_features
from train.last_block import BlockTuning, States, cached_states, tuned_block
from train.pretrained_net import PretrainedArchitecture, PretrainedNet
from train.recording_conditions import Ambience, ChannelConfig
from train.speaker_head import EmbeddingStatistics, fit_statistics
from train.whisper_encoder import HEAD_SIZE

CONDITIONS = (Ambience((), ()), ChannelConfig())


def silently(clips: Sequence[Clip], label: str) -> Iterable[Clip]:
    return clips


@pytest.fixture(scope="module", params=[1, 2])
def net(request: pytest.FixtureRequest) -> PretrainedNet:
    torch.manual_seed(0)
    return PretrainedNet(PretrainedArchitecture(width=HEAD_SIZE, blocks=request.param)).eval()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Of different lengths, the longest of two windows."""
    found: list[Clip] = []
    for seconds in (0.5, 1.1, 3.6):
        folder = write_corpus(tmp_path_factory.mktemp("clips"), speakers=2, takes=1, seconds=seconds)
        found += read_corpus(folder)
    return found


@pytest.fixture
def states(clips: list[Clip], net: PretrainedNet, tmp_path: Path) -> States:
    return cached_states(tmp_path, clips, net, Copy(0), CONDITIONS, silently)


def statistics_of(states: States, net: PretrainedNet) -> EmbeddingStatistics:
    return fit_statistics(states.pooled(net.encoder.block[-1]).values.astype(np.float32))


def tuned(
    states: States, net: PretrainedNet, clips: list[Clip], speakers: Iterable[str], options: BlockTuning
) -> torch.nn.Module:
    return tuned_block(net, clips, [states], frozenset(speakers), statistics_of(states, net), options)


@pytest.mark.parametrize("number", [0, 1])
def test_the_published_block_on_the_states_gives_the_features(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path, number: int
) -> None:
    expected = cached_features(tmp_path, clips, net, Copy(number), CONDITIONS, silently)
    kept = cached_states(tmp_path, clips, net, Copy(number), CONDITIONS, silently)
    found = kept.pooled(net.encoder.block[-1])
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=4e-3)
    np.testing.assert_array_equal(found.clip, expected.clip)
    np.testing.assert_array_equal(found.frames, expected.frames)
    assert (found.seconds, found.digests) == (expected.seconds, expected.digests)


def test_states_are_not_computed_twice_and_are_mapped_from_disk(
    clips: list[Clip], net: PretrainedNet, states: States, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(last_block, "encoded_clips")
    again = cached_states(tmp_path, clips, net, Copy(0), CONDITIONS, silently)
    assert isinstance(again.values, np.memmap)
    np.testing.assert_array_equal(again.values, states.values)


def test_states_that_were_cut_short_are_computed_again(
    clips: list[Clip], net: PretrainedNet, states: States, tmp_path: Path
) -> None:
    shorter, file = np.array(states.values[:-1]), tmp_path / "states-copy-0-0.npy"
    file.unlink()  # it is mapped
    np.save(file, shorter)
    again = cached_states(tmp_path, clips, net, Copy(0), CONDITIONS, silently)
    assert len(again.values) == len(states.values)


def test_a_block_that_is_tuned_in_no_step_is_the_published_one_in_float16(
    clips: list[Clip], net: PretrainedNet, states: States
) -> None:
    block = tuned(states, net, clips, ["s0"], BlockTuning(steps=0))
    for name, tensor in net.encoder.block[-1].state_dict().items():
        torch.testing.assert_close(block.state_dict()[name], tensor.half().float(), rtol=0, atol=0)


def test_tuning_changes_a_copy_of_the_block_whose_weights_fit_float16(
    clips: list[Clip], net: PretrainedNet, states: States
) -> None:
    before = {name: tensor.clone() for name, tensor in net.encoder.state_dict().items()}
    block = tuned(states, net, clips, ["s0", "s1"], BlockTuning(steps=2, windows=4))
    assert not block.training
    for name, tensor in net.encoder.state_dict().items():
        assert torch.equal(before[name], tensor), name
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, tensor.half().float()), name
    published = net.encoder.block[-1].state_dict()
    assert any(
        not torch.equal(tensor, published[name].half().float()) for name, tensor in block.state_dict().items()
    )


def test_held_out_speakers_do_not_change_the_block(
    clips: list[Clip], net: PretrainedNet, states: States
) -> None:
    options = BlockTuning(steps=2, windows=4)
    statistics = statistics_of(states, net)
    found = tuned_block(net, clips, [states], frozenset(["s0"]), statistics, options)
    other = [replace(clip, emotion="sad") if clip.speaker == "s1" else clip for clip in clips]
    heard = np.array([clip.speaker == "s0" for clip in clips])[states.clip]
    counts = np.repeat(heard, last_block.states_in(states.frames))
    silent = replace(states, values=np.where(counts[:, None], states.values, np.float16(7)))
    again = tuned_block(net, other, [silent], frozenset(["s0"]), statistics, options)
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_block_learns_the_emotions(clips: list[Clip], net: PretrainedNet, states: States) -> None:
    """Of classes that differ in their states: the loss of the last steps is below that of the first."""
    losses: list[float] = []
    ordinary = torch.autograd.backward

    def watched(loss: torch.Tensor) -> None:
        losses.append(float(loss.detach()))
        ordinary(loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "backward", watched)
        tuned(states, net, clips, ["s0", "s1"], BlockTuning(steps=60, windows=16, learning_rate=1e-3))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
