"""Ordinary speech: the baseline by its definition, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibrate.fitting.candidates import Candidate
from calibrate.fitting.embeddings import extract_embeddings, speech_windows, windows_worth
from calibrate.fitting.examples import Examples
from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import HeadInputs, predict_held_out
from calibrate.fitting.ordinary import (
    CONFIDENT,
    OrdinaryFit,
    StartingHeads,
    ordinary_head,
    ordinary_windows,
)
from calibrate.takes import InputNormalisation
from edge.arrays import Array
from edge.errors import UsageError
from edge.inference.engine import EngineLike
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, load_bundle
from edge.model.head import Head
from edge.model.manifest import BaselineConfig
from edge.recognition.speaker_baseline import SpeakerLevel, recorded_level, window_weights
from tests.calibrate.fitting.toys import EIGHT, PLAIN, SIZE, embeddings_of, takes_of, toy_head
from tests.calibrate.ordinary_speech import ordinary, with_baseline
from tests.cnn_lstm import CNN_LSTM

pytestmark = pytest.mark.skipif(
    not (CNN_LSTM / "model.json").is_file(),
    reason="the bundle is not in this checkout",
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return with_baseline(load_bundle(CNN_LSTM))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> EngineLike:
    return open_engine(bundle, "cpu")


def test_the_baseline_is_the_shrunken_mean_of_the_windows_of_speech(
    bundle: Bundle, engine: EngineLike
) -> None:
    pause = 1e-4 * np.random.default_rng(1).standard_normal(80_000).astype(np.float32)
    long, short = np.concatenate([ordinary(12.0), pause]), ordinary(2.0)
    fit = ordinary_head(bundle, engine, [long, short])
    normalisation = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    front_end = bundle.manifest.front_end
    first, second = extract_embeddings(engine, front_end, normalisation, [long, short])
    speech = speech_windows(engine.graphs, front_end, long)
    assert not speech.all()
    size = bundle.head.input_size
    weights = [1.0 + (speech.sum() - 1) * 240 / engine.graphs.window_features / 80, 1.0]
    means = [first[speech, :size].mean(axis=0), second[0, :size]]
    expected = (weights[0] * means[0] + means[1]) / (sum(weights) + bundle.manifest.baseline.prior_windows)
    np.testing.assert_allclose(fit.level.mean, expected, rtol=0, atol=1e-5)
    assert fit.level.deviation is None
    assert fit.windows == pytest.approx(sum(weights))
    assert fit.speech_s == pytest.approx(14.0, abs=0.5)
    assert fit.head.baseline_weight is None
    assert bundle.head.baseline_weight is not None
    bias = bundle.head.fc1_bias + bundle.head.baseline_weight @ expected.astype(np.float32)
    np.testing.assert_allclose(fit.head.fc1_bias, bias, rtol=0, atol=1e-4)


def test_the_deviation_is_of_the_windows_of_speech_where_the_model_reads_one(
    bundle: Bundle, engine: EngineLike
) -> None:
    sounds = [ordinary(12.0), ordinary(2.0)]
    config = replace(bundle.manifest.baseline, scaled=True)
    prior = config.prior_windows
    fit = ordinary_head(replace(bundle, manifest=replace(bundle.manifest, baseline=config)), engine, sounds)
    plain = ordinary_head(bundle, engine, sounds)
    windows = ordinary_windows(bundle, engine, sounds)
    counts = [len(own) for own in windows]
    worth = [windows_worth(count, engine.graphs, bundle.manifest.front_end) for count in counts]
    shares = window_weights(worth, counts)[:, None]
    spread = shares * (np.concatenate(windows) - plain.level.mean) ** 2
    variance = (prior + spread.sum(axis=0)) / (prior + shares.sum())
    np.testing.assert_array_equal(fit.level.mean, plain.level.mean)
    assert fit.level.deviation is not None
    np.testing.assert_allclose(fit.level.deviation, np.sqrt(variance), rtol=1e-4)
    expected = bundle.head.for_baseline(fit.level.mean, fit.level.deviation)
    np.testing.assert_array_equal(fit.head.fc1_weight, expected.fc1_weight)
    np.testing.assert_array_equal(fit.head.fc1_bias, expected.fc1_bias)


def test_speech_of_one_window_counts_as_one_whatever_its_length(bundle: Bundle, engine: EngineLike) -> None:
    front_end = bundle.manifest.front_end
    assert windows_worth(1, engine.graphs, front_end) == 1.0
    seconds = front_end.window_ms / 1000.0 + 9 * 0.24
    assert windows_worth(10, engine.graphs, front_end) == pytest.approx(seconds / 3.0, abs=0.15)


def test_no_recording_leaves_the_mean_of_the_training_speakers() -> None:
    windows, weights = np.ones((2, 3), np.float32), np.array([1.0, 3.0])
    np.testing.assert_allclose(recorded_level(windows, weights, BaselineConfig(4.0)).mean, np.full(3, 0.5))


TONE = (0.3 * np.sin(2.0 * np.pi * 220.0 * np.arange(320_000) / 16_000)).astype(np.float32)
SILENCE = np.zeros(320_000, np.float32)
SHOUT = np.clip(ordinary(14.0, peak=6.0), -1.0, 1.0)


@pytest.mark.parametrize(
    ("sounds", "said"),
    [
        ([ordinary(5.0)], "only 5 s of speech was heard"),
        ([], "only 0 s of speech was heard"),
        ([ordinary(10.0), TONE], "no speech is heard in recording 2 of 2, only other sound"),
        ([SILENCE], "the recording is silent"),
        ([SHOUT], "the recording is clipped"),
        ([np.tile(ordinary(10.0), 31)], "the recording lasts 310 s, but may last 300 s"),
        ([ordinary(0.3), ordinary(10.0)], "recording 1 of 2 lasts 0.30 s, but needs at least"),
        ([ordinary(9.0), ordinary(9.0, faster=1.5)], "more than one person seems to speak"),
    ],
)
def test_what_no_baseline_can_be_made_of_is_refused_with_a_remedy(
    bundle: Bundle, engine: EngineLike, sounds: list[Array], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        ordinary_head(bundle, engine, sounds)
    assert refused.value.remedy


def test_a_model_that_reads_no_baseline_is_refused_and_labelled_sentences_named(engine: EngineLike) -> None:
    small = load_bundle(CNN_LSTM)
    with pytest.raises(UsageError, match=r"does not read a speaker's baseline.* labelled sentences"):
        ordinary_head(small, engine, [ordinary()])


def sure_of(bundle: Bundle, emotion: str, logit: float) -> Bundle:
    """Return the bundle with a head that gives every window the same posterior."""
    bias = np.zeros(4, np.float32)
    bias[EMOTIONS.index(emotion)] = logit
    head = replace(
        bundle.head, fc3_weight=np.zeros_like(bundle.head.fc3_weight), fc3_bias=bias, temperature=1.0
    )
    return replace(bundle, head=head)


def test_speech_that_is_of_one_emotion_nearly_everywhere_is_refused(
    bundle: Bundle, engine: EngineLike
) -> None:
    with pytest.raises(UsageError, match=r"does not sound like ordinary speech \(angry in 100% of it\)"):
        ordinary_head(sure_of(bundle, "angry", 9.0), engine, [ordinary()])
    assert ordinary_head(sure_of(bundle, "neutral", 9.0), engine, [ordinary()]).warnings == ()
    unsure = np.log(3.0 * CONFIDENT / (1.0 - CONFIDENT)) - 0.01
    assert ordinary_head(sure_of(bundle, "angry", unsure), engine, [ordinary()]).warnings == ()


def test_speech_that_is_of_one_emotion_for_the_most_part_gives_a_warning(
    bundle: Bundle, engine: EngineLike
) -> None:
    # The more of the pause a window holds, the larger the posterior of "sad" by this head.
    halves = [ordinary(9.0), ordinary(9.0, peak=0.25, seed=1)]
    fit = ordinary_head(bundle, engine, halves)
    windows = np.concatenate(ordinary_windows(bundle, engine, halves))
    direction = windows - windows.mean(axis=0)
    axis = np.linalg.svd(direction, full_matrices=False)[2][0]
    cut = np.quantile(windows @ axis, 0.35)
    head = _above(bundle.head, axis, float(cut))
    warned = ordinary_head(replace(bundle, head=head), engine, halves)
    assert fit.warnings == ()
    assert warned.warnings == ("This does not sound like ordinary speech (sad in 65% of it).",)


def _above(head: Head, axis: Array, cut: float) -> Head:
    """A head that is sure of "sad" where the product with an axis is above a value, and else of neutral."""
    fc1, fc2 = np.zeros_like(head.fc1_weight), np.zeros_like(head.fc2_weight)
    fc1[0], fc1[1] = axis, -axis
    bias1 = np.zeros_like(head.fc1_bias)
    bias1[0], bias1[1] = -cut, cut
    fc2[0, 0], fc2[1, 1] = 1.0, 1.0
    fc3 = np.zeros_like(head.fc3_weight)
    fc3[EMOTIONS.index("sad"), 0] = fc3[EMOTIONS.index("neutral"), 1] = 9e3
    return replace(
        head,
        fc1_weight=fc1,
        fc1_bias=bias1,
        fc2_weight=fc2,
        fc2_bias=np.zeros_like(head.fc2_bias),
        fc3_weight=fc3,
        fc3_bias=np.zeros_like(head.fc3_bias),
        temperature=1.0,
    )


def test_voices_that_may_be_of_two_people_are_used_with_a_warning(
    bundle: Bundle, engine: EngineLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = [ordinary(9.0), ordinary(9.0, faster=1.5)]
    monkeypatch.setattr("calibrate.fitting.ordinary.REFUSED_SEPARATION", 1e6)
    assert (
        "More than one person may be speaking: listen to it."
        in ordinary_head(bundle, engine, sounds).warnings
    )
    monkeypatch.setattr("calibrate.fitting.ordinary.WARNED_SEPARATION", 1e6)
    assert ordinary_head(bundle, engine, sounds).warnings == ()


def test_quiet_speech_is_used_with_a_warning(bundle: Bundle, engine: EngineLike) -> None:
    fit = ordinary_head(bundle, engine, [ordinary(14.0, peak=0.02)])
    assert isinstance(fit, OrdinaryFit)
    assert [warning.partition(" (")[0] for warning in fit.warnings] == ["Too quiet"]


def relative_head() -> Head:
    weight = np.random.default_rng(5).standard_normal((6, SIZE)).astype(np.float32)
    return replace(toy_head(), baseline_weight=weight)


WEIGHTS = [1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 3.0]


PRIOR = BaselineConfig.prior_windows


def starts(
    embeddings: list[Array],
    generic: Head,
    ordinary: SpeakerLevel | None = None,
    config: BaselineConfig = BaselineConfig(),  # noqa: B008 - frozen
) -> StartingHeads:
    return StartingHeads(generic, embeddings, EIGHT, WEIGHTS, config, ordinary)


def test_the_baseline_of_takes_gives_each_emotion_the_same_weight() -> None:
    embeddings, generic = embeddings_of(EIGHT, 0), relative_head()
    found = starts(embeddings, generic).fitted_on([0, 2, 3, 4, 7])
    means = [windows.mean(axis=0) for windows in embeddings]
    emotions = [means[0], (means[2] + means[3]) / 2.0, means[4], means[7]]
    expected = np.mean(emotions, axis=0) * 8.0 / (8.0 + PRIOR)  # 1 + 1 + 1 + 2 + 3 windows
    np.testing.assert_allclose(found.fc1_bias, generic.for_baseline(expected).fc1_bias, rtol=0, atol=1e-5)


def test_the_deviation_of_takes_is_over_their_windows_and_each_emotion_weighs_the_same() -> None:
    embeddings, generic = embeddings_of(EIGHT, 0), relative_head()
    found = starts(embeddings, generic, config=BaselineConfig(scaled=True)).fitted_on([0, 2, 3, 4, 7])
    weights = {0: 2.0, 2: 1.0, 3: 1.0, 4: 2.0, 7: 2.0}  # 8 windows in all, 2 for each emotion
    shares = [
        (weights[take] / len(embeddings[take]), window) for take in weights for window in embeddings[take]
    ]
    mean = sum(share * window for share, window in shares) / (8.0 + PRIOR)
    variance = (PRIOR + sum(share * (window - mean) ** 2 for share, window in shares)) / (8.0 + PRIOR)
    expected = generic.for_baseline(mean, np.sqrt(variance))
    np.testing.assert_allclose(found.fc1_weight, expected.fc1_weight, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.fc1_bias, expected.fc1_bias, rtol=0, atol=1e-5)


def test_the_baseline_of_ordinary_speech_comes_before_that_of_the_takes() -> None:
    generic, own = relative_head(), np.full(SIZE, 0.5, np.float32)
    found = starts(embeddings_of(EIGHT, 0), generic, SpeakerLevel(own, None)).fitted_on([0, 3])
    np.testing.assert_array_equal(found.fc1_bias, generic.for_baseline(own).fc1_bias)


def test_a_take_that_is_held_out_is_in_no_baseline_that_it_is_judged_by() -> None:
    embeddings, generic = embeddings_of(EIGHT, 0), relative_head()
    folds = Folds("take", (np.array([0, 1] * 4),))
    seen: list[Array] = []

    def spy(start: Head, examples: Examples) -> Head:
        seen.append(start.fc1_bias)
        return start

    predict_held_out(
        Candidate("spy", own_statistics=False, fit=spy),
        starts(embeddings, generic),
        HeadInputs(PLAIN, embeddings, embeddings),
        takes_of(EIGHT),
        folds,
    )
    changed = [windows + 100.0 for windows in embeddings[:1]] + embeddings[1:]
    predict_held_out(
        Candidate("spy", own_statistics=False, fit=spy),
        starts(changed, generic),
        HeadInputs(PLAIN, changed, changed),
        takes_of(EIGHT),
        folds,
    )
    np.testing.assert_array_equal(seen[0], seen[2])
    assert np.abs(seen[1] - seen[3]).max() > 1.0
