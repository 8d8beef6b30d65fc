"""The head on cached features: its inputs, its episodes, and that each algorithm learns what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge.arrays import Array
from edge.labels import EMOTIONS
from edge.model.manifest import BaselineConfig
from edge.recognition.speaker_baseline import recorded_level
from tests.tolerances import float32_tolerance
from train.corpora import Clip, with_derived_ratings
from train.episodes import EpisodeConfig, Episodes, windows_by_clip
from train.feature_cache import Features
from train.head_training import HeadAlgorithm, HeadOptions, scheduled, train_head
from train.speaker_head import (
    INPUTS,
    LEARNED_INPUTS,
    LEARNED_PRIOR,
    EmbeddingStatistics,
    HeadArchitecture,
    SpeakerHead,
    fit_statistics,
    head_inputs,
    relative_inputs,
    scaled_inputs,
)

SIZE = 6
PRIOR, SCALED = BaselineConfig.prior_windows, BaselineConfig(scaled=True)
TAKES = 4


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return with_derived_ratings(
        Clip(Path(f"{speaker}-{emotion}-{take}.wav"), "toy", f"s{speaker}", emotion)
        for speaker in range(6)
        for emotion in EMOTIONS
        for take in range(TAKES)
    )


@pytest.fixture(scope="module")
def features(clips: list[Clip]) -> Features:
    """Two windows a clip: the emotion moves one value from where the speaker's own level is."""
    rng = np.random.default_rng(0)
    level = {f"s{speaker}": rng.normal(0.0, 2.0, SIZE) for speaker in range(6)}
    values = [
        level[clip.speaker] + 1.5 * np.eye(SIZE)[EMOTIONS.index(clip.emotion)] + rng.normal(0.0, 0.1, SIZE)
        for clip in clips
        for _ in range(2)
    ]
    numbers = np.repeat(np.arange(len(clips)), 2)
    return Features(np.array(values, np.float16), numbers, np.full(len(numbers), 300))


def episodes(
    clips: list[Clip], features: Features, config: EpisodeConfig | None = None, seed: int = 0
) -> Episodes:
    statistics = fit_statistics(np.asarray(features.values, np.float32))
    return Episodes(clips, [features], statistics, config or EpisodeConfig(speakers=4, samples=16), seed)


def test_a_baseline_is_shrunk_to_the_training_mean_which_stands_for_none() -> None:
    none, ones = np.zeros((0, SIZE), np.float32), np.ones((3, SIZE), np.float32)
    level = recorded_level(none, np.zeros(0), SCALED)
    np.testing.assert_array_equal(level.mean, np.zeros(SIZE))
    np.testing.assert_array_equal(level.deviation, np.ones(SIZE))
    shrunk, expected = recorded_level(ones, np.ones(3), SCALED).mean, 3 / (3 + PRIOR) * np.ones(SIZE)
    np.testing.assert_allclose(shrunk, expected, rtol=float32_tolerance(3 + 1, 1.0))
    many = recorded_level(np.ones((10_000, SIZE), np.float32), np.ones(10_000), SCALED)
    np.testing.assert_allclose(many.mean, np.ones(SIZE), atol=1e-3)
    assert many.deviation is not None
    assert many.deviation.max() < 0.03


def test_inputs_are_absolute_then_relative() -> None:
    inputs = head_inputs(np.full((2, SIZE), 3.0, np.float32), np.full(SIZE, 1.0, np.float32))
    np.testing.assert_array_equal(inputs[:, :SIZE], 3.0)
    np.testing.assert_array_equal(inputs[:, SIZE:], 2.0)


def test_statistics_standardise_the_values_they_were_fitted_to(features: Features) -> None:
    values = np.asarray(features.values, np.float32)
    standardised = fit_statistics(values).standardised(values)
    np.testing.assert_allclose(standardised.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=0), 1.0, atol=1e-3)


def test_a_deviation_divides_the_relative_inputs_alone() -> None:
    ones = np.ones(SIZE, np.float32)
    inputs = head_inputs(np.full((2, SIZE), 3.0, np.float32), ones, 4.0 * ones)
    np.testing.assert_array_equal(inputs, np.repeat([[3.0, 0.5]], SIZE, axis=1).repeat(2, axis=0))


def test_a_deviation_of_nothing_heard_is_1_and_of_little_is_shrunken() -> None:
    windows, nothing = np.array([[2.0, 4.0]], np.float32), np.zeros((0, 2), np.float32)
    unheard = relative_inputs(windows, nothing, np.zeros(0))
    np.testing.assert_array_equal(scaled_inputs(windows, nothing, np.zeros(0)), unheard)
    heard = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    scaled = scaled_inputs(windows, heard, np.ones(2))
    np.testing.assert_allclose(scaled[0, 2:], windows[0] / np.sqrt([1.0, PRIOR / (PRIOR + 2.0)]), rtol=1e-5)


def test_windows_are_found_by_their_clip_also_where_one_has_none() -> None:
    found = windows_by_clip(np.array([3, 0, 3, 2, 0]), 5)
    assert [places.tolist() for places in found] == [[1, 4], [], [3], [0, 2], []]


def test_an_episode_is_of_one_speaker_with_ratings_and_even_emotions(
    clips: list[Clip], features: Features
) -> None:
    counts = np.zeros(len(EMOTIONS))
    for speakers in episodes(clips, features).steps(30):
        for samples in speakers:
            assert samples.frames.shape == (16, 2 * SIZE)
            assert samples.ratings.shape == (3, 16)
            assert (samples.ratings >= 0).all()
            counts += np.bincount(samples.emotion.numpy(), minlength=len(EMOTIONS))
    assert counts.min() > 0.85 * counts.max()


def test_the_share_without_a_baseline_is_as_asked(clips: list[Clip], features: Features) -> None:
    config = EpisodeConfig(speakers=4, samples=4, without=0.35)
    relative = [
        bool((samples.frames[:, :SIZE] != samples.frames[:, SIZE:]).any())
        for speakers in episodes(clips, features, config).steps(100)
        for samples in speakers
    ]
    assert np.mean(relative) == pytest.approx(0.65, abs=0.06)


@pytest.mark.parametrize(("share", "lone"), [(0.0, 0.31), (0.5, 0.65), (1.0, 1.0)])
def test_a_share_of_the_baselines_is_of_one_emotion(
    clips: list[Clip], features: Features, share: float, lone: float
) -> None:
    """Values that are pure emotions tell what a baseline is made of.

    Drawn from all, 1 to 4 of 16 clips are of one emotion with a chance of 0.31.
    """
    emotions = np.eye(len(EMOTIONS), SIZE)[[EMOTIONS.index(clip.emotion) for clip in clips]]
    pure = replace(features, values=emotions[features.clip].astype(np.float16))
    statistics = EmbeddingStatistics(np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32))
    config = EpisodeConfig(speakers=4, samples=2, without=0.0, neutral=0.0, one_emotion=share, most_clips=4)
    baselines = [
        (samples.frames[0, :SIZE] - samples.frames[0, SIZE:]).numpy()
        for speakers in Episodes(clips, [pure], statistics, config, 0).steps(100)
        for samples in speakers
    ]
    alone = [int((baseline > 0).sum()) == 1 for baseline in baselines]
    assert np.mean(alone) == pytest.approx(lone, abs=0.06)
    emotion = np.array([baseline.argmax() for baseline in baselines])[alone]
    counts = np.bincount(emotion, minlength=len(EMOTIONS))
    assert counts.min() > 0.6 * counts.max()


def test_an_episode_is_given_the_windows_that_were_heard_and_each_clip_weighs_one(
    clips: list[Clip], features: Features
) -> None:
    seen: list[tuple[Array, NDArray[np.float64]]] = []

    def spy(standardised: Array, heard: Array, weights: NDArray[np.float64]) -> Array:
        seen.append((heard, weights))
        return scaled_inputs(standardised, heard, weights)

    statistics = fit_statistics(np.asarray(features.values, np.float32))
    values = statistics.standardised(np.asarray(features.values, np.float32))
    clip_of = {tuple(window): clip for window, clip in zip(values.tolist(), features.clip, strict=True)}
    config = EpisodeConfig(speakers=4, samples=4, without=0.2)
    list(Episodes(clips, [features], statistics, config, 0, spy).steps(20))
    for heard, weights in seen:
        numbers = [clip_of[tuple(window)] for window in heard.tolist()]
        assert all(numbers.count(number) == 2 for number in numbers)  # both of its windows
        np.testing.assert_array_equal(weights, np.full(len(heard), 0.5))
        assert len({clips[number].speaker for number in numbers}) <= 1
    assert min(len(heard) for heard, _ in seen) == 0


def test_a_seed_determines_the_episodes(clips: list[Clip], features: Features) -> None:
    one, two, other = (next(episodes(clips, features, seed=seed).steps(1))[0].frames for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def recall(head: SpeakerHead, clips: list[Clip], features: Features, shots: int) -> float:
    """Score each speaker's last takes, with their first neutral and angry takes as the baseline."""
    values = fit_statistics(np.asarray(features.values, np.float32)).standardised(
        np.asarray(features.values, np.float32)
    )
    right = []
    for speaker in sorted({clip.speaker for clip in clips}):
        own = [number for number, clip in enumerate(clips) if clip.speaker == speaker]
        places = windows_by_clip(features.clip, len(clips))
        means = np.stack([values[windows].mean(axis=0) for windows in places])
        heard = means[[number for number in own if number % TAKES < shots]]
        baseline = recorded_level(heard, np.ones(len(heard)), BaselineConfig()).mean
        query = [number for number in own if number % TAKES == TAKES - 1]
        logits = head(torch.from_numpy(head_inputs(means[query], baseline)))
        truth = [EMOTIONS.index(clips[number].emotion) for number in query]
        right += (logits.argmax(dim=1).numpy() == truth).tolist()
    return float(np.mean(right))


@pytest.mark.parametrize("algorithm", ["erm", "mtl", "mmtl", "reptile"])
def test_each_algorithm_learns_and_a_baseline_helps_where_speakers_differ(
    clips: list[Clip], features: Features, algorithm: HeadAlgorithm
) -> None:
    options = HeadOptions(algorithm, steps=120, learning_rate=0.01)
    head = train_head(episodes(clips, features), HeadArchitecture(SIZE, 16, dropout=0.0), options)
    with_baseline = recall(head, clips, features, shots=3)
    assert with_baseline > 0.8
    assert with_baseline >= recall(head, clips, features, shots=0)


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [scheduled(step / 100) for step in range(100)]
    assert rates[0] == 0.0
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(0.5 * (1.0 + np.cos(0.1 * np.pi)))
    assert rates[-1] < 1e-3


def test_a_head_is_trained_on_from_another(clips: list[Clip], features: Features) -> None:
    arch = HeadArchitecture(SIZE, 8)
    first = train_head(episodes(clips, features), arch, HeadOptions(steps=5))
    still = HeadOptions(steps=2, learning_rate=1e-9, seed=1)
    second = train_head(episodes(clips, features), arch, still, start=first)
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_a_seed_determines_the_head(clips: list[Clip], features: Features) -> None:
    heads = [
        train_head(episodes(clips, features), HeadArchitecture(SIZE, 8), HeadOptions(steps=10))
        for _ in range(2)
    ]
    for one, two in zip(*(head.state_dict().values() for head in heads), strict=True):
        assert torch.equal(one, two)


def test_a_head_learns_from_baselines_that_are_shrunken_more_than_those_it_meets() -> None:
    windows = np.ones((3, 2), np.float32)
    for kind in ("mean", "deviation"):
        met, learned = (inputs[kind](windows, windows, np.ones(3)) for inputs in (INPUTS, LEARNED_INPUTS))
        met_mean, learned_mean = 3.0 / (3.0 + PRIOR), 3.0 / (3.0 + LEARNED_PRIOR)
        assert met_mean > learned_mean
        if kind == "mean":
            np.testing.assert_allclose(met[:, 2:], 1.0 - met_mean, rtol=1e-6)
            np.testing.assert_allclose(learned[:, 2:], 1.0 - learned_mean, rtol=1e-6)
        np.testing.assert_array_equal(met[:, :2], learned[:, :2])
        assert (met[:, 2:] != learned[:, 2:]).all()
