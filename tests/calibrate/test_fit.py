"""What is fitted to a speaker, against closed forms and finite differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibrate.fit import (
    CANDIDATES,
    HEAD_PULL,
    STATISTICS_PRIOR_FRAMES,
    Candidate,
    Examples,
    Floats,
    Objective,
    bias_objective,
    candidates,
    descend,
    examples,
    fit_bias,
    fit_head,
    head_objective,
    speaker_normalisation,
    take_shares,
)
from calibrate.takes import Normalisation, Take
from edge.frontend import Array
from edge.head import Head, softmax
from edge.normaliser import BinStatistics, Levels

BINS = 5


def toy_head(seed: int = 0, temperature: float = 1.7) -> Head:
    draw = np.random.default_rng(seed).standard_normal
    shapes = [(6, 8), (6,), (4, 6), (4,), (4, 4), (4,)]
    fc1, bias1, fc2, bias2, fc3, bias3 = (draw(shape).astype(np.float32) for shape in shapes)
    return Head(fc1, bias1, fc2, bias2, fc3, bias3, temperature)


def toy_examples(seed: int = 1, takes: int = 12) -> Examples:
    draw = np.random.default_rng(seed)
    windows = [draw.standard_normal((draw.integers(1, 4), 8)).astype(np.float32) for _ in range(takes)]
    return examples(windows, [index % 4 for index in range(takes)])


def numeric_gradient(objective: Objective, point: Floats, width: float = 1e-5) -> Floats:
    def slope(direction: Floats) -> float:
        return (objective(point + direction)[0] - objective(point - direction)[0]) / (2.0 * width)

    return np.array([slope(row) for row in width * np.eye(len(point))])


def loss(head: Head, data: Examples) -> float:
    probs = head.probs(data.embeddings)[np.arange(len(data.emotions)), data.emotions]
    return float(data.weights @ -np.log(probs))


def distance(first: Head, second: Head) -> float:
    names = ("fc2_weight", "fc2_bias", "fc3_weight", "fc3_bias")
    return float(sum(((getattr(first, name) - getattr(second, name)) ** 2).sum() for name in names))


def test_the_gradient_of_the_bias_is_that_of_finite_differences() -> None:
    data = toy_examples()
    scaled = toy_head().logits(data.embeddings).astype(np.float64)
    objective = bias_objective(scaled, data, 0.07)
    point = np.random.default_rng(2).standard_normal(5)
    np.testing.assert_allclose(objective(point)[1], numeric_gradient(objective, point), atol=1e-6)


def test_the_gradient_of_the_head_is_that_of_finite_differences() -> None:
    data, head = toy_examples(), toy_head()
    hidden = np.abs(np.random.default_rng(3).standard_normal((len(data.emotions), 6)))
    objective = head_objective(hidden, head, data, 0.07)
    point = np.random.default_rng(4).standard_normal(6 * 4 + 4 + 4 * 4 + 4)
    np.testing.assert_allclose(objective(point)[1], numeric_gradient(objective, point), atol=1e-6)


def test_descent_reaches_the_minimum_of_a_quadratic() -> None:
    matrix = np.diag([0.3, 1.0, 8.0])
    minimum = np.array([1.0, -2.0, 0.5])

    def objective(point: Floats) -> tuple[float, Floats]:
        away = point - minimum
        return float(away @ matrix @ away), 2.0 * matrix @ away

    np.testing.assert_allclose(descend(objective, np.zeros(3)), minimum, atol=1e-5)


def test_descent_survives_a_start_as_steep_as_it_may_be() -> None:
    data = toy_examples()
    scaled = 300.0 * toy_head().logits(data.embeddings).astype(np.float64)
    objective = bias_objective(scaled, data, 0.1)
    reached = objective(descend(objective, np.zeros(5)))[0]
    assert np.isfinite(reached)
    assert reached < objective(np.zeros(5))[0]


def test_a_bias_without_pull_gives_each_emotion_its_share() -> None:
    """Closed form: where the logits say nothing, softmax(b) = the emotions' weights."""
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    data = Examples(np.zeros((4, 8), np.float32), np.arange(4), shares, 4)
    fitted = descend(bias_objective(np.zeros((4, 4)), data, 1e-9), np.zeros(5))
    np.testing.assert_allclose(softmax(fitted[1:].astype(np.float32)), shares, atol=1e-4)


def test_a_fitted_bias_is_what_the_head_applies() -> None:
    generic, data = toy_head(), toy_examples()
    fitted = fit_bias(generic, data)
    scaled = generic.logits(data.embeddings).astype(np.float64) / generic.temperature
    s = np.log(generic.temperature / fitted.temperature)
    b = (fitted.fc3_bias - generic.fc3_bias) / fitted.temperature
    np.testing.assert_allclose(
        fitted.probs(data.embeddings), softmax((np.exp(s) * scaled + b).astype(np.float32)), atol=1e-5
    )
    assert loss(fitted, data) < loss(generic, data)


def test_a_consistent_bias_is_undone() -> None:
    generic, data = toy_head(), toy_examples(takes=40)
    right = generic.probs(data.embeddings).argmax(axis=1)
    data = replace(data, emotions=right, weights=np.full(len(right), 1.0 / len(right)))
    skewed = replace(generic, fc3_bias=generic.fc3_bias + np.array([0, 6, 0, 0], np.float32))
    answers = fit_bias(skewed, data).probs(data.embeddings).argmax(axis=1)
    assert (skewed.probs(data.embeddings).argmax(axis=1) == right).mean() < 0.7
    assert (answers == right).mean() > 0.85


def test_the_head_fits_its_examples_and_only_its_last_layers_change() -> None:
    generic, data = toy_head(), toy_examples()
    fitted = fit_head(generic, data)
    assert loss(fitted, data) + HEAD_PULL / data.takes * distance(fitted, generic) < loss(generic, data)
    assert fitted.fc1_weight is generic.fc1_weight
    assert fitted.temperature == generic.temperature
    assert {array.dtype for array in fitted.tensors().values()} == {np.dtype(np.float32)}


def test_a_harder_pull_stays_closer_to_the_generic_head(monkeypatch: pytest.MonkeyPatch) -> None:
    generic, data = toy_head(), toy_examples()
    moved = []
    for pull in (0.1, 10.0, 1e6):
        monkeypatch.setattr("calibrate.fit.HEAD_PULL", pull)
        moved.append(distance(fit_head(generic, data), generic))
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 1e-6


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_fitting_twice_gives_the_same_numbers(candidate: Candidate) -> None:
    first, second = (candidate.head(toy_head(), toy_examples()).tensors() for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_emotions_takes_and_windows_count_alike() -> None:
    windows = [np.zeros((count, 8), np.float32) for count in (1, 3, 2, 2)]
    data = examples(windows, [0, 0, 0, 3])
    by_emotion = [data.weights[data.emotions == emotion].sum() for emotion in (0, 3)]
    np.testing.assert_allclose(by_emotion, [0.5, 0.5])
    np.testing.assert_allclose(data.weights[:4], [1 / 6, 1 / 18, 1 / 18, 1 / 18])
    np.testing.assert_allclose(take_shares([0, 0, 0, 3]), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert data.takes == 4


def coloured(colour: Array, frames: int, seed: int) -> Array:
    """Power spectra of one colour: constant level, no fluctuation but a little."""
    wobble = np.random.default_rng(seed).uniform(0.9, 1.1, (frames, BINS))
    return (np.exp(colour) * wobble).astype(np.float32)


GENERIC = Normalisation(Levels(), BinStatistics(np.zeros(BINS, np.float32), np.ones(BINS, np.float32)))
COLOUR = np.array([1.0, 0.5, 0.0, -0.5, -2.0], np.float32)


def test_a_speaker_s_statistics_are_shrunk_by_the_amount_of_speech() -> None:
    frames = int(STATISTICS_PRIOR_FRAMES) // 2
    own = speaker_normalisation(GENERIC, [coloured(COLOUR, frames, 0), coloured(COLOUR, frames, 1)], [0, 1])
    level = np.log(np.exp(COLOUR).mean())
    assert own.levels.reference == pytest.approx(level, abs=0.01)
    # n = k: half way between the generic mean, 0, and the colour after the gain.
    np.testing.assert_allclose(own.statistics.mean, (COLOUR - level) / 2.0, atol=0.02)
    np.testing.assert_allclose(own.statistics.std, np.full(BINS, 0.5 + 0.058 / 2.0), atol=0.01)


def test_more_takes_of_one_emotion_do_not_make_it_the_measure() -> None:
    quiet, loud = coloured(COLOUR, 200, 0), coloured(COLOUR + 2.0, 200, 1)
    even = speaker_normalisation(GENERIC, [quiet, loud], [2, 3])
    uneven = speaker_normalisation(GENERIC, [quiet, loud, loud, loud], [2, 3, 3, 3])
    assert uneven.levels.reference == pytest.approx(even.levels.reference, abs=1e-5)


def tried(lengths: Mapping[int, tuple[int, ...]]) -> list[str]:
    """Name the candidates of a session, given the samples of the takes of each emotion."""
    pairs = [(Take(Path("x"), emotion), size) for emotion, sizes in lengths.items() for size in sizes]
    sounds = [np.zeros(size, np.float32) for _, size in pairs]
    return [candidate.name for candidate in candidates([take for take, _ in pairs], sounds)]


def test_a_whole_session_is_fitted_in_every_way_the_simplest_first() -> None:
    whole = dict.fromkeys(range(4), (100, 100))
    assert tried(whole) == ["generic", "statistics", "bias", "head", "statistics + head"]


def test_a_session_is_fitted_only_as_far_as_its_emotions_reach() -> None:
    assert tried({0: (100, 100), 1: (100, 100), 3: (100, 100)}) == ["generic", "statistics"]
    assert tried({0: (100, 100), 3: (100, 100)}) == ["generic"]
    uneven = {0: (900, 900), 1: (100, 100), 2: (100, 100), 3: (100, 100)}
    assert tried(uneven) == ["generic", "bias", "head"]
