"""A bundle that runs whole windows keeps every promise of a stream: its head reads the speaker's baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge.arrays import Array
from edge.diagnostics.benchmark import benchmark, table
from edge.diagnostics.verification import verify
from edge.errors import EngineError
from edge.events import EngineChange, Event, Overrun, Utterance, Window
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.gpu.session import TensorrtSession
from edge.inference.engine import WindowEngine
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import Bundle
from edge.model.profile import ADOPTED, Profile
from edge.recognition.latency import STAGES
from edge.recognition.recognizer import Recognizer
from edge.recognition.settings import Settings
from edge.server.client_stream import shared_engines
from tests.edge.conftest import random_head
from tests.edge.inference.fake_runtime import FakeTensorrt
from tests.edge.server.clients import Open, raw, said_to
from tests.edge.streams import recognised as heard

TOLERANCE = 1e-4
RATE = 16_000

Talk = Callable[..., Array]
Make = Callable[[], Recognizer]

BLOCKS = st.one_of(st.sampled_from([1, 7, 159, 1_280, 8_191]), st.integers(200, 60_000))
"""Samples."""


@pytest.fixture(scope="module")
def make_window(window_bundle: Bundle) -> Make:
    return shared_engines(window_bundle, provider="cpu")


@pytest.fixture(scope="module")
def sound(talk: Talk) -> Array:
    """A long utterance, and one that ends before a window is full."""
    return talk((0.4, 0.0), (8.0, 0.3), (1.5, 0.0), (0.9, 0.2), (0.7, 0.0))


@pytest.fixture(scope="module")
def profile(window_bundle: Bundle) -> Profile:
    """A speaker's head, which has its baseline in the biases."""
    size = window_bundle.head.input_size
    rng = np.random.default_rng(0)
    head = window_bundle.head.for_baseline(rng.standard_normal(size).astype(np.float32))
    manifest = window_bundle.manifest
    return Profile(
        "anna", window_bundle.fingerprint, head, manifest.levels, window_bundle.statistics, ADOPTED
    )


def windows(events: list[Event]) -> list[Window]:
    return [event for event in events if isinstance(event, Window)]


def assert_same(events: list[Event], expected: list[Event], shift_s: float = 0.0) -> None:
    assert [event.type for event in events] == [event.type for event in expected]
    for one, other in zip(windows(events), windows(expected), strict=True):
        assert (one.label, one.speech) == (other.label, other.speech)
        assert one.end_s == pytest.approx(other.end_s + shift_s, abs=1e-6)
        assert one.probs == pytest.approx(other.probs, abs=TOLERANCE)
        assert one.smoothed == pytest.approx(other.smoothed, abs=TOLERANCE)


@given(sizes=st.lists(BLOCKS, min_size=1, max_size=4))
@examples(max_examples=8, deadline=None)
def test_blocks_of_any_size_give_the_same_events(make_window: Make, sound: Array, sizes: list[int]) -> None:
    if max(sizes) < 160:
        sizes = [*sizes, 1_600]
    recognizer = make_window()
    assert_same(heard(recognizer, sound, *sizes), heard(recognizer, sound))


@pytest.mark.parametrize("step_ms", [80, 240, 720])
def test_streaming_equals_offline_at_every_step(window_bundle: Bundle, sound: Array, step_ms: int) -> None:
    report = verify(window_bundle, sound, step_ms=step_ms)
    assert report.passed
    assert report.spread > 0.05


def test_a_graph_that_differs_offline_is_noticed(
    window_bundle: Bundle, sound: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test above."""
    exact = WindowEngine.__call__

    def shifted(self: WindowEngine, frames: Array) -> tuple[Array, Array]:
        embedding, logits = exact(self, frames)
        return embedding + np.float32(0.05), logits

    monkeypatch.setattr("edge.diagnostics.verification.WindowEngine.__call__", shifted)
    engine = WindowwiseEngine(window_bundle, lambda frames: exact(engine._on_cpu, frames), provider="cpu")
    monkeypatch.setattr("edge.recognition.recognizer.open_engine", lambda *_: engine)
    assert not verify(window_bundle, sound).equal


def test_the_baseline_of_earlier_speech_changes_later_answers(window_bundle: Bundle, sound: Array) -> None:
    without = replace(
        window_bundle,
        head=window_bundle.head.for_baseline(np.zeros(window_bundle.head.input_size, np.float32)),
    )
    running, none = (
        windows(heard(Recognizer(bundle, provider="cpu"), sound)) for bundle in (window_bundle, without)
    )
    pairs = [
        np.abs(np.subtract(list(one.probs.values()), list(other.probs.values()))).max()
        for one, other in zip(running, none, strict=True)
    ]
    full = 2.975
    before = sum(window.end_s <= 2 * full + 0.1 for window in running)
    assert max(pairs[: before - 1]) < TOLERANCE, "no window of speech had ended before these began"
    assert max(pairs[before:]) > 100 * TOLERANCE


def test_another_profile_begins_a_new_stream(
    window_bundle: Bundle, make_window: Make, profile: Profile, sound: Array
) -> None:
    switched = make_window()
    switched.reset()
    first = switched.feed(sound) + switched.switch_profile(profile)
    assert_same(first, heard(make_window(), sound))
    own = Recognizer(window_bundle, profile=profile, engine=switched.engine)
    expected = heard(own, sound)
    assert_same(switched.feed(sound) + switched.flush(), expected, shift_s=len(sound) / RATE)
    assert any(
        one.probs != pytest.approx(other.probs, abs=0.01)
        for one, other in zip(windows(expected), windows(first), strict=True)
    )


def test_lost_samples_are_a_gap_and_the_stream_goes_on(make_window: Make, sound: Array) -> None:
    recognizer = make_window()
    recognizer.reset()
    before, after = sound[: 5 * RATE], sound[5 * RATE :]
    events = recognizer.feed(before)
    events += recognizer.report_gap(4_000)
    events += recognizer.feed(after) + recognizer.flush()
    (overrun,) = [event for event in events if isinstance(event, Overrun)]
    assert (overrun.start_s, overrun.lost_s) == (5.0, 0.25)
    assert recognizer.heard_s == pytest.approx(len(sound) / RATE + 0.25)
    steps = np.diff([window.end_s for window in windows(events)][:-2])
    np.testing.assert_allclose(steps[steps > 0.2], 0.24, atol=1e-6)


def test_reset_forgets_the_baseline(make_window: Make, sound: Array) -> None:
    recognizer = make_window()
    first, again = heard(recognizer, sound), heard(recognizer, sound)
    assert [window.probs for window in windows(first)] == [window.probs for window in windows(again)]


@pytest.mark.parametrize("seconds", [0.2, 0.9, 1.4, 1.8, 2.9])
def test_a_short_sound_gives_one_window_at_its_end_and_early_ones_from_a_second_and_a_half(
    make_window: Make, talk: Talk, seconds: float
) -> None:
    events = windows(heard(make_window(), talk((seconds, 0.3)), 800))
    *early, last = events
    assert last.end_s == pytest.approx(seconds, abs=0.095)
    assert all(window.end_s > 1.5 for window in early)
    assert bool(early) == (seconds > 1.6)
    for window in events:
        assert sum(window.probs.values()) == pytest.approx(1.0, abs=1e-5)


def test_an_utterance_averages_its_windows(make_window: Make, sound: Array) -> None:
    utterances = [event for event in heard(make_window(), sound) if isinstance(event, Utterance)]
    assert utterances
    assert utterances[0].windows > 10


def test_a_gpu_that_is_lost_costs_no_window(window_bundle: Bundle, make_window: Make, sound: Array) -> None:
    graph, calls = WindowEngine(window_bundle), []

    def failing(frames: Array) -> tuple[Array, Array]:
        calls.append(frames.shape)
        if len(calls) > 4:
            raise EngineError("the GPU is gone: use --provider cpu")
        return graph(frames)

    engine = WindowwiseEngine(window_bundle, failing, provider="tensorrt")
    events = heard(Recognizer(window_bundle, engine=engine), sound, 1_280)
    (change,) = [event for event in events if isinstance(event, EngineChange)]
    assert change.provider == "cpu"
    assert {shape[1:] for shape in calls} == {(296, 80)}, "another device is given full windows only"
    assert_same([event for event in events if event is not change], heard(make_window(), sound))


def test_tensorrt_gets_full_windows_and_gives_the_same(
    window_bundle: Bundle, make_window: Make, sound: Array
) -> None:
    sizes = {"embedding": window_bundle.manifest.graphs.embedding_size, "logits": 4}
    machine = FakeTensorrt(WindowEngine(window_bundle), 296, 80, sizes)
    with TensorrtSession(machine.plan(), tensorrt=machine, open_cuda=machine.open_cuda) as session:
        engine = WindowwiseEngine(window_bundle, session, provider="tensorrt", close=session.close)
        assert (session.frames, session.bins) == (engine.frames, engine.bins)
        events = heard(Recognizer(window_bundle, engine=engine), sound, 4_000)
        assert engine.provider == "tensorrt"
        engine.close()
    assert sum(machine.batches) > 10
    assert_same(events, heard(make_window(), sound))


def test_a_client_of_the_server_gets_the_same_windows(make_window: Make, serving: Open, sound: Array) -> None:
    with serving(maker=make_window) as running:
        told = said_to(running, raw(sound))
    ends = [event["end_s"] for event in told if event["type"] == "window"]
    expected = [window.end_s for window in windows(heard(make_window(), sound))]
    assert ends == pytest.approx(expected, abs=1e-3)


def test_a_head_of_random_layers_reads_the_spectrum_too(window_bundle: Bundle, sound: Array) -> None:
    manifest = window_bundle.manifest
    head = random_head(size=window_bundle.head.input_size + SPECTRUM_SIZE)
    own = Profile("anna", window_bundle.fingerprint, head, manifest.levels, window_bundle.statistics, ADOPTED)
    recognizer = Recognizer(window_bundle, profile=own, provider="cpu")
    assert_same(heard(recognizer, sound, 997), heard(recognizer, sound))


def test_the_benchmark_measures_the_default_step_and_claims_no_saving(
    window_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.diagnostics.benchmark.start_s", lambda *_: 0.1)
    figures = benchmark(window_bundle, seconds=2.0)
    assert (figures.execution, figures.step_ms) == ("window", Settings().step_ms)
    assert figures.seconds == pytest.approx(2.0, abs=0.24)
    assert set(figures.stages) == set(STAGES)
    shown = table(figures)
    assert "cheaper" not in shown
    for said in ("step of 240 ms", "whole window at each step", "real-time factor", *STAGES):
        assert said in shown


def test_windows_that_are_due_together_run_together(window_bundle: Bundle, sound: Array) -> None:
    calls: list[int] = []
    graph = WindowEngine(window_bundle)

    def counted(frames: Array) -> tuple[Array, Array]:
        calls.append(len(frames))
        return graph(frames)

    engine = WindowwiseEngine(window_bundle, counted, provider="tensorrt")
    heard(Recognizer(window_bundle, engine=engine), sound)
    assert calls[0] > 5
