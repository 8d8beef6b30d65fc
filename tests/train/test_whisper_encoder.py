"""The pretrained encoder computes what its reference did, and refuses a file of something else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edge.errors import ModelError
from edge.features.frontend import MEL_BANDS
from tests.tolerances import float32_tolerance, largest
from tests.train.synthetic import terms_of
from train.whisper_encoder import HEAD_SIZE, WhisperEncoder, load_whisper_encoder

PRETRAINED = Path(os.environ.get("MMTL_PRETRAINED", "../shared/pretrained"))


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: value.half() for name, value in WhisperEncoder(HEAD_SIZE, 2).state_dict().items()}


def written(tensors: dict[str, Tensor], folder: Path) -> Path:
    save_file(tensors, folder / "encoder.safetensors")
    return folder / "encoder.safetensors"


def test_the_first_blocks_of_a_file_are_taken(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path, frames = written(tensors, tmp_path), torch.randn(1, 50, MEL_BANDS)
    one, two = (load_whisper_encoder(path, blocks).hidden_states(frames) for blocks in (1, 2))
    assert [tuple(states.shape) for states in two] == [(1, 25, HEAD_SIZE)] * 3
    torch.testing.assert_close(one, two[:2])


def test_an_item_of_a_batch_does_not_depend_on_its_padding(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    encoder = load_whisper_encoder(written(tensors, tmp_path), 2)
    lengths = torch.tensor([60, 41, 7])
    frames = torch.zeros(3, 60, MEL_BANDS)
    items = [torch.randn(int(length), MEL_BANDS) for length in lengths]
    for row, item in zip(frames, items, strict=True):
        row[: len(item)] = item
    states = encoder(frames, lengths)
    for row, item, count in zip(states, items, encoder.states_in(lengths).tolist(), strict=True):
        single = encoder(item[None])[0].detach()
        tolerance = float32_tolerance(terms_of(encoder), largest(single))
        torch.testing.assert_close(row[:count], single, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv1.weight", None, "no conv1.weight"),
        ("block.1.mlp.up.weight", None, "block.1.mlp.up.weight should be"),
        ("block.0.attention.qkv.weight", torch.zeros(3, 3), "block.0.attention.qkv.weight should be"),
        ("conv2.bias", torch.full((HEAD_SIZE,), float("nan")), "conv2.bias holds numbers"),
    ],
)
def test_a_file_of_another_model_is_refused(
    tensors: dict[str, Tensor], tmp_path: Path, name: str, value: Tensor | None, said: str
) -> None:
    del tensors[name]
    changed = {**tensors, name: value} if value is not None else tensors
    with pytest.raises(ModelError, match=said):
        load_whisper_encoder(written(changed, tmp_path), 2)


def test_more_blocks_than_the_file_holds_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds 2 blocks, not 3"):
        load_whisper_encoder(written(tensors, tmp_path), 3)


def test_a_file_cut_short_or_missing_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = written(tensors, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load_whisper_encoder(path, 2)
    with pytest.raises(ModelError, match="no pretrained encoder"):
        load_whisper_encoder(tmp_path / "other.safetensors", 2)


@pytest.mark.data
@pytest.mark.skipif(not PRETRAINED.is_dir(), reason=f"no pretrained encoder in {PRETRAINED}")
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_it_equals_the_reference(size: str) -> None:
    encoder = load_whisper_encoder(PRETRAINED / f"whisper_{size}_encoder_3_blocks.safetensors", 3)
    with np.load(PRETRAINED / "reference.npz") as reference, torch.inference_mode():
        states = encoder.hidden_states(torch.from_numpy(reference["log_mel"].T.copy())[None])
        for found, name in zip(states, ("stem", "block_0", "block_1", "block_2"), strict=True):
            np.testing.assert_allclose(found[0], reference[f"{size}.after_{name}"], atol=1e-4)
