from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge.errors import ModelError
from edge.labels import DIMENSIONS
from tests.train.synthetic import TINY, make_spectra
from train.augment import Augmentation
from train.batches import SamplingConfig
from train.mmtl import Loss, MetaRates, Samples
from train.model import Architecture, EmotionNet
from train.precision import Precision, supported_precisions
from train.segments import Spectra, fit_normalisation, normalised
from train.systems.base import System
from train.training import PAPER_STEP, Algorithm, Computing, Options, OuterStep, Training, predict, scheduled

CPU = torch.device("cpu")
ALGORITHMS: tuple[Algorithm, ...] = ("erm", "mtl", "mmtl", "reptile")
DRAW = SamplingConfig(window=80, batch_size=8, speakers=2, samples=8)


def arch_for(algorithm: Algorithm) -> Architecture:
    arch = replace(TINY, dropout=0.2)
    return replace(arch, heads="separate", emotions="direct") if algorithm == "mtl" else arch


def options_for(algorithm: Algorithm, **changes: object) -> Options:
    options = Options(algorithm=algorithm, epochs=4, draw=DRAW, learning_rate=0.01)
    return replace(options, **changes)  # type: ignore[arg-type]


def training_of(
    options: Options,
    spectra: list[Spectra] | None = None,
    outer: OuterStep | None = None,
    precision: Precision = "float32",
) -> Training:
    spectra = spectra or make_spectra(4, takes=2)
    torch.manual_seed(0)
    net = EmotionNet(arch_for(options.algorithm))
    return Training(
        net, spectra, fit_normalisation(spectra), options, CPU, outer or OuterStep(), Computing(precision)
    )


def weights_of(training: Training) -> dict[str, Tensor]:
    everything = [training.net.state_dict(), training.average.state_dict()]
    weights = {
        f"{index}.{key}": value for index, part in enumerate(everything) for key, value in part.items()
    }
    for index, state in training.optimiser.state_dict()["state"].items():
        weights |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    return {key: value.clone() for key, value in weights.items()}


def identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_loss_falls_on_a_toy_problem(algorithm: Algorithm) -> None:
    options = options_for(algorithm, epochs=8, learning_rate=0.03, augmentation=Augmentation().scaled(0.0))
    training = training_of(options)
    means = [np.mean([loss for loss, _ in training.epoch()]) for _ in range(8)]
    assert means[-1] < 0.8 * means[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(algorithm: Algorithm, tmp_path: Path) -> None:
    options = options_for(algorithm)
    uninterrupted = training_of(options)
    for _ in range(3):
        list(uninterrupted.epoch())

    first = training_of(options)
    list(first.epoch())
    first.save(tmp_path / "state.safetensors")
    torch.manual_seed(99)
    second = training_of(options)
    second.resume(tmp_path / "state.safetensors")
    assert second.epochs_done == 1
    assert identical(weights_of(first), weights_of(second))
    for _ in range(2):
        list(second.epoch())
    assert identical(weights_of(uninterrupted), weights_of(second))


def test_another_seed_gives_other_weights() -> None:
    """The twin of the test above."""
    runs = [training_of(options_for("erm", seed=seed)) for seed in (0, 1)]
    for run in runs:
        list(run.epoch())
    assert not identical(weights_of(runs[0]), weights_of(runs[1]))


@pytest.mark.skipif(
    "bfloat16" not in supported_precisions(CPU), reason="this processor cannot train in bfloat16"
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_forward_passes_run_inside_autocast_and_gradients_are_taken_outside(algorithm: Algorithm) -> None:
    training, forward, backward = training_of(options_for(algorithm), precision="bfloat16"), [], []

    def follow(_: nn.Module, __: object, logits: Tensor) -> None:
        forward.append(torch.is_autocast_enabled("cpu"))
        logits.register_hook(lambda _: backward.append(torch.is_autocast_enabled("cpu")))  # type: ignore[no-untyped-call]

    training.net.meta.register_forward_hook(follow)
    next(training.epoch())
    assert forward
    assert set(forward) == {True}
    assert len(backward) == len(forward)
    assert set(backward) == {False}


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_a_damaged_state_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    training, path = training_of(options_for("erm")), tmp_path / "state.safetensors"
    training.save(path)
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(ModelError, match="damaged") as caught:
        training.resume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_weight_that_may_learn_does(algorithm: Algorithm) -> None:
    training = training_of(options_for(algorithm, weight_decay=0.0))
    before = {name: weight.clone() for name, weight in training.net.named_parameters()}
    list(training.epoch())
    for name, weight in training.net.named_parameters():
        if not name.endswith("conv.bias"):  # batch normalisation takes its effect away
            assert torch.equal(weight, before[name]) != weight.requires_grad


def test_only_the_algorithms_with_auxiliary_tasks_report_their_loss() -> None:
    losses = {algorithm: next(training_of(options_for(algorithm)).epoch()) for algorithm in ALGORITHMS}
    assert losses["erm"][1] is None
    assert all(losses[algorithm][1] is not None for algorithm in ("mtl", "mmtl"))


@pytest.mark.parametrize(
    "change",
    [
        {"rates": MetaRates(inner_lr=1.0)},
        {"rates": MetaRates(transfer_lr=1.0)},
        {"rates": MetaRates(inner_steps=3)},
        {"rates": MetaRates(query="disjoint")},
        {"rates": MetaRates(loss=Loss(double_softmax=True))},
        {"rates": MetaRates(loss=Loss(label_smoothing=0.2))},
        {"draw": replace(DRAW, auxiliary=DIMENSIONS[:1])},
        {"learning_rate": 0.02},
        {"weight_decay": 0.5},
        {"augmentation": Augmentation().scaled(0.0)},
        {"freeze_norm": True},
        {"warm_up": 0.0},
        {"averaging": 0.5},
    ],
)
def test_every_option_of_mmtl_matters(change: dict[str, object]) -> None:
    plain, changed = training_of(options_for("mmtl")), training_of(options_for("mmtl", **change))
    for run in (plain, changed):
        list(run.epoch())
    assert not identical(weights_of(plain), weights_of(changed))


def test_frozen_norms_keep_their_statistics_and_others_do_not() -> None:
    for freeze in (True, False):
        training = training_of(options_for("mmtl", freeze_norm=freeze))
        norms = [module for module in training.net.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [module.state_dict()["running_mean"].clone() for module in norms]
        list(training.epoch())
        after = [module.state_dict()["running_mean"] for module in norms]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) == freeze


def test_what_is_judged_is_the_running_average_unless_switched_off() -> None:
    training = training_of(options_for("erm"))
    list(training.epoch())
    assert training.evaluated_net() is training.average.module
    assert not training.evaluated_net().training
    plain = training_of(options_for("erm", averaging=0.0))
    assert plain.evaluated_net() is plain.net


def test_the_rate_rises_straight_then_falls_as_half_a_cosine() -> None:
    shares = [scheduled(done, 0.1) for done in np.linspace(0.0, 1.0, 101)]
    assert shares[0] == pytest.approx(0.04)
    assert max(shares) == shares[10] == pytest.approx(1.0)
    assert shares[55] == pytest.approx(0.505, abs=1e-3)
    assert shares[-1] == pytest.approx(0.01)
    assert scheduled(0.0, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("frames", [(60, 90), (60, 300, 700)])
def test_predictions_are_those_of_each_segment_alone(frames: tuple[int, ...]) -> None:
    spectra = make_spectra(1, takes=2, frames=frames)
    normalisation = fit_normalisation(spectra)
    torch.manual_seed(0)
    net = EmotionNet(TINY).eval()
    found = predict(net, spectra, normalisation, 297, CPU)
    for item, logits in zip(spectra, found, strict=True):
        assert logits.shape == (1 if item.frames <= 297 else -(-item.frames // 297), 4)
        first = torch.from_numpy(normalised(item, normalisation)[:297])[None]
        with torch.no_grad():
            np.testing.assert_allclose(logits[0], net(first)[0].numpy(), atol=1e-5)


def test_predicting_leaves_the_network_as_it_was() -> None:
    spectra = make_spectra(1)
    net = EmotionNet(TINY).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    predict(net, spectra, fit_normalisation(spectra), 80, CPU)
    assert identical(before, net.state_dict())


def test_a_system_of_table_2_is_trained_by_its_own_loss() -> None:
    class Constant(System):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(3.0))

        def loss(self, samples: Samples, loss: Loss) -> Tensor:
            return self.value.square()

    spectra = make_spectra(4, takes=2)
    options = options_for("erm")
    training = Training(Constant(), spectra, fit_normalisation(spectra), options, CPU)
    losses = [loss for loss, _ in training.epoch()]
    assert losses[0] == 9.0
    assert losses[-1] < 9.0


def test_the_papers_outer_step_is_adam_at_one_rate_without_clipping() -> None:
    training = training_of(options_for("mmtl", weight_decay=0.5), outer=PAPER_STEP)
    clipped = training_of(options_for("mmtl", weight_decay=0.5), outer=replace(PAPER_STEP, clipping=True))
    (group,) = training.optimiser.param_groups
    for run in (training, clipped):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("train.training.LARGEST_NORM", 1e-3)
            list(run.epoch())
        assert group["lr"] == 0.01
        assert group["weight_decay"] == 0.0
    norms = [
        torch.stack([value.grad.norm() for value in run.net.parameters() if value.grad is not None]).norm()
        for run in (training, clipped)
    ]
    assert norms[0] > 0.01
    assert norms[1] < 0.0011


def test_segments_that_are_padded_with_zeros_are_read_to_their_end() -> None:
    spectra = make_spectra(2, takes=1)
    normalisation = replace(fit_normalisation(spectra), scope="window", padded_to=100)
    seen: list[tuple[int, list[int]]] = []

    class Recorder(System):
        def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
            seen.append((frames.shape[1], lengths.tolist()))
            return torch.zeros(len(frames), 4)

    predict(Recorder(), spectra, normalisation, 80, CPU)
    assert {frames for frames, _ in seen} == {100}
    assert {length for _, lengths in seen for length in lengths} == {100}
