"""The recurrent encoder computes what its reference did, in pieces too, and refuses another kind of file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edge.errors import ModelError
from edge.features.frontend import MEL_POWER_BANDS
from train.recurrent_net import (
    RecurrentArchitecture,
    RecurrentEncoder,
    RecurrentNet,
    load_recurrent_encoder,
)

PRETRAINED = Path(os.environ.get("MMTL_PRETRAINED", "../shared/pretrained"))
UNITS = 16


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    names = RecurrentEncoder(UNITS, 3).state_dict()
    return {
        f"lstm.{name.split('.')[2][:-1]}{name.split('.')[1]}": value.half() for name, value in names.items()
    }


def written(tensors: dict[str, Tensor], folder: Path) -> Path:
    save_file(tensors, folder / "encoder.safetensors")
    return folder / "encoder.safetensors"


@pytest.fixture(scope="module")
def net() -> RecurrentNet:
    torch.manual_seed(0)
    return RecurrentNet(RecurrentArchitecture(units=UNITS)).eval()


def frames(items: int = 2, count: int = 40) -> Tensor:
    return torch.rand(items, count, MEL_POWER_BANDS, generator=torch.Generator().manual_seed(1))


def test_the_published_names_are_read_into_the_layers(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = load_recurrent_encoder(written(tensors, tmp_path))
    reference = torch.nn.LSTM(MEL_POWER_BANDS, UNITS, 3, batch_first=True)
    reference.load_state_dict({name.removeprefix("lstm."): value.float() for name, value in tensors.items()})
    torch.testing.assert_close(encoder.hidden_states(frames())[0][-1], reference(frames())[0])


def test_the_features_of_a_stream_are_those_of_the_whole(net: RecurrentNet) -> None:
    whole, _ = net.encoder(frames())
    state, parts = None, []
    for first, last in ((0, 8), (8, 32), (32, 40)):
        part, state = net.encoder(frames()[:, first:last], state)
        parts.append(part)
    assert whole.shape == (2, 5, net.arch.feature_size)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_a_feature_is_the_mean_of_eight_outputs_of_the_last_two_layers_and_the_level(
    net: RecurrentNet,
) -> None:
    outputs, _ = net.encoder.hidden_states(frames())
    feature = net.encoder(frames())[0][:, 1]
    expected = torch.cat([outputs[1], outputs[2]], dim=2)[:, 8:16].mean(dim=1)
    torch.testing.assert_close(feature[:, :-1], expected)
    torch.testing.assert_close(feature[:, -1], frames()[:, 8:16].mean(dim=(1, 2)).log())


def test_the_embedding_is_the_mean_of_two_layers_and_the_deviation_of_the_last(net: RecurrentNet) -> None:
    features, _ = net.encoder(frames(1))
    states = features[:, :, :-1]
    expected = torch.cat([states.mean(1), states[:, :, UNITS:].std(1, correction=0)], dim=1)
    assert expected.shape == (1, net.arch.embedding_size)
    torch.testing.assert_close(net.pooled(features), expected)


def test_pauses_hardly_count_in_the_embedding(net: RecurrentNet) -> None:
    features, _ = net.encoder(frames(1))
    paused = torch.cat([features, torch.full_like(features, 0.5)], dim=1)
    heard, quiet = paused.clone(), paused.clone()
    heard[:, 5:, -1], quiet[:, 5:, -1] = -2.0, -18.0
    expected = net.pooled(features)
    assert (net.pooled(heard) - expected).abs().max() > 0.1
    torch.testing.assert_close(net.pooled(quiet), expected, atol=0.02, rtol=0.0)


def test_a_window_of_silence_is_pooled_evenly(net: RecurrentNet) -> None:
    features = net.encoder(frames(1))[0].clone()
    features[:, :, -1] = -20.0
    torch.testing.assert_close(net.pooled(features)[:, :UNITS], features[:, :, :UNITS].mean(dim=1))


def test_padding_has_no_effect(net: RecurrentNet) -> None:
    padded = net.encoder(frames())[0].clone()
    padded[1, 3:] = 9.0
    found = net.pooled(padded, torch.tensor([5, 3]))
    torch.testing.assert_close(found[1:], net.pooled(padded[1:, :3]))
    torch.testing.assert_close(found[:1], net.pooled(padded[:1]))


def test_a_baseline_of_zero_is_no_baseline_and_another_one_counts(net: RecurrentNet) -> None:
    features, _ = net.encoder(frames())
    zero = torch.zeros(net.arch.embedding_size)
    torch.testing.assert_close(net(features, zero), net(features))
    assert (net(features, zero + 1.0) - net(features)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lstm.weight_hh_l0", None, "no lstm.weight_hh_l0"),
        ("lstm.bias_ih_l1", None, "lstm.bias_ih_l1 should be"),
        ("lstm.weight_ih_l0", torch.zeros(4 * UNITS, 80), "lstm.weight_ih_l0 should be"),
        ("lstm.bias_hh_l2", torch.full((4 * UNITS,), float("nan")), "lstm.bias_hh_l2 holds numbers"),
    ],
)
def test_a_file_of_another_model_is_refused(
    tensors: dict[str, Tensor], tmp_path: Path, name: str, value: Tensor | None, said: str
) -> None:
    del tensors[name]
    changed = {**tensors, name: value} if value is not None else tensors
    with pytest.raises(ModelError, match=said):
        load_recurrent_encoder(written(changed, tmp_path))


def test_a_file_cut_short_or_missing_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = written(tensors, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load_recurrent_encoder(path)
    with pytest.raises(ModelError, match="no pretrained encoder"):
        load_recurrent_encoder(tmp_path / "other.safetensors")


@pytest.mark.data
@pytest.mark.skipif(not PRETRAINED.is_dir(), reason=f"no pretrained encoder in {PRETRAINED}")
def test_it_equals_the_reference() -> None:
    encoder = load_recurrent_encoder(PRETRAINED / "resemblyzer_lstm_3_layers.safetensors")
    with np.load(PRETRAINED / "reference.npz") as reference, torch.inference_mode():
        outputs, _ = encoder.hidden_states(torch.from_numpy(reference["resemblyzer.power_mel"])[None])
        np.testing.assert_allclose(outputs[-1][0], reference["resemblyzer.last_layer"], atol=1e-5)
