from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.tolerances import float32_tolerance, largest
from tests.train.synthetic import TINY, terms_of, with_random_norms
from train.model import Architecture, EmotionNet, MetaLearner
from train.precision import Precision, autocast, supported_precisions

CPU = torch.device("cpu")
WIDE = Architecture(channels=(2, 3, 4), projection=None, hidden=8, fully_connected=8, pooling="last")


def net_of(arch: Architecture) -> EmotionNet:
    torch.manual_seed(0)
    return with_random_norms(EmotionNet(arch)).eval()


def frames_of(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, frames, 200, generator=torch.Generator().manual_seed(seed))


def test_the_papers_network_has_1_04_million_parameters() -> None:
    net = EmotionNet(Architecture.paper())
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_035_936


def test_the_papers_layers_are_those_of_table_1() -> None:
    net = EmotionNet(Architecture.paper())
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.kernel_size, conv.out_channels, conv.stride) for conv in convolutions] == [
        ((12, 16), 16, (1, 1)),
        ((8, 12), 24, (1, 1)),
        ((5, 7), 32, (1, 1)),
    ]
    assert net.meta.lstm.bidirectional
    sizes = [net.meta.lstm.hidden_size] + [
        layer.out_features for layer in (net.meta.fc1, net.meta.fc2, net.transfer.fc3)
    ]
    assert sizes == [128, 64, 4, 4]
    assert not [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("arch", [Architecture(), Architecture.paper()])
def test_a_window_of_the_real_network_becomes_four_logits(arch: Architecture) -> None:
    net = net_of(arch)
    with torch.no_grad():
        features = net.meta.features(frames_of(1, 297))
        assert features.shape == (1, arch.features_in(297), arch.projection or 800)
        assert net.meta.embedding(features).shape == (1, 256)
        assert net(frames_of(1, 297)).shape == (1, 4)


@pytest.mark.parametrize("arch", [TINY, Architecture.paper()])
@pytest.mark.parametrize("frames", [49, 50, 56, 57, 100, 143])
def test_features_in_is_what_the_network_yields(arch: Architecture, frames: int) -> None:
    with torch.no_grad():
        assert MetaLearner(arch).features(frames_of(1, frames)).shape[1] == arch.features_in(frames)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padded_sequences_are_summarised_as_packed_ones_are(pooling: Literal["mean", "last"]) -> None:
    meta = net_of(replace(TINY, pooling=pooling)).meta
    lengths = torch.tensor([9, 1, 6, 9, 3])
    features = torch.randn(5, 9, meta.lstm.input_size)
    packed = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
    outputs, (last, _) = meta.lstm(packed)
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    expected = {"mean": unpacked.sum(dim=1) / lengths[:, None], "last": torch.cat([*last], dim=1)}[pooling]
    found = meta.embedding(features, lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    weights = list(meta.lstm.parameters())
    gradients = [torch.autograd.grad(summary.sum(), weights) for summary in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-5)


def test_fewer_frames_than_a_feature_takes_are_none() -> None:
    assert [Architecture().features_in(frames) for frames in (0, 1, 48, 49)] == [0, 0, 0, 1]


@pytest.mark.parametrize("arch", [TINY, WIDE])
def test_features_do_not_depend_on_what_comes_before_or_after(arch: Architecture) -> None:
    meta, frames = net_of(arch).meta, frames_of(1, 161)
    with torch.no_grad():
        features = meta.features(frames)
        for place in range(features.shape[1]):
            single = meta.features(frames[:, 8 * place : 8 * place + 49])
            tolerance = float32_tolerance(terms_of(meta), largest(features))
            torch.testing.assert_close(single, features[:, place : place + 1], rtol=0, atol=tolerance)


def test_the_papers_features_do_depend_on_it() -> None:
    """The twin of the test above: padding in time would be noticed."""
    meta, frames = net_of(Architecture.paper()).meta, frames_of(1, 96)
    with torch.no_grad():
        features, single = meta.features(frames), meta.features(frames[:, 16:72])
    assert (single[:, 0] - features[:, 2]).abs().max() > 1e-2


@pytest.mark.parametrize("arch", [TINY, WIDE])
def test_padding_does_not_matter(arch: Architecture) -> None:
    net, lengths = net_of(arch), [60, 120, 75]
    frames = frames_of(3, 120)
    with torch.no_grad():
        together = net(frames, torch.tensor(lengths))  # what lies past the end is noise
        for row, length in enumerate(lengths):
            single = net(frames[row : row + 1, :length])
            tolerance = float32_tolerance(arch.features_in(120) * terms_of(net), largest(together))
            torch.testing.assert_close(together[row : row + 1], single, rtol=0, atol=tolerance)


def test_ignoring_the_lengths_would_be_noticed() -> None:
    net, frames = net_of(TINY), frames_of(1, 120)
    with torch.no_grad():
        assert (net(frames) - net(frames, torch.tensor([60]))).abs().max() > 1e-3


@pytest.mark.parametrize("precision", supported_precisions(CPU))
def test_channels_last_and_each_precision_run_without_warnings_and_mean_the_same(
    precision: Precision,
) -> None:
    net, frames, lengths = net_of(TINY), frames_of(2, 120), torch.tensor([120, 80])
    plain = net(frames, lengths)
    net = net.to(memory_format=torch.channels_last)
    with autocast(CPU, precision):
        logits = net(frames, lengths)
    torch.autograd.backward(logits.float().sum())
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(logits.float(), plain, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("heads", "emotions", "dimensions", "outputs"),
    [
        ("shared", "transferred", 1, 4),
        ("shared", "transferred", 3, 4),
        ("separate", "transferred", 2, 8),
        ("separate", "transferred", 3, 12),
        ("separate", "direct", 1, 8),
        ("separate", "direct", 3, 16),
    ],
)
def test_heads_have_the_outputs_their_tasks_need(
    heads: str, emotions: str, dimensions: int, outputs: int
) -> None:
    arch = Architecture(
        channels=(2, 3, 4),
        hidden=8,
        projection=8,
        heads=heads,  # type: ignore[arg-type]
        emotions=emotions,  # type: ignore[arg-type]
        dimensions=dimensions,
    )
    net = net_of(arch)
    with torch.no_grad():
        assert net.meta(frames_of(2, 60)).shape == (2, outputs)
        assert net(frames_of(2, 60)).shape == (2, 4)


def test_direct_emotions_are_the_last_outputs_and_stay_so() -> None:
    arch = Architecture(channels=(2, 3, 4), hidden=8, projection=8, heads="separate", emotions="direct")
    net, frames = net_of(arch), frames_of(2, 60)
    with torch.no_grad():
        assert torch.equal(net(frames), net.meta(frames)[:, -4:])
    assert not any(parameter.requires_grad for parameter in net.transfer.parameters())


def test_direct_emotions_with_a_shared_head_are_refused() -> None:
    with pytest.raises(ValueError, match="separate heads"):
        Architecture(heads="shared", emotions="direct")
