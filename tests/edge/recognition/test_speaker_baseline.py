"""The baseline holds earlier speech only, is shrunken, and fades."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge.arrays import Array
from edge.diagnostics.verification import verify
from edge.events import Event, Window
from edge.model.bundle import Bundle
from edge.model.manifest import BaselineConfig
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from edge.recognition.speaker_baseline import SpeakerBaseline, recorded_level, window_weights

SIZE, STEP, WINDOW = 3, 3, 30
ONE = np.ones(SIZE, np.float32)


def baseline(
    prior: float = BaselineConfig.prior_windows, memory: float = 20.0, *, scaled: bool = False
) -> SpeakerBaseline:
    config = BaselineConfig(prior, memory, scaled)
    return SpeakerBaseline(SIZE, config, step_features=STEP, window_features=WINDOW)


def heard(estimate: SpeakerBaseline, windows: int, value: Array = ONE, start: int = WINDOW) -> int:
    """Add windows of one embedding; return the end of the next window that overlaps none of them."""
    for index in range(windows):
        estimate.add(start + index * STEP, value)
    return start + (windows - 1) * STEP + WINDOW


def test_a_new_stream_has_the_baseline_of_the_training_speakers() -> None:
    np.testing.assert_array_equal(baseline().before(1000).mean, np.zeros(SIZE))


def test_windows_of_one_duration_weigh_as_much_as_their_duration() -> None:
    estimate = baseline(prior=4.0)
    end = heard(estimate, 20)  # two windows' worth
    np.testing.assert_allclose(estimate.before(end).mean, 2.0 / (2.0 + 4.0) * ONE, rtol=1e-6)


def test_a_window_is_compared_with_no_sound_of_its_own() -> None:
    estimate = baseline()
    end = heard(estimate, 1)
    assert not estimate.before(end - 1).mean.any()
    assert estimate.before(end).mean.all()


def test_another_speaker_replaces_the_first_one() -> None:
    estimate = baseline(prior=1.0, memory=5.0)
    end = heard(estimate, 500, ONE)
    assert estimate.before(end).mean[0] == pytest.approx(5.0 / 6.0)
    end = heard(estimate, 100, -ONE, start=end)  # ten windows' worth, twice the memory
    assert estimate.before(end).mean[0] < -0.5


def test_reset_forgets_the_speaker() -> None:
    estimate = baseline(scaled=True)
    end = heard(estimate, 50)
    assert estimate.before(end).mean.any()
    estimate.reset()
    assert not estimate.before(end).mean.any()
    np.testing.assert_array_equal(estimate.before(end).deviation, ONE)


def test_there_is_a_deviation_only_where_it_is_asked_for() -> None:
    np.testing.assert_array_equal(baseline(scaled=True).before(1000).deviation, ONE)
    estimate, scaled = baseline(), baseline(scaled=True)
    end = heard(estimate, 20)
    assert heard(scaled, 20) == end
    assert estimate.before(end).deviation is None
    np.testing.assert_array_equal(estimate.before(end).mean, scaled.before(end).mean)


@pytest.mark.parametrize("windows", [1, 7, 20, 100])
def test_mean_and_deviation_are_those_of_the_windows_heard_also_where_the_older_ones_fade(
    windows: int,
) -> None:
    prior, memory, share = 2.0, 4.0, STEP / WINDOW
    estimate = baseline(prior, memory, scaled=True)
    embeddings = np.random.default_rng(windows).normal([5.0, 0.0, -1.0], [0.1, 1.0, 3.0], (windows, SIZE))
    weights: list[float] = []
    for index, embedding in enumerate(embeddings.astype(np.float32)):
        estimate.add(WINDOW + index * STEP, embedding)
        kept = min(1.0, (memory - share) / max(sum(weights), share))
        weights = [*(weight * kept for weight in weights), share]
    level = estimate.before(2 * WINDOW + windows * STEP)
    assert sum(weights) == pytest.approx(min(windows * share, memory))
    whole = sum(weights) + prior
    mean = sum(weight * window for weight, window in zip(weights, embeddings, strict=True)) / whole
    spread = sum(weight * (window - mean) ** 2 for weight, window in zip(weights, embeddings, strict=True))
    assert level.deviation is not None
    np.testing.assert_allclose(level.mean, mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(level.deviation, np.sqrt((prior + spread) / whole), rtol=1e-5)


def test_recordings_have_the_same_level_as_a_stream_of_their_windows() -> None:
    windows = np.random.default_rng(2).normal(1.0, 2.0, (30, SIZE)).astype(np.float32)
    stream = baseline(scaled=True)
    for index, window in enumerate(windows):
        stream.add(WINDOW + index * STEP, window)
    level = stream.before(2 * WINDOW + 30 * STEP)
    shares = window_weights([1.0, 2.0], [10, 20])
    np.testing.assert_allclose(shares, STEP / WINDOW)
    recorded = recorded_level(windows, shares, BaselineConfig(scaled=True))
    np.testing.assert_allclose(recorded.mean, level.mean, rtol=1e-5)
    np.testing.assert_allclose(recorded.deviation, level.deviation, rtol=1e-5)  # type: ignore[arg-type]


def test_windows_that_are_all_alike_have_a_small_deviation_that_is_not_zero() -> None:
    windows = np.full((1000, SIZE), 1e4, np.float32)
    level = recorded_level(windows, np.full(1000, 1e4), BaselineConfig(scaled=True))
    assert level.deviation is not None
    assert (level.deviation > 0.0).all()
    assert np.isfinite(level.deviation).all()


@pytest.fixture(scope="module")
def relative(bundle: Bundle) -> Bundle:
    """A bundle whose head reads the baseline."""
    generator = np.random.default_rng(3)
    shape = bundle.head.fc1_weight.shape
    weight = generator.standard_normal(shape).astype(np.float32) / shape[1] ** 0.5
    return replace(bundle, head=replace(bundle.head, baseline_weight=weight))


@pytest.fixture(scope="module")
def scaled(relative: Bundle) -> Bundle:
    """A bundle whose head reads the speaker's deviation too."""
    config = replace(relative.manifest.baseline, scaled=True)
    return replace(relative, manifest=replace(relative.manifest, baseline=config))


@pytest.fixture(scope="module")
def speech(talk: Callable[..., Array]) -> Array:
    return talk((5.0, 0.3), (1.5, 0.0), (1.2, 0.2), (1.5, 0.0), (6.0, 0.1))


def windows(events: list[Event]) -> list[Window]:
    return [event for event in events if isinstance(event, Window)]


def probs(bundle: Bundle, sound: Array, size: int) -> Array:
    recognizer = Recognizer(bundle, provider="cpu")
    blocks = [sound[start : start + size] for start in range(0, len(sound), size)]
    events = [event for block in blocks for event in recognizer.feed(block)] + recognizer.flush()
    return np.array([list(window.probs.values()) for window in windows(events)])


def test_the_stream_equals_the_definition_and_does_not_depend_on_blocks(
    relative: Bundle, bundle: Bundle, speech: Array
) -> None:
    assert verify(relative, speech).passed
    assert verify(relative, speech, step_ms=80, seed=1).passed
    whole = probs(relative, speech, len(speech))
    np.testing.assert_allclose(whole, probs(relative, speech, 997), rtol=0, atol=1e-4)
    late = np.abs(whole - probs(bundle, speech, len(speech)))[-5:]
    assert late.max() > 0.01  # the baseline has an effect


def test_a_stream_with_a_deviation_equals_the_definition_and_does_not_depend_on_blocks(
    scaled: Bundle, relative: Bundle, speech: Array
) -> None:
    assert verify(scaled, speech).passed
    assert verify(scaled, speech, step_ms=80, seed=1).passed
    whole = probs(scaled, speech, len(speech))
    for size in (997, 16_000):
        np.testing.assert_allclose(whole, probs(scaled, speech, size), rtol=0, atol=1e-4)
    unscaled = probs(relative, speech, len(speech))
    np.testing.assert_array_equal(whole[:3], unscaled[:3])  # nothing was heard yet
    assert np.abs(whole - unscaled)[-5:].max() > 0.01


def test_a_deviation_that_the_stream_does_not_divide_by_is_found(
    scaled: Bundle, speech: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SpeakerBaseline.before
    monkeypatch.setattr(
        SpeakerBaseline, "before", lambda self, end: replace(before(self, end), deviation=None)
    )
    assert not verify(scaled, speech).equal


def test_a_profile_has_a_baseline_of_its_own(relative: Bundle, speech: Array) -> None:
    own = replace(relative, head=relative.head.for_baseline(np.zeros(relative.head.input_size, np.float32)))
    assert own.head.baseline_weight is None
    whole, alone = probs(relative, speech, len(speech)), probs(own, speech, len(speech))
    np.testing.assert_allclose(whole[:3], alone[:3], rtol=0, atol=1e-5)
    assert np.abs(whole - alone).max() > 0.05


def test_a_stream_after_reset_is_the_same(relative: Bundle, speech: Array) -> None:
    recognizer = Recognizer(relative, provider="cpu", settings=Settings(step_ms=480))
    first = windows(recognizer.feed(speech) + recognizer.flush())
    recognizer.reset()
    again = windows(recognizer.feed(speech) + recognizer.flush())
    assert [window.probs for window in first] == [window.probs for window in again]
