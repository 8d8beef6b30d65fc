from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import Array
from edge.inference.encoder_stream import FeatureStream
from edge.inference.engine import Engine
from edge.model.bundle import Bundle
from tests.tolerances import float32_tolerance, largest, network_terms

FIRST = 48 * 160 + 640
"""Samples that the first feature takes: 49 frames, 0.52 s."""

STEP = 8 * 160


@pytest.fixture(scope="module")
def stream(bundle: Bundle) -> FeatureStream:
    manifest = bundle.manifest
    return FeatureStream(Engine(bundle, "cpu"), manifest.front_end, manifest.levels, bundle.statistics)


@pytest.fixture(scope="module")
def sound(talk: Callable[..., Array]) -> Array:
    return talk((1.5, 0.2))


def fed(stream: FeatureStream, sound: Array, *sizes: int) -> tuple[Array, Array]:
    stream.reset()
    features, levels, done = [], [], 0
    for size in cycle(sizes):
        progress = stream.feed(sound[done : done + size])
        features.append(progress.features)
        levels.append(progress.levels)
        done += size
        if done >= len(sound):
            break
    return np.concatenate(features), np.concatenate(levels)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(50, 20_000), min_size=1, max_size=6))
def test_features_do_not_depend_on_the_blocks(
    stream: FeatureStream, bundle: Bundle, sound: Array, sizes: list[int]
) -> None:
    expected, expected_levels = fed(stream, sound, len(sound))
    features, levels = fed(stream, sound, *sizes)
    front_end = bundle.manifest.front_end.n_fft + bundle.manifest.front_end.bins
    tolerance = float32_tolerance(front_end + network_terms(bundle), largest(expected))
    np.testing.assert_allclose(features, expected, rtol=0, atol=tolerance)
    # A logarithm errs by its argument's relative error, and is rounded.
    tolerance = float32_tolerance(front_end, 1.0) + float32_tolerance(1, largest(expected_levels))
    np.testing.assert_allclose(levels, expected_levels, rtol=0, atol=tolerance)


def test_a_feature_comes_with_the_last_sample_it_covers_and_not_before(
    stream: FeatureStream, sound: Array
) -> None:
    stream.reset()
    counts = [
        len(stream.feed(block).features) for block in np.split(sound[: FIRST + STEP], [FIRST - 1, FIRST])
    ]
    assert counts == [0, 1, 1]
    stream.reset()
    assert len(stream.feed(sound[: FIRST + STEP - 1]).features) == 1


def test_reset_is_exact(stream: FeatureStream, sound: Array) -> None:
    first, _ = fed(stream, sound, 1_280)
    again, _ = fed(stream, sound, 1_280)
    assert (first == again).all()


def test_the_features_of_a_frame_do_not_depend_on_where_the_stream_began(
    stream: FeatureStream, bundle: Bundle
) -> None:
    frames = np.random.default_rng(0).standard_normal((1, 128, 200)).astype(np.float32)
    engine = stream._engine
    early, _ = engine.encode(frames, engine.initial_state())
    late, _ = engine.encode(frames[:, 40:], engine.initial_state())
    tolerance = float32_tolerance(network_terms(bundle), largest(early))
    np.testing.assert_allclose(late[:, 6:], early[:, 11:], rtol=0, atol=tolerance)


def test_the_future_does_not_change_a_feature(stream: FeatureStream, sound: Array) -> None:
    changed = sound.copy()
    changed[FIRST + 2 * STEP :] = 0.0
    before, _ = fed(stream, sound, len(sound))
    after, _ = fed(stream, changed, len(sound))
    assert (before[:3] == after[:3]).all()
    assert (before[3:] != after[3:]).any()


def test_memory_is_bounded(stream: FeatureStream, sound: Array) -> None:
    stream.reset()
    for _ in range(20):
        stream.feed(sound)
        assert stream._frames.end - stream._encoded < 8
        assert stream._frames.capacity <= 2 * (150 + 8)
        assert stream._power._samples.capacity <= 2 * (len(sound) + 640)


def test_no_samples_make_no_features(stream: FeatureStream) -> None:
    stream.reset()
    progress = stream.feed(np.zeros(0, np.float32))
    assert progress.features.shape == (0, 128)
    assert progress.levels.shape == (0,)
