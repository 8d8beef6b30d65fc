from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from calibrate.fitting.session_reference import session_reference
from edge.arrays import Array
from edge.errors import ModelError
from edge.events import Drift, Event
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.model.bundle import Bundle
from edge.model.profile import LARGEST_MEAN, LEAST_SPREAD, Profile, Reference
from edge.output.text import describe_drift
from edge.recognition.drift import FEWEST_WINDOWS, DriftLimits, DriftWatch, observe, spoken_level, summarise
from edge.recognition.recognizer import Recognizer
from tests.edge.conftest import random_head
from tests.edge.schema import checked_event
from tests.tolerances import float32_tolerance

STEP_S = 0.25
SIZE = 8
EVEN = np.full(4, 0.25, np.float32)
AT = observe(-20.0, np.zeros(SIZE, np.float32), EVEN)
SESSION = Reference(AT, np.array([4.0, 0.3, *[0.5] * SIZE], np.float32))


def moved(level_db: float = 0.0, entropy: float = 0.0, features: float = 0.0) -> Array:
    """An observation that departs by these amounts; features in spreads, with alternating signs."""
    signs = np.resize([1.0, -1.0], SIZE)
    away: Array = np.array([level_db, entropy, *(0.5 * features * signs)], np.float32)
    return AT + away


def events(watch: DriftWatch, seen: Iterable[Array], start_s: float = 3.0) -> list[Drift]:
    found = [watch.feed(start_s + STEP_S * index, window) for index, window in enumerate(seen)]
    return [event for event in found if event]


def minutes(count: float, seen: Array) -> list[Array]:
    return [seen] * round(count * 60.0 / STEP_S)


@pytest.fixture
def watch() -> DriftWatch:
    return DriftWatch(SESSION, STEP_S)


@pytest.mark.parametrize(
    ("seen", "what", "change", "unit", "advice"),
    [
        (moved(level_db=-14.0), "level", -14.0, "dB", "speak closer"),
        (moved(level_db=14.0), "level", 14.0, "dB", "move away"),
        (moved(features=2.0), "features", 2.0, "spreads", "calibrate again"),
        (moved(entropy=0.6), "entropy", 0.6, "nats", "less certain"),
    ],
)
def test_a_lasting_departure_is_reported_with_advice(
    watch: DriftWatch, seen: Array, what: str, change: float, unit: str, advice: str
) -> None:
    (event,) = events(watch, minutes(5.0, seen))
    assert checked_event(event) is event
    assert (event.what, event.unit) == (what, unit)
    assert event.bound < abs(event.change) <= abs(change)
    assert math.copysign(1.0, event.change) == math.copysign(1.0, change)
    assert advice in event.advice
    assert "calibrate again" in event.advice


@pytest.mark.parametrize("by", [99.96, 12.6, 999.4, LARGEST_MEAN])
@pytest.mark.parametrize(
    ("what", "axes"),
    [("level", [0]), ("features", range(2, 6)), ("spectrum", range(6, 10)), ("entropy", [1])],
)
def test_every_kind_of_drift_is_a_line_of_76_columns(what: str, axes: Iterable[int], by: float) -> None:
    found: list[Drift] = []
    for sign in (1.0, -1.0):
        away, mean = np.zeros(10, np.float32), np.zeros(10, np.float32)
        mean[list(axes)] = -sign * by
        near = np.full(10, LEAST_SPREAD if by == LARGEST_MEAN else 1.0, np.float32)
        watch = DriftWatch(Reference(mean, near), STEP_S, DriftLimits(average_s=1e-3), spectrum=4)
        found += events(watch, minutes(5.0, away))[:1]
    assert [event.what for event in found] == [what] * (1 if what == "entropy" else 2), (
        "entropy: upwards only"
    )
    assert max(len(describe_drift(event)) for event in found) <= 76


@pytest.mark.parametrize(
    "seen",
    [
        AT,
        *(moved(level_db=-7.9), moved(level_db=7.9), moved(features=0.99), moved(entropy=0.37)),
        pytest.param(moved(entropy=-2.0), id="more certain"),
    ],
)
def test_a_departure_within_its_limit_is_no_drift(watch: DriftWatch, seen: Array) -> None:
    assert events(watch, minutes(10.0, seen)) == []


@pytest.mark.parametrize(("by", "drifts"), [(1.4, False), (2.0, True)])
def test_the_long_term_spectrum_has_a_bound_of_its_own(by: float, drifts: bool) -> None:
    def away(embedding: float, spectrum: float) -> Array:
        inputs = np.repeat(np.array([embedding, spectrum], np.float32), [SIZE, 4])
        return observe(-20.0, inputs, EVEN)

    session = Reference(away(0.0, 0.0), np.array([4.0, 0.3, *[0.5] * (SIZE + 4)], np.float32))
    watch = DriftWatch(session, STEP_S, spectrum=4)
    found = events(watch, minutes(5.0, away(0.0, -0.5 * by)))
    assert all(checked_event(event) is event for event in found)
    assert [(event.what, event.unit) for event in found] == [("spectrum", "spreads")] * drifts
    assert watch.departures()["features"] == 0.0
    assert watch.departures()["spectrum"] == pytest.approx(by, rel=1e-2)
    watch.reset()
    (event,) = events(watch, minutes(5.0, away(1.0, 0.0)))
    assert event.what == "features"


def test_a_short_departure_is_no_drift(watch: DriftWatch) -> None:
    shout = minutes(0.25, moved(level_db=20.0))
    assert events(watch, [*shout, *minutes(1.0, AT)] * 5) == []


def test_the_average_follows_its_time_constant(watch: DriftWatch) -> None:
    events(watch, minutes(0.5, moved(level_db=4.0, features=1.0)))
    share = 1.0 - math.exp(-1.0)
    assert watch.departures()["level"] == pytest.approx(share, rel=1e-3)
    assert watch.departures()["features"] == pytest.approx(share, rel=1e-3)
    assert watch.departures()["entropy"] == pytest.approx(0.0, abs=1e-6)


def test_patience_is_speech_beyond_the_bound(watch: DriftWatch) -> None:
    bounds = DriftLimits()
    (event,) = events(watch, minutes(5.0, moved(level_db=-16.0)), start_s=0.0)
    beyond_s = bounds.average_s * math.log(2.0)  # until half of 16 dB
    assert event.time_s == pytest.approx(beyond_s + bounds.patience_s, abs=2 * STEP_S)


def test_one_event_a_cooldown_by_the_time_of_the_stream(watch: DriftWatch) -> None:
    found = events(watch, minutes(31.0, moved(level_db=-16.0)), start_s=0.0)
    gaps = np.diff([event.time_s for event in found])
    assert len(found) == 4
    assert gaps == pytest.approx(DriftLimits().cooldown_s, abs=STEP_S)
    after_a_loss = watch.feed(4_000.0, moved(level_db=-16.0))
    assert after_a_loss is not None


def test_of_several_departures_the_largest_is_reported(watch: DriftWatch) -> None:
    (event,) = events(watch, minutes(5.0, moved(level_db=-16.0, features=9.0)))
    assert event.what == "features"
    watch.reset()
    (event,) = events(watch, minutes(5.0, moved(level_db=-90.0, features=3.0)))
    assert event.what == "level"


def test_reset_forgets_exactly(watch: DriftWatch) -> None:
    seen = minutes(3.0, moved(level_db=-16.0, features=1.5))
    first = events(watch, seen)
    assert first
    assert events(watch, seen) == [], "the cooldown"
    watch.reset()
    assert set(watch.departures().values()) == {0.0}
    assert events(watch, seen) == first


@given(st.lists(st.floats(-30.0, 30.0, width=32), max_size=400))
@examples(max_examples=40, deadline=None)
def test_an_event_only_comes_when_the_average_is_beyond_its_bound(levels: list[float]) -> None:
    watch = DriftWatch(SESSION, STEP_S, DriftLimits(average_s=2.0, patience_s=1.0, cooldown_s=3.0))
    for index, level in enumerate(levels):
        event = watch.feed(STEP_S * index, moved(level_db=level))
        assert event is None or abs(watch.departures()["level"]) > DriftLimits().level


def test_it_does_not_change_the_reference(watch: DriftWatch) -> None:
    events(watch, minutes(2.0, moved(level_db=-16.0)))
    assert (SESSION.mean == observe(-20.0, np.zeros(SIZE, np.float32), EVEN)).all()


def test_an_observation_is_level_entropy_and_the_inputs_of_the_head() -> None:
    embedding = np.arange(3, dtype=np.float32)
    seen = observe(-30.0, embedding, EVEN)
    assert seen.dtype == np.float32
    assert seen == pytest.approx([-30.0, math.log(4.0), 0.0, 1.0, 2.0])
    assert observe(0.0, embedding, np.array([1, 0, 0, 0], np.float32))[1] == 0.0


def test_pauses_do_not_lower_the_spoken_level() -> None:
    spoken = np.array([-20.0, -22.0], np.float32)
    assert spoken_level(spoken) == -21.0
    assert spoken_level(np.append(spoken, np.full(100, -80.0, np.float32))) == -21.0


def test_a_reference_is_mean_and_spread_with_a_least() -> None:
    generator = np.random.default_rng(0)
    levels = np.resize(np.array([-30.0, -10.0], np.float32), 40)
    embeddings = generator.normal(2.0, 0.1, (40, SIZE)).astype(np.float32)
    embeddings[:, 0] = 7.0
    made = summarise(
        [observe(float(level), row, EVEN) for level, row in zip(levels, embeddings, strict=True)]
    )
    assert made is not None
    same = partial(pytest.approx, rel=float32_tolerance(40, 1.0))
    assert made.mean[:2] == same([-20.0, math.log(4.0)])
    assert made.mean[2:] == same(embeddings.mean(axis=0))
    assert made.spread[:3] == same([10.0, 0.3, 1e-3]), "measured, and the least of the others"
    # A deviation errs as the values do that it is taken from, which lie near 2.
    assert made.spread[3:] == pytest.approx(embeddings.std(axis=0)[1:], abs=float32_tolerance(40, 2.0))


def test_too_short_a_session_is_no_measure() -> None:
    assert summarise([AT] * (FEWEST_WINDOWS - 1)) is None
    assert summarise([AT] * FEWEST_WINDOWS) is not None


def test_a_reference_is_read_back_as_it_was_stored() -> None:
    again = Reference.from_tensors(SESSION.tensors())
    assert again is not None
    assert (again.mean == SESSION.mean).all()
    assert (again.spread == SESSION.spread).all()
    assert Reference.from_tensors({"head.fc1_bias": AT}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"reference.mean": np.full_like(AT, np.nan)},
        {"reference.spread": np.zeros_like(AT)},
        {"reference.spread": AT[1:]},
        {"reference.mean": AT[None], "reference.spread": AT[None]},
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(change: dict[str, Array]) -> None:
    with pytest.raises(ModelError, match="calibration session"):
        Reference.from_tensors(SESSION.tensors() | change)
    with pytest.raises(ModelError):
        Reference.from_tensors({"reference.mean": AT})


@pytest.fixture(scope="module")
def takes(talk: Callable[..., Array]) -> list[Array]:
    return [talk((2.5, 0.3), seed=seed) for seed in range(6)]


@pytest.fixture(scope="module")
def calibrated(bundle: Bundle, takes: list[Array]) -> Recognizer:
    levels, statistics = bundle.manifest.levels, bundle.statistics
    plain = Profile("anna", bundle.fingerprint, bundle.head, levels, statistics, "adopted")
    recognizer = Recognizer(bundle, profile=plain, provider="cpu")
    assert recognizer.observer is None
    reference = session_reference(bundle, plain, takes, engine=recognizer.engine)
    recognizer.switch_profile(replace(plain, reference=reference))
    return recognizer


def reference_of(recognizer: Recognizer, takes: list[Array]) -> Reference | None:
    assert recognizer.profile
    return session_reference(recognizer.bundle, recognizer.profile, takes, engine=recognizer.engine)


def drifts(recognizer: Recognizer, sound: Array, block: int = 16_000) -> list[Drift]:
    recognizer.reset()
    pieces = [sound[start : start + block] for start in range(0, len(sound), block)]
    heard: list[Event] = [event for piece in pieces for event in recognizer.feed(piece)]
    return [event for event in heard if isinstance(event, Drift)]


def test_a_session_is_summarised_as_the_recognizer_observes_it(
    bundle: Bundle, calibrated: Recognizer, takes: list[Array]
) -> None:
    assert calibrated.profile is not None
    made = calibrated.profile.reference
    assert made is not None
    assert len(made.mean) == 2 + bundle.head.input_size
    assert -40.0 < made.mean[0] < -20.0
    watch = calibrated.observer
    again = reference_of(calibrated, takes)
    assert again is not None
    assert (again.mean == made.mean).all()
    assert calibrated.observer is watch
    assert calibrated.heard_s == 0.0


def test_an_offset_of_the_takes_does_not_change_what_is_remembered(
    calibrated: Recognizer, takes: list[Array]
) -> None:
    plain = reference_of(calibrated, takes)
    beside = reference_of(calibrated, [take + np.float32(0.1) for take in takes])
    assert plain
    assert beside
    np.testing.assert_allclose(beside.mean, plain.mean, atol=0.05)


def test_a_session_of_a_head_that_reads_the_spectrum_is_remembered_with_it(
    bundle: Bundle, takes: list[Array]
) -> None:
    size = bundle.head.input_size + SPECTRUM_SIZE
    levels, statistics = bundle.manifest.levels, bundle.statistics
    profile = Profile("anna", bundle.fingerprint, random_head(size=size), levels, statistics, "adopted")
    recognizer = Recognizer(bundle, profile=profile, provider="cpu")
    reference = reference_of(recognizer, takes)
    assert reference is not None
    assert len(reference.mean) == 2 + size
    recognizer.switch_profile(replace(profile, reference=reference))
    recognizer.feed(np.concatenate(takes * 2))
    assert isinstance(recognizer.observer, DriftWatch)
    near = recognizer.observer.departures()["spectrum"]
    recognizer.reset()
    noise = 0.05 * np.random.default_rng(0).standard_normal(30 * 16_000, np.float32)
    recognizer.feed(np.resize(np.concatenate(takes), len(noise)) + noise)
    assert 0.0 < near < 1.0 < recognizer.observer.departures()["spectrum"]


def test_a_session_without_enough_speech_has_no_reference(calibrated: Recognizer) -> None:
    assert reference_of(calibrated, []) is None
    assert reference_of(calibrated, [np.zeros(160_000, np.float32)]) is None


def test_a_recognizer_reports_that_its_speaker_has_become_quiet(
    calibrated: Recognizer, talk: Callable[..., Array]
) -> None:
    assert drifts(calibrated, talk((40.0, 0.3))) == []
    quiet = talk((40.0, 0.03))
    (event,) = drifts(calibrated, quiet)
    assert (event.what, event.change < -8.0) == ("level", True)
    assert drifts(calibrated, quiet, block=101_000)[0].time_s == event.time_s


def test_silence_is_no_drift(calibrated: Recognizer) -> None:
    assert drifts(calibrated, np.zeros(60 * 16_000, np.float32)) == []


def test_without_a_reference_nothing_is_watched(bundle: Bundle, calibrated: Recognizer) -> None:
    assert isinstance(calibrated.observer, DriftWatch)
    other = Recognizer(bundle, profile=calibrated.profile, engine=calibrated.engine)
    assert isinstance(other.observer, DriftWatch)
    other.switch_profile(None)
    assert other.observer is None
