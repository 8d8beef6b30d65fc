from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from calibrate.fitting.embeddings import extract_embeddings
from calibrate.takes import InputNormalisation, Ratings, Take
from edge.arrays import Array
from edge.features.frontend import filtered, power_spectrogram
from edge.features.normaliser import Normaliser
from edge.inference.engine import Engine
from edge.labels import DIMENSIONS, EMOTIONS
from edge.model.bundle import Bundle
from tests.train.synthetic import tiny_checkpoint, voice
from train.mmtl import MetaRates, Samples, Weights, multi_train_step
from train.model import EmotionNet
from train.speaker_finetune import SEGMENTS, Tuning, answer, speaker_samples, tune


def take(emotion: str, ratings: Ratings = (None, None, None)) -> Take:
    return Take(Path("take.wav"), EMOTIONS.index(emotion), ratings=ratings)


def noise(frames: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((frames, 200)).astype(np.float32)


def some_samples(bundle: Bundle, each: int = 1) -> Samples:
    takes = [take(emotion) for emotion in EMOTIONS] * each
    frames = [noise(60 + 5 * index, index) for index in range(len(takes))]
    return speaker_samples(frames, takes, bundle.manifest.graphs, DIMENSIONS)


def tuned(samples: Samples, tuning: Tuning) -> EmotionNet:
    net = tiny_checkpoint().net
    for _ in tune(net, samples, tuning):
        pass
    return net


def by_hand_loss(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Weigh each class by the inverse of its count; nothing of train.mmtl is in it."""
    weights = torch.tensor([1.0 / labels.count(label) for label in labels])
    losses = F.cross_entropy(logits, torch.tensor(labels), reduction="none")
    return (weights * losses).sum() / weights.sum()


def test_a_step_is_equation_4_by_autograd_on_every_layer_but_the_norms(bundle: Bundle) -> None:
    samples = some_samples(bundle)
    after = dict(
        tuned(samples, Tuning(inner_lr=0.3, inner_steps=1, transfer_steps=0)).meta.named_parameters()
    )
    meta = tiny_checkpoint().net.meta
    logits = meta(samples.frames, samples.lengths)
    loss = torch.stack([by_hand_loss(logits, labels) for labels in samples.ratings.tolist()]).mean()
    torch.autograd.backward(loss)
    for name, before in meta.named_parameters():
        assert before.grad is not None
        if "norm" in name:
            assert torch.equal(after[name], before), name
        else:
            assert before.grad.abs().max() > 0, name
            torch.testing.assert_close(after[name], before - 0.3 * before.grad, msg=name)


def test_then_a_step_is_equation_5_at_the_meta_learner_that_equation_4_left(bundle: Bundle) -> None:
    samples = some_samples(bundle)
    net = tuned(samples, Tuning(inner_lr=0.3, inner_steps=1, transfer_lr=0.5, transfer_steps=1))
    before = tiny_checkpoint().net.transfer
    logits = before(net.meta(samples.frames, samples.lengths).detach())
    torch.autograd.backward(by_hand_loss(logits, samples.emotion.tolist()))
    for name, weight in net.transfer.named_parameters():
        start = before.get_parameter(name)
        assert start.grad is not None
        torch.testing.assert_close(weight, start - 0.5 * start.grad)


def test_batch_normalisation_stays_as_it_was_learned(bundle: Bundle) -> None:
    net, generic = tuned(some_samples(bundle), Tuning(inner_steps=2)), tiny_checkpoint().net
    for name, buffer in generic.named_buffers():
        assert torch.equal(net.get_buffer(name), buffer), name


def emotion_loss_of(net: EmotionNet, samples: Samples) -> float:
    with torch.no_grad():
        return F.cross_entropy(net(samples.frames, samples.lengths), samples.emotion).item()


def test_both_losses_fall(bundle: Bundle) -> None:
    samples, net = some_samples(bundle), tiny_checkpoint().net
    losses = list(tune(net, samples, Tuning(inner_lr=0.03, inner_steps=5)))
    assert losses[-1] < losses[0]
    assert emotion_loss_of(net, samples) < emotion_loss_of(tiny_checkpoint().net, samples)


def test_a_network_that_was_not_tuned_to_the_end_is_as_it_was(bundle: Bundle) -> None:
    net, generic = tiny_checkpoint().net, tiny_checkpoint().net
    steps = tune(net, some_samples(bundle), Tuning(inner_steps=3))
    next(steps)
    del steps
    assert all(torch.equal(net.state_dict()[name], value) for name, value in generic.state_dict().items())


def test_the_seed_decides_it_all(bundle: Bundle) -> None:
    samples = some_samples(bundle, each=5)
    assert len(samples.frames) > SEGMENTS, "more than a step takes, so that some are drawn"

    def first(seed: int) -> Tensor:
        return tuned(samples, Tuning(inner_steps=2, transfer_steps=1, seed=seed)).meta.fc1.weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_step_takes_a_bounded_number_of_segments(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, sizes = some_samples(bundle, each=5), []

    def spied(meta: nn.Module, theta: Weights, support: Samples, rates: MetaRates) -> tuple[Weights, float]:
        sizes.append(len(support.frames))
        return multi_train_step(meta, theta, support, rates)

    monkeypatch.setattr("train.speaker_finetune.multi_train_step", spied)
    tuned(samples, Tuning(inner_steps=3, transfer_steps=1))
    assert len(samples.frames) > SEGMENTS
    assert sizes == [SEGMENTS] * 3


def test_a_take_longer_than_a_window_is_cut_into_segments_of_its_label(bundle: Bundle) -> None:
    frames = [noise(300), noise(60)]
    samples = speaker_samples(frames, [take("sad"), take("angry")], bundle.manifest.graphs, DIMENSIONS)
    assert samples.lengths.tolist() == [297, 297, 60]
    assert samples.emotion.tolist() == [2, 2, 3]
    assert torch.equal(samples.frames[1], torch.from_numpy(frames[0][3:]))
    assert not samples.frames[2, 60:].any()


def test_given_ratings_are_used_and_the_others_derived_from_the_emotion(bundle: Bundle) -> None:
    takes = [take("sad", (1.0, None, 5.0)), take("sad")]
    frames = [noise(60), noise(60)]
    samples = speaker_samples(frames, takes, bundle.manifest.graphs, DIMENSIONS)
    assert samples.ratings.tolist() == [[0, 0], [1, 1], [3, 1]]  # sad: 1.74, 2.46, 2.34
    some = speaker_samples(frames, takes, bundle.manifest.graphs, ("dominance",))
    assert some.ratings.tolist() == [[3, 1]]


@pytest.mark.parametrize("seconds", [0.6, 2.0, 4.1])
def test_a_take_is_answered_as_the_runtime_answers_it(bundle: Bundle, seconds: float) -> None:
    manifest, sound = bundle.manifest, voice(1, "happy", 0, seconds)
    clean = filtered(sound, manifest.front_end)
    normalisation = InputNormalisation(manifest.levels, bundle.statistics)
    (heard,) = extract_embeddings(Engine(bundle, "cpu"), manifest.front_end, normalisation, [sound])
    frames = Normaliser(manifest.levels, bundle.statistics)(power_spectrogram(clean, manifest.front_end))
    said = answer(tiny_checkpoint().net, frames, manifest, bundle.head.temperature)
    np.testing.assert_allclose(said, bundle.head.probs(heard).mean(axis=0), atol=1e-4)
