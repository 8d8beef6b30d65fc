from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge.arrays import Array
from edge.audio.resampler import AudioConverter
from edge.errors import ProfileError, UsageError
from edge.events import Event, Overrun, Speech, Utterance, Window
from edge.features.frontend import filtered, power_spectrogram
from edge.features.long_term_spectrum import SPECTRUM_SIZE, band_powers, long_term_spectrum
from edge.features.normaliser import BinStatistics, Normaliser
from edge.inference.engine import WindowEngine
from edge.labels import EMOTIONS, UNSURE
from edge.model.bundle import Bundle, load_bundle, shipped_bundle
from edge.model.head import Head
from edge.model.profile import Profile, Reference
from edge.recognition.decision import DecisionRule
from edge.recognition.recognizer import MOST_AT_ONCE_S, Recognizer
from edge.recognition.settings import Settings
from edge.recognition.window_events import QUIETEST_DBFS
from tests.cnn_lstm import CNN_LSTM
from tests.edge.conftest import random_head, with_front_end
from tests.edge.streams import recognised as heard
from tests.tolerances import float32_tolerance

RATE = 16_000
TOLERANCE = 1e-4
FIRST_FEATURE = 48 * 160 + 640
"""Samples of the first feature: 0.52 s."""
WINDOW = 296 * 160 + 640
"""Samples of the 297 frames of a full window."""

Talk = Callable[..., Array]


@pytest.fixture(scope="module")
def recognizer(bundle: Bundle) -> Recognizer:
    return Recognizer(bundle, provider="cpu")


@pytest.fixture(scope="module")
def sound(talk: Talk) -> Array:
    """Two utterances of different loudness, a pause before each and after the first."""
    return talk((0.7, 0.0), (2.3, 0.3), (1.5, 0.0), (1.4, 0.05))


def windows(events: list[Event]) -> list[Window]:
    return [event for event in events if isinstance(event, Window)]


def probs(events: list[Event]) -> Array:
    return np.array([list(window.probs.values()) for window in windows(events)])


def untimed(events: list[Event]) -> list[Event]:
    """Drop the fields that depend on the clock."""
    return [
        replace(event, latency_ms={}, lag_ms=0.0) if isinstance(event, Window) else event for event in events
    ]


def unfiltered(bundle: Bundle) -> Recognizer:
    """A recogniser without input filter, for sound that has passed one."""
    front_end = replace(bundle.manifest.front_end, high_pass_hz=0.0, hum_notch_q=0.0)
    return Recognizer(replace(bundle, manifest=replace(bundle.manifest, front_end=front_end)), provider="cpu")


def assert_same(events: list[Event], expected: list[Event]) -> None:
    """Same types in the same order, same times, same labels; numbers from the network within tolerance."""
    assert [outline(event) for event in events] == [outline(event) for event in expected]
    for event, wanted in zip(events, expected, strict=True):
        if isinstance(event, Window) and isinstance(wanted, Window):
            assert event.smoothed == pytest.approx(wanted.smoothed, abs=TOLERANCE)
            assert event.level_dbfs == pytest.approx(wanted.level_dbfs, abs=0.01)
        if isinstance(event, Window | Utterance) and isinstance(wanted, Window | Utterance):
            assert event.probs == pytest.approx(wanted.probs, abs=TOLERANCE)


def outline(event: Event) -> tuple[object, ...]:
    if isinstance(event, Window):
        return "window", event.start_s, event.end_s, event.label, event.speech
    if isinstance(event, Utterance):
        return "utterance", event.start_s, event.end_s, event.label, event.windows
    return (event,)


def offline(bundle: Bundle, sound: Array, step_ms: int = 240) -> Array:
    """The posteriors of all windows, and of the tail, by the whole-window graph."""
    manifest = bundle.manifest
    normaliser = Normaliser(manifest.levels, bundle.statistics)
    power = power_spectrogram(filtered(sound, manifest.front_end), manifest.front_end)
    frames, levels_db = normaliser(power), 10.0 * np.log10(power.mean(axis=1) + 1e-12)
    features = (len(frames) - 49) // 8 + 1
    ends = list(range(32, features + 1, step_ms // 80))
    if features not in ends:
        ends.append(features)
    whole, bands = WindowEngine(bundle), band_powers(power, manifest.front_end)
    spans = [slice(max(0, (end - 32) * 8), (end - 1) * 8 + 49) for end in ends]
    embeddings = np.concatenate([whole(frames[None, span])[0] for span in spans])
    spectra = np.stack([long_term_spectrum(bands[span], levels_db[span]) for span in spans])
    return bundle.head.probs(np.concatenate([embeddings, spectra], axis=1))


SECONDS = np.arange(6 * RATE) / RATE


@pytest.mark.parametrize(
    ("added", "tolerance"),
    [
        (0.002, 1e-3),
        (0.3, 1e-3),
        (-0.3, 1e-3),
        (0.3 * (SECONDS > 1.0), 0.2),
        (0.04 * np.sin(2 * np.pi * 50 * SECONDS), 0.05),
        (0.04 * np.sin(2 * np.pi * 60 * SECONDS), 0.05),
        (0.1 * np.sin(2 * np.pi * 3 * SECONDS), 0.05),
    ],
    ids=["offset", "large", "negative", "step", "50 Hz", "60 Hz", "3 Hz"],
)
def test_an_offset_hum_and_rumble_do_not_change_the_answers(
    talk: Talk, added: float | Array, tolerance: float
) -> None:
    shipped, sound = load_bundle(CNN_LSTM), talk((1.0, 0.0), (5.0, 0.3))
    recognizer = Recognizer(shipped, provider="cpu")
    disturbed = (sound + added).astype(np.float32)
    expected, events = heard(recognizer, sound), heard(recognizer, disturbed, 1_280)
    assert [type(event) for event in events] == [type(event) for event in expected]
    np.testing.assert_allclose(probs(events), probs(expected), atol=tolerance)
    for window, clean in zip(windows(events), windows(expected), strict=True):
        assert window.level_dbfs == pytest.approx(clean.level_dbfs, abs=30 * tolerance)
    assert np.abs(probs(heard(unfiltered(shipped), disturbed)) - probs(expected)).max() > 3 * tolerance


@pytest.mark.parametrize("step_ms", [80, 160, 240])
def test_streaming_equals_offline(bundle: Bundle, sound: Array, step_ms: int) -> None:
    recognizer = Recognizer(bundle, settings=Settings(step_ms=step_ms), provider="cpu")
    expected = offline(bundle, sound, step_ms)
    assert np.ptp(expected, axis=0).max() > 100 * TOLERANCE, "windows too alike to tell a mistake"
    streamed = probs(heard(recognizer, sound, 1_280))
    assert streamed.shape == expected.shape
    np.testing.assert_allclose(streamed, expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def posteriors(bundle: Bundle, sound: Array) -> Array:
    return offline(bundle, sound)


@examples(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(200, 40_000), min_size=1, max_size=6))
def test_streaming_equals_offline_for_random_blocks(
    recognizer: Recognizer, sound: Array, posteriors: Array, sizes: list[int]
) -> None:
    np.testing.assert_allclose(probs(heard(recognizer, sound, *sizes)), posteriors, atol=TOLERANCE)


@pytest.mark.parametrize("size", [1_009, 1_280, 16_000, 1_000_000])
def test_events_do_not_depend_on_the_blocks(recognizer: Recognizer, sound: Array, size: int) -> None:
    expected = heard(recognizer, sound, 640)
    assert {type(event) for event in expected} == {Window, Speech, Utterance}
    assert_same(heard(recognizer, sound, size), expected)


def test_events_do_not_depend_on_the_blocks_sample_by_sample(recognizer: Recognizer, talk: Talk) -> None:
    sound = talk((0.1, 0.0), (0.6, 0.3))
    expected = heard(recognizer, sound)
    assert len(windows(expected)) == 1
    assert_same(heard(recognizer, sound, 1), expected)


@examples(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(200, 40_000), min_size=1, max_size=6))
def test_events_do_not_depend_on_random_blocks(
    recognizer: Recognizer, sound: Array, sizes: list[int]
) -> None:
    assert_same(heard(recognizer, sound, *sizes), heard(recognizer, sound))


def test_a_block_longer_than_is_taken_at_once_changes_nothing(recognizer: Recognizer, talk: Talk) -> None:
    sound = talk((MOST_AT_ONCE_S + 2.0, 0.2))
    assert_same(heard(recognizer, sound), heard(recognizer, sound, 16_000))


def test_events_are_in_order_of_time(recognizer: Recognizer, sound: Array) -> None:
    recognizer.reset()
    times = []
    for event in recognizer.feed(sound):
        if isinstance(event, Window):
            times.append(event.end_s)
        elif isinstance(event, Speech):
            times.append(event.time_s)
    assert times == sorted(times)


@pytest.mark.parametrize("cut_s", [3.0, 4.1])
def test_later_samples_do_not_change_earlier_results(
    recognizer: Recognizer, sound: Array, cut_s: float
) -> None:
    cut = round(cut_s * RATE)
    changed = sound.copy()
    changed[cut:] = np.random.default_rng(9).uniform(-1, 1, len(sound) - cut)
    recognizer.reset()
    before = recognizer.feed(sound[:cut])
    assert windows(before)
    entire, other = heard(recognizer, sound), heard(recognizer, changed)
    assert_same(entire[: len(before)], before)
    assert_same(other[: len(before)], before)
    assert not np.allclose(probs(entire)[-1], probs(other)[-1], atol=TOLERANCE)


def test_a_window_comes_with_its_last_sample_and_not_before(recognizer: Recognizer, talk: Talk) -> None:
    sound = talk((4.0, 0.2))
    recognizer.reset()
    assert windows(recognizer.feed(sound[: WINDOW - 1])) == []
    (window,) = windows(recognizer.feed(sound[WINDOW - 1 : WINDOW]))
    assert (window.start_s, window.end_s) == (0.0, WINDOW / RATE)


@pytest.mark.parametrize("step_ms", [80, 160, 240, 800])
def test_windows_are_a_step_apart(bundle: Bundle, talk: Talk, step_ms: int) -> None:
    recognizer = Recognizer(bundle, settings=Settings(step_ms=step_ms), provider="cpu")
    found = windows(recognizer.feed(talk((4.7, 0.2))))
    assert len(found) == int((4.7 * RATE - WINDOW) // (RATE * step_ms / 1000)) + 1
    starts = [window.start_s for window in found]
    np.testing.assert_allclose(starts, np.arange(len(found)) * step_ms / 1000, atol=1e-9)
    np.testing.assert_allclose([window.end_s for window in found], np.array(starts) + WINDOW / RATE)


@pytest.mark.parametrize(("hop_ms", "window_ms"), [(5, 3_000), (20, 3_000), (10, 1_500)])
def test_a_bundle_of_another_hop_or_window_has_its_windows_and_speech_at_the_right_times(
    bundle: Bundle, talk: Talk, hop_ms: int, window_ms: int
) -> None:
    other = with_front_end(bundle, hop_length_ms=hop_ms, window_ms=window_ms)
    sound, settings = talk((0.5, 0.0), (4.0, 0.3), (1.5, 0.0)), Settings(step_ms=480)
    events = heard(Recognizer(other, settings=settings, provider="cpu"), sound)
    found = windows(events)[:-1]
    assert found[0].end_s == pytest.approx(window_ms / 1000.0, abs=0.012 * hop_ms)
    np.testing.assert_allclose(np.diff([window.start_s for window in found]), 0.48, atol=1e-9)
    usual = heard(Recognizer(bundle, settings=settings, provider="cpu"), sound)
    for kind in (Speech, Utterance):
        (*_, one), (*_, expected) = [
            [item for item in said if type(item) is kind] for said in (events, usual)
        ]
        for name in ("time_s",) if kind is Speech else ("start_s", "end_s"):
            assert getattr(one, name) == pytest.approx(getattr(expected, name), abs=0.05)


@pytest.mark.parametrize(("hop_ms", "features"), [(20, 160), (7, 56)])
def test_a_step_off_the_grid_of_the_bundle_is_a_usage_error(
    bundle: Bundle, hop_ms: int, features: int
) -> None:
    with pytest.raises(UsageError, match=f"240 ms is not a multiple of {features} ms"):
        Recognizer(with_front_end(bundle, hop_length_ms=hop_ms), provider="cpu")


@pytest.mark.parametrize("step_ms", [0, -80, 1, 79, 100, 250, 1_000])
def test_a_step_off_the_grid_is_a_usage_error(bundle: Bundle, step_ms: int) -> None:
    with pytest.raises(UsageError, match="a multiple of 80 ms"):
        Recognizer(bundle, settings=Settings(step_ms=step_ms), provider="cpu")


def test_flush_emits_the_tail(recognizer: Recognizer, talk: Talk) -> None:
    sound = talk((3.6, 0.2))
    recognizer.reset()
    assert len(windows(recognizer.feed(sound))) == 3
    (tail,) = windows(recognizer.flush())
    features = (recognizer.front_end.frames_in(len(sound)) - 49) // 8 + 1
    assert tail.end_s == pytest.approx(((features - 1) * 8 + 48) * 0.01 + 0.04)
    assert recognizer.flush() == []


def test_flush_repeats_no_window(recognizer: Recognizer, talk: Talk) -> None:
    recognizer.reset()
    assert windows(recognizer.feed(talk((WINDOW / RATE, 0.2))))
    assert windows(recognizer.flush()) == []


@pytest.mark.parametrize("seconds", [0.52, 0.6, 1.0, 1.7, 2.5, 2.96])
def test_a_short_clip_is_exactly_one_window(
    recognizer: Recognizer, bundle: Bundle, talk: Talk, seconds: float
) -> None:
    sound = talk((seconds, 0.2))
    events = heard(recognizer, sound, 1_280)
    (window,) = windows(events)
    assert (window.start_s, len(events[-1:])) == (0.0, 1)
    assert 0.52 <= window.end_s <= seconds
    np.testing.assert_allclose(probs(events), offline(bundle, sound), atol=TOLERANCE)


def test_speech_in_a_short_clip_is_an_utterance(recognizer: Recognizer, talk: Talk) -> None:
    *_, window, ended, utterance = heard(recognizer, talk((0.3, 0.0), (1.5, 0.3)), 1_280)
    assert isinstance(window, Window)
    assert isinstance(utterance, Utterance)
    assert window.speech
    assert ended == Speech(time_s=1.8, active=False)
    assert utterance.windows == 1
    assert utterance.probs == pytest.approx(window.probs)
    assert utterance.start_s <= 0.4
    assert utterance.end_s == 1.8


@pytest.mark.parametrize("size", [1_280, 997, 48_000])
def test_speech_over_before_the_first_window_is_full_is_judged_by_what_there_is(
    recognizer: Recognizer, talk: Talk, size: int
) -> None:
    events = heard(recognizer, talk((0.3, 0.0), (1.2, 0.3), (2.0, 0.0)), size)
    (utterance,) = [event for event in events if isinstance(event, Utterance)]
    judged = windows(events)[0]
    assert judged.speech
    assert (judged.start_s, utterance.windows) == (0.0, 1)
    assert judged.end_s < 2.9
    assert utterance.probs == pytest.approx(judged.probs)


@pytest.mark.parametrize("samples", [0, 1, 639, 640, FIRST_FEATURE - 1])
def test_too_little_sound_claims_nothing(recognizer: Recognizer, samples: int) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    events = heard(recognizer, sound, 80)
    assert not any(isinstance(event, Window | Utterance) for event in events)


@pytest.mark.parametrize("level", [0.0, 1e-6, 1e-4])
def test_silence_claims_no_emotion(recognizer: Recognizer, level: float) -> None:
    noise = level * np.random.default_rng(0).standard_normal(5 * RATE)
    events = heard(recognizer, noise.astype(np.float32), 4_000)
    assert windows(events)
    assert events == windows(events)
    assert all(not window.speech and window.label == UNSURE for window in windows(events))
    assert all(QUIETEST_DBFS <= window.level_dbfs < -50 for window in windows(events))


def test_the_level_is_the_root_mean_square_of_the_newest_sound(recognizer: Recognizer) -> None:
    time_s = np.arange(4 * RATE) / RATE
    amplitude = np.where(time_s < 2.5, 0.01, 0.5)
    tone = (amplitude * np.sin(2 * np.pi * 1_000 * time_s)).astype(np.float32)
    window = windows(heard(recognizer, tone))[-1]
    assert window.level_dbfs == pytest.approx(20 * np.log10(0.5 / 2**0.5), abs=0.1)


def test_the_level_of_a_step_with_a_click_is_that_of_its_power(recognizer: Recognizer) -> None:
    sound = np.zeros(WINDOW, np.float32)
    sound[-1_280:] = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(1_280) / RATE)
    (window,) = windows(heard(recognizer, sound))
    assert -16.0 < window.level_dbfs < -12.0


def test_reset_is_exact(recognizer: Recognizer, sound: Array) -> None:
    first = heard(recognizer, sound, 1_000)
    recognizer.feed(sound[:20_000])
    assert untimed(heard(recognizer, sound, 1_000)) == untimed(first)


@pytest.mark.parametrize("count", [1, 5_000, 10**9])
def test_reset_is_exact_after_a_loss(recognizer: Recognizer, sound: Array, count: int) -> None:
    first = heard(recognizer, sound, 1_000)
    recognizer.feed(sound[:20_000])
    recognizer.report_gap(count)
    assert untimed(heard(recognizer, sound, 1_000)) == untimed(first)


def test_two_recognizers_do_not_touch_each_other(
    bundle: Bundle, recognizer: Recognizer, sound: Array
) -> None:
    expected = heard(recognizer, sound, 2_000)
    recognizer.reset()
    other = Recognizer(bundle, provider="cpu")
    events = []
    for start in range(0, len(sound), 2_000):
        events += recognizer.feed(sound[start : start + 2_000])
        other.feed(sound[::-1][start : start + 2_000])
    assert untimed(events + recognizer.flush()) == untimed(expected)


@pytest.mark.parametrize("count", [1, 160, 1_000, 50_000, 96_000, 10**6, 16_000 * 86_400])
def test_a_loss_advances_the_time(recognizer: Recognizer, talk: Talk, count: int) -> None:
    sound = talk((3.5, 0.2))
    recognizer.reset()
    before = recognizer.feed(sound)
    overrun, *during = recognizer.report_gap(count)
    assert overrun == Overrun(start_s=len(sound) / RATE, lost_s=count / RATE)
    after = [*recognizer.feed(sound), *recognizer.flush()]
    total_s = (2 * len(sound) + count) / RATE
    assert recognizer.heard_s == pytest.approx(total_s)
    found = windows([*before, *during, *after])
    ends = [window.end_s for window in found]
    assert ends == sorted(set(ends))
    assert total_s - 0.12 < ends[-1] <= total_s
    for window in found:
        assert window.start_s >= 0.0
        assert window.end_s - window.start_s == pytest.approx(WINDOW / RATE)


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_a_small_loss_counts_as_silence(
    bundle: Bundle, recognizer: Recognizer, talk: Talk, offset: float
) -> None:
    sound, front_end = talk((4.0, 0.2)) + np.float32(offset), bundle.manifest.front_end
    before, after = filtered(sound[:20_000], front_end), filtered(sound[24_000:], front_end)
    silence = np.zeros(4_000, np.float32)
    expected = heard(unfiltered(bundle), np.concatenate([before, silence, after]))
    recognizer.reset()
    events = recognizer.feed(sound[:20_000]) + recognizer.report_gap(4_000)
    events += recognizer.feed(sound[24_000:]) + recognizer.flush()
    assert_same([event for event in events if not isinstance(event, Overrun)], expected)


def test_a_huge_loss_ends_the_utterance_before_it(recognizer: Recognizer, sound: Array) -> None:
    recognizer.reset()
    recognizer.feed(sound[: 2 * RATE])
    events = recognizer.report_gap(3_600 * RATE)
    assert Speech in {type(event) for event in events}
    assert all(event.end_s < 4.0 for event in events if isinstance(event, Utterance))


def test_a_loss_in_a_noisy_room_does_not_make_the_noise_speech(recognizer: Recognizer) -> None:
    noise = (0.003 * np.random.default_rng(0).standard_normal(5 * RATE)).astype(np.float32)
    recognizer.reset()
    events = recognizer.feed(noise) + recognizer.report_gap(10 * RATE) + recognizer.feed(noise)
    assert windows(events)
    assert not any(isinstance(event, Speech) for event in events)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_sample_that_is_not_finite_or_out_of_range_is_repaired_as_by_the_sources(
    recognizer: Recognizer, sound: Array, bad: float
) -> None:
    damaged, repaired = sound.copy(), sound.copy()
    damaged[10_000:10_010] = bad
    repaired[10_000:10_010] = 1.0 if bad == 1e30 else 0.0
    assert untimed(heard(recognizer, damaged)) == untimed(heard(recognizer, repaired))


def test_other_floats_and_lists_are_accepted(recognizer: Recognizer, sound: Array) -> None:
    expected = heard(recognizer, sound[:WINDOW])
    double = heard(recognizer, sound[:WINDOW].astype(np.float64))
    assert untimed(double) == untimed(expected)
    recognizer.reset()
    assert recognizer.feed([]) == recognizer.feed([0.5, 0.5]) == []  # type: ignore[arg-type]
    assert recognizer.heard_s == 2 / RATE


@pytest.mark.parametrize(
    "samples", [np.zeros((100, 2)), np.zeros((1, 100)), np.array(0.5), np.zeros(100, np.int16), ["a"]]
)
def test_what_is_not_mono_samples_is_refused_and_leaves_no_trace(
    recognizer: Recognizer, samples: Array
) -> None:
    recognizer.reset()
    with pytest.raises(UsageError, match=r"expected \(N,\) floats"):
        recognizer.feed(samples)
    assert recognizer.heard_s == 0.0


def test_memory_is_bounded(bundle: Bundle, talk: Talk) -> None:
    recognizer, sound, sizes = Recognizer(bundle, provider="cpu"), talk((2.0, 0.2)), []
    for _ in range(20):
        recognizer.feed(sound)
        sizes.append(recognizer._recent.capacity)
    assert max(features for features, _ in sizes) <= 2 * (32 + 25)
    assert max(frames for _, frames in sizes) <= 2 * (32 * 8 + 49 + 8 + 200)
    assert sizes[-1] == sizes[5]


def test_memory_is_bounded_for_a_step_longer_than_the_window(bundle: Bundle, talk: Talk) -> None:
    recognizer = Recognizer(bundle, settings=Settings(step_ms=80_000), provider="cpu")
    for _ in range(5):
        recognizer.feed(talk((2.0, 0.2)))
    assert recognizer._recent.capacity[0] <= 2 * (32 + 25)


def test_the_window_shows_its_compute_time_by_stage(recognizer: Recognizer, sound: Array) -> None:
    for window in windows(heard(recognizer, sound, 1_280)):
        assert set(window.latency_ms) == {"front_end", "encoder", "speech", "classifier", "decision"}
        assert all(spent >= 0.0 for spent in window.latency_ms.values())
        assert window.lag_ms > 0.0


def test_an_utterance_is_the_average_of_its_windows(recognizer: Recognizer, talk: Talk) -> None:
    events = heard(recognizer, talk((0.5, 0.0), (4.0, 0.3)), 1_280)
    (utterance,) = [event for event in events if isinstance(event, Utterance)]
    assert utterance.windows == len(windows(events))
    mean = dict(zip(EMOTIONS, probs(events).mean(axis=0), strict=True))
    assert utterance.probs == pytest.approx(mean, rel=0, abs=float32_tolerance(utterance.windows, 1.0))


def test_an_utterance_ends_with_its_last_sound_not_when_the_silence_was_long_enough(
    recognizer: Recognizer, sound: Array
) -> None:
    events = heard(recognizer, sound)
    first = next(event for event in events if isinstance(event, Utterance))
    ended = next(event for event in events if isinstance(event, Speech) and not event.active)
    assert first.start_s == pytest.approx(0.6, abs=0.2)
    assert first.end_s == pytest.approx(3.0, abs=0.1)
    assert ended.time_s == pytest.approx(first.end_s + 0.8)


def test_recognizers_that_share_an_engine_do_not_touch_each_other(
    recognizer: Recognizer, bundle: Bundle, sound: Array
) -> None:
    expected = heard(recognizer, sound, 1_280)
    one, other = (Recognizer(bundle, engine=recognizer.engine) for _ in range(2))
    events: list[Event] = []
    for start in range(0, len(sound), 1_280):
        events += one.feed(sound[start : start + 1_280])
        other.feed(0.5 * sound[::-1][start : start + 1_280])
    assert untimed(events + one.flush()) == untimed(expected)


def test_the_given_clock_times_the_stages(bundle: Bundle, sound: Array) -> None:
    ticks = iter(range(10**6))
    recognizer = Recognizer(bundle, provider="cpu", clock=lambda: float(next(ticks)))
    for window in windows(heard(recognizer, sound, 3_840)):
        assert all(spent > 0.0 and spent % 1_000.0 == 0.0 for spent in window.latency_ms.values())
        assert window.lag_ms % 1_000.0 == 0.0


def test_a_rule_that_is_never_sure_claims_nothing(bundle: Bundle, sound: Array) -> None:
    rule = DecisionRule(unsure_below=0.999999)
    recognizer = Recognizer(bundle, settings=Settings(rule=rule), provider="cpu")
    events = heard(recognizer, sound)
    labels = {event.label for event in events if isinstance(event, Window | Utterance)}
    assert labels == {UNSURE}


@pytest.fixture(scope="module")
def profile(bundle: Bundle) -> Profile:
    """A speaker for whom everything is different."""
    levels = replace(bundle.manifest.levels, reference=-3.0)
    statistics = replace(bundle.statistics, mean=bundle.statistics.mean + 0.5)
    head = replace(reads_the_spectrum(bundle), fc3_bias=np.array([0, 3, 0, 0], np.float32))
    return replace(speaker(bundle, head), levels=levels, statistics=statistics)


def speaker(bundle: Bundle, head: Head) -> Profile:
    """A profile in which only the head differs from the bundle."""
    return Profile("anna", bundle.fingerprint, head, bundle.manifest.levels, bundle.statistics, "adopted")


def reads_the_spectrum(bundle: Bundle) -> Head:
    """The bundle's head, and weights on the long-term spectrum."""
    draw = np.random.default_rng(3).standard_normal((len(bundle.head.fc1_bias), SPECTRUM_SIZE))
    wider = np.concatenate([bundle.head.fc1_weight, 0.2 * draw.astype(np.float32)], axis=1)
    return replace(bundle.head, fc1_weight=wider)


def test_a_profile_replaces_head_level_and_statistics(bundle: Bundle, profile: Profile, sound: Array) -> None:
    manifest = replace(bundle.manifest, levels=profile.levels)
    spoken = replace(bundle, head=profile.head, statistics=profile.statistics, manifest=manifest)
    profiled = Recognizer(bundle, profile=profile, provider="cpu")
    assert untimed(heard(profiled, sound)) == untimed(heard(Recognizer(spoken, provider="cpu"), sound))
    assert not np.allclose(probs(heard(profiled, sound)), offline(bundle, sound), atol=0.01)


@examples(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(200, 40_000), min_size=1, max_size=6))
def test_streaming_equals_offline_for_a_head_that_reads_the_spectrum(
    bundle: Bundle, sound: Array, sizes: list[int]
) -> None:
    head = reads_the_spectrum(bundle)
    spoken = replace(bundle, head=head)
    recognizer = Recognizer(bundle, profile=speaker(bundle, head), provider="cpu")
    streamed, expected = probs(heard(recognizer, sound, *sizes)), offline(spoken, sound)
    np.testing.assert_allclose(streamed, expected, atol=TOLERANCE)
    deaf = replace(head, fc1_weight=head.fc1_weight * (np.arange(head.input_size) < 256))
    assert not np.allclose(expected, offline(replace(bundle, head=deaf), sound), atol=100 * TOLERANCE)


@pytest.mark.parametrize("back", [False, True])
def test_a_profile_set_at_the_start_of_a_stream_equals_one_given_to_the_constructor(
    bundle: Bundle, profile: Profile, sound: Array, back: bool
) -> None:
    switched = Recognizer(bundle, profile=profile if back else None, provider="cpu")
    engine, wanted = switched.engine, None if back else profile
    switched.feed(sound)
    switched.reset()
    assert switched.switch_profile(wanted) == []
    assert switched.engine is engine
    assert switched.profile is wanted
    made = Recognizer(bundle, profile=wanted, provider="cpu")
    assert untimed(switched.feed(sound) + switched.flush()) == untimed(heard(made, sound))
    assert untimed(heard(switched, sound)) == untimed(heard(made, sound))


def test_a_profile_set_within_a_stream_starts_a_new_one_while_time_goes_on(
    bundle: Bundle, profile: Profile, talk: Talk
) -> None:
    first, then = talk((0.5, 0.0), (3.0, 0.3)), talk((0.7, 0.0), (3.0, 0.2), seed=1)
    generic, own = Recognizer(bundle, provider="cpu"), Recognizer(bundle, profile=profile, provider="cpu")
    switched = Recognizer(bundle, provider="cpu")
    before = switched.feed(first) + switched.switch_profile(profile)
    assert untimed(before) == untimed(heard(generic, first))
    assert switched.heard_s == len(first) / RATE
    after = switched.feed(then) + switched.flush()
    expected = heard(own, then)
    assert [type(event) for event in after] == [type(event) for event in expected]
    assert (probs(after) == probs(expected)).all()
    moved = [window.end_s - len(first) / RATE for window in windows(after)]
    assert moved == pytest.approx([window.end_s for window in windows(expected)])


def test_sound_of_another_rate_goes_on_with_another_speaker(
    bundle: Bundle, profile: Profile, talk: Talk
) -> None:
    switched = Recognizer(bundle, provider="cpu")
    switched.accept_waveform(48_000, np.zeros(48_000, np.float32))
    switched.switch_profile(profile)
    assert switched.heard_s == pytest.approx(1.0)
    assert windows(switched.accept_waveform(16_000, talk((3.5, 0.3))))


@pytest.mark.parametrize("change", ["bundle", "head", "statistics", "reference", "verdict"])
def test_a_profile_that_does_not_fit_is_refused_and_the_stream_goes_on(
    bundle: Bundle, profile: Profile, sound: Array, change: str
) -> None:
    few = np.ones(3, np.float32)
    wrong = {
        "bundle": replace(profile, bundle="0" * 64),
        "head": replace(profile, head=random_head(size=8)),
        "statistics": replace(profile, statistics=BinStatistics(few, few)),
        "reference": replace(profile, reference=Reference(few, few)),
        "verdict": replace(profile, verdict="rejected"),
    }[change]
    recognizer = Recognizer(bundle, provider="cpu")
    expected = untimed(heard(recognizer, sound))
    recognizer.reset()
    events = recognizer.feed(sound[:40_000])
    with pytest.raises(ProfileError, match=r"run mmtl calibrate"):
        recognizer.switch_profile(wrong)
    assert untimed(events + recognizer.feed(sound[40_000:]) + recognizer.flush()) == expected
    with pytest.raises(ProfileError):
        Recognizer(bundle, profile=wrong, engine=recognizer.engine)


def test_the_shipped_model_is_loaded_when_none_is_named() -> None:
    recognizer = Recognizer.load(provider="cpu")
    assert recognizer.profile is None
    assert (recognizer.feature_ms, recognizer.window_s) == (80, 2.975)
    named = Recognizer.load(str(shipped_bundle("default")), provider="cpu")
    assert named.bundle.manifest == recognizer.bundle.manifest


@pytest.mark.parametrize("block", [1_000, 4_801])
def test_sound_of_another_rate_gives_the_events_of_the_same_sound_resampled(
    recognizer: Recognizer, talk: Talk, block: int
) -> None:
    sound = np.repeat(talk((0.3, 0.0), (3.5, 0.3)), 3)  # 48 kHz
    intake = AudioConverter(48_000)
    expected = heard(recognizer, np.concatenate([intake.feed(sound), intake.flush()]))
    recognizer.reset()
    stereo = np.stack([sound, sound], axis=1)
    events = []
    for start in range(0, len(stereo), block):
        events += recognizer.accept_waveform(48_000, stereo[start : start + block])
    assert_same(events + recognizer.flush(), expected)


def test_integers_are_scaled_by_their_full_scale(recognizer: Recognizer, talk: Talk) -> None:
    sound = talk((0.3, 0.0), (3.0, 0.3))
    integers = np.round(sound * 32_767).astype(np.int16)
    expected = heard(recognizer, integers.astype(np.float32) / np.float32(32_768))
    with recognizer:
        events = recognizer.accept_waveform(16_000, integers) + recognizer.flush()
    assert_same(events, expected)


@pytest.mark.parametrize(
    "waveform",
    [
        np.full(100, 128, np.uint8),
        np.zeros(100, np.int64),
        np.ones(100, bool),
        np.zeros(100, complex),
        np.zeros((2, 100)),
        np.zeros((100, 0)),
        np.zeros((4, 3, 2)),
        np.array(0.5),
        ["a"],
        bytes(100),
    ],
)
def test_a_waveform_that_would_be_heard_as_noise_is_refused_and_leaves_no_trace(
    recognizer: Recognizer, waveform: Array
) -> None:
    with recognizer:
        with pytest.raises(UsageError, match=r"expected \(N,\) or \(N, channels\) floats"):
            recognizer.accept_waveform(16_000, waveform)
        assert recognizer.heard_s == 0.0


def test_a_rate_that_changes_in_mid_stream_is_refused(recognizer: Recognizer) -> None:
    with recognizer:
        recognizer.accept_waveform(48_000, np.zeros(100, np.float32))
        with pytest.raises(UsageError, match="flush and reset"):
            recognizer.accept_waveform(44_100, np.zeros(100, np.float32))


@pytest.mark.parametrize("before_s", [0.0, 4.0])
def test_a_word_of_half_a_second_is_unsure(recognizer: Recognizer, talk: Talk, before_s: float) -> None:
    recognizer.reset()
    events = recognizer.feed(talk((before_s, 0.0), (0.5, 0.3), (4.0, 0.0))) + recognizer.flush()
    labels = {event.label for event in events if isinstance(event, Window | Utterance)}
    assert [event.active for event in events if isinstance(event, Speech)] == [True, False]
    assert labels == {UNSURE}


def test_speech_of_a_second_and_a_half_has_a_label(recognizer: Recognizer, talk: Talk) -> None:
    recognizer.reset()
    events = recognizer.feed(talk((4.0, 0.0), (1.5, 0.3), (4.0, 0.0))) + recognizer.flush()
    assert any(event.speech for event in events if isinstance(event, Window))
