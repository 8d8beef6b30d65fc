from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge.arrays import Array
from edge.errors import EngineError
from edge.events import EngineChange, Window
from edge.features.long_term_spectrum import SPECTRUM_SIZE
from edge.gpu.session import TensorrtSession
from edge.inference.engine import EncoderState, Engine, WindowEngine
from edge.inference.window_engine import WindowwiseEngine
from edge.model.bundle import Bundle
from edge.model.profile import ADOPTED, Profile
from edge.recognition.recognizer import Recognizer
from tests.edge.conftest import random_head
from tests.edge.inference.fake_runtime import FakeTensorrt
from tests.edge.streams import assert_same_events, recognised

TOLERANCE = 1e-4

assert_same = functools.partial(assert_same_events, tolerance=TOLERANCE)

BLOCKS = st.one_of(st.sampled_from([1, 7, 159, 1_280, 8_191]), st.integers(200, 60_000))
"""Samples."""

Talk = Callable[..., Array]


class Counted:
    """The whole-window graph on the CPU, which fails from a given call on."""

    def __init__(self, bundle: Bundle, fails_at: int | None = None) -> None:
        self.calls: list[tuple[int, ...]] = []
        self._fails_at = fails_at
        self._graph = WindowEngine(bundle)

    def __call__(self, frames: Array) -> tuple[Array, Array]:
        self.calls.append(frames.shape)
        if self._fails_at is not None and len(self.calls) >= self._fails_at:
            raise EngineError("the GPU is gone: use --provider cpu")
        return self._graph(frames)


@pytest.fixture(scope="module")
def streaming(bundle: Bundle) -> Recognizer:
    return Recognizer(bundle, provider="cpu")


@pytest.fixture(scope="module")
def windowwise(bundle: Bundle) -> Recognizer:
    return recognizer(bundle)


@pytest.fixture(scope="module")
def sound(talk: Talk) -> Array:
    """A long utterance, and one that ends before its first window is full."""
    return talk((0.4, 0.0), (3.6, 0.3), (1.2, 0.0), (0.9, 0.1), (0.7, 0.0))


def recognizer(bundle: Bundle, fails_at: int | None = None) -> Recognizer:
    engine = WindowwiseEngine(bundle, Counted(bundle, fails_at), provider="tensorrt")
    return Recognizer(bundle, engine=engine)


# As if it streamed


@given(sizes=st.lists(BLOCKS, min_size=1, max_size=4))
@examples(max_examples=12, deadline=None)
def test_whole_windows_equal_streaming_for_any_blocks(
    streaming: Recognizer, windowwise: Recognizer, sound: Array, sizes: list[int]
) -> None:
    if max(sizes) < 160:
        sizes = [*sizes, 1_600]
    assert_same(recognised(windowwise, sound, *sizes), recognised(streaming, sound))


def test_a_speaker_s_head_reads_the_same_spectrum_from_both(bundle: Bundle, sound: Array) -> None:
    size = bundle.head.input_size + SPECTRUM_SIZE
    levels, statistics = bundle.manifest.levels, bundle.statistics
    profile = Profile("anna", bundle.fingerprint, random_head(size=size), levels, statistics, ADOPTED)
    engines = WindowwiseEngine(bundle, Counted(bundle), provider="tensorrt"), Engine(bundle, "cpu")
    whole, streamed = (
        recognised(Recognizer(bundle, profile=profile, engine=engine), sound, 1_280) for engine in engines
    )
    assert_same(whole, streamed)


def test_there_are_short_windows_and_full_ones_in_what_is_compared(bundle: Bundle, sound: Array) -> None:
    counted = Counted(bundle)
    engine = WindowwiseEngine(bundle, counted, provider="tensorrt")
    events = recognised(Recognizer(bundle, engine=engine), sound, 1_280)
    windows = [event for event in events if isinstance(event, Window)]
    full = sum(shape[0] for shape in counted.calls)
    assert 0 < full < len(windows) + 1
    assert {shape[1:] for shape in counted.calls} == {(297, 200)}
    early = recognised(Recognizer(bundle, engine=engine), sound[:24_000])
    (short,) = [event for event in early if isinstance(event, Window)]
    assert short.end_s - short.start_s < 1.6
    assert sum(shape[0] for shape in counted.calls) == full


def test_windows_that_are_due_together_are_asked_for_together(bundle: Bundle, sound: Array) -> None:
    counted = Counted(bundle)
    engine = WindowwiseEngine(bundle, counted, provider="tensorrt")
    recognised(Recognizer(bundle, engine=engine), sound)
    assert counted.calls[0][0] > 5


def test_a_feature_is_the_frames_that_it_covers(bundle: Bundle) -> None:
    engine = WindowwiseEngine(bundle, Counted(bundle), provider="tensorrt")
    frames = np.arange(96, dtype=np.float32).repeat(200).reshape(1, 96, 200)
    features, state = engine.encode(frames, engine.initial_state())
    assert features.shape == (1, 12, engine.graphs.feature_size) == (1, 12, 49 * 200)
    for index in range(6, 12):
        covered = features[0, index].reshape(49, 200)[:, 0]
        np.testing.assert_array_equal(covered, np.arange(8 * index - 41, 8 * index + 8))
    np.testing.assert_array_equal(state.maps[0][0, :, 0], np.arange(55, 96))


def test_a_window_is_its_frames_each_once(bundle: Bundle) -> None:
    asked: list[Array] = []

    def window(frames: Array) -> tuple[Array, Array]:
        asked.append(frames)
        return np.zeros((len(frames), 256), np.float32), np.zeros((len(frames), 4), np.float32)

    engine = WindowwiseEngine(bundle, window, provider="tensorrt")
    frames = np.random.default_rng(0).standard_normal((2, 304, 200)).astype(np.float32)
    features, _ = engine.encode(frames, engine.initial_state(2))
    engine.classify(features[:, 6:])
    np.testing.assert_array_equal(asked[0], frames[:, 7:])


def test_step_by_step_equals_at_once_and_streams_do_not_touch_each_other(bundle: Bundle) -> None:
    engine = WindowwiseEngine(bundle, Counted(bundle), provider="tensorrt")
    frames = np.random.default_rng(0).standard_normal((2, 64, 200)).astype(np.float32)
    at_once, _ = engine.encode(frames, engine.initial_state(2))
    state, pieces = engine.initial_state(2), []
    for start, stop in ((0, 8), (8, 40), (40, 64)):
        features, state = engine.encode(frames[:, start:stop], state)
        pieces.append(features)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), at_once)
    for stream in range(2):
        single, _ = engine.encode(frames[stream : stream + 1], engine.initial_state())
        np.testing.assert_array_equal(single[0], at_once[stream])


def test_the_state_handed_in_is_left_alone_and_keeps_nothing_else_alive(bundle: Bundle) -> None:
    engine = WindowwiseEngine(bundle, Counted(bundle), provider="tensorrt")
    state = engine.initial_state()
    _, new = engine.encode(np.ones((1, 800, 200), np.float32), state)
    assert isinstance(new, EncoderState)
    assert (state.maps[0] == 0.0).all()
    assert new.maps[0].shape == state.maps[0].shape == (1, 41, 200)
    assert new.maps[0].base is None


# A GPU that is lost


@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_lost_gpu_costs_no_window_and_is_reported_once(
    bundle: Bundle, streaming: Recognizer, sound: Array, fails_at: int
) -> None:
    failing = recognizer(bundle, fails_at)
    events = recognised(failing, sound, 1_280)
    (change,) = [event for event in events if isinstance(event, EngineChange)]
    assert (change.provider, change.reason) == ("cpu", "the GPU is gone: use --provider cpu")
    assert_same([event for event in events if event is not change], recognised(streaming, sound))
    index = events.index(change)
    window = events[index - 1]
    assert isinstance(window, Window), "it is said with the first window that the CPU computed"
    assert change.time_s >= window.end_s


def test_a_gpu_lost_in_the_last_window_is_reported_too(bundle: Bundle, talk: Talk) -> None:
    short = talk((3.1, 0.3))
    windows = sum(isinstance(event, Window) for event in recognised(recognizer(bundle), short))
    counted = Counted(bundle)
    recognised(Recognizer(bundle, engine=WindowwiseEngine(bundle, counted, provider="tensorrt")), short, 800)
    events = recognised(recognizer(bundle, len(counted.calls)), short, 800)
    assert isinstance(events[-1], EngineChange)
    assert sum(isinstance(event, Window) for event in events) == windows


def test_a_lost_gpu_is_asked_no_more(bundle: Bundle, sound: Array) -> None:
    counted = Counted(bundle, fails_at=2)
    engine = WindowwiseEngine(bundle, counted, provider="tensorrt")
    stream = Recognizer(bundle, engine=engine)
    recognised(stream, sound, 1_280)
    again = recognised(stream, sound, 1_280)
    assert len(counted.calls) == 2
    assert not any(isinstance(event, EngineChange) for event in again), (
        "the next session says so at its start"
    )
    assert (engine.provider, engine.reason) == ("cpu", "the GPU is gone: use --provider cpu")


def test_every_stream_of_a_shared_engine_reports_the_lost_gpu(bundle: Bundle, talk: Talk) -> None:
    engine = WindowwiseEngine(bundle, Counted(bundle, fails_at=1), provider="tensorrt")
    streams, spoken = [Recognizer(bundle, engine=engine) for _ in range(3)], talk((3.2, 0.3))
    for stream in streams:
        events = stream.feed(spoken)
        assert sum(isinstance(event, EngineChange) for event in events) == 1


def test_the_streaming_graphs_on_a_gpu_that_is_lost_go_on_with_the_cpu(
    bundle: Bundle, streaming: Recognizer, sound: Array
) -> None:
    engine = Engine(bundle, "cpu")
    stream = Recognizer(bundle, engine=engine)
    stream.feed(sound[:20_000])
    engine.provider = stream._provider = "cuda"
    engine._sessions = dict.fromkeys(engine._sessions, Broken())
    events = stream.feed(sound[20_000:]) + stream.flush()
    (change,) = [event for event in events if isinstance(event, EngineChange)]
    assert (change.provider, change.reason) == ("cpu", "CUDA failure 700: an illegal access")
    expected = recognised(streaming, sound)
    found = [event for event in events if event is not change]
    assert_same(found, expected[len(expected) - len(found) :])


class Broken:
    """An ONNX Runtime session whose GPU is gone."""

    def run(self, *_: object) -> None:
        raise RuntimeError("CUDA failure 700:\nan illegal access")


# All together


def test_tensorrt_equals_streaming_and_continues_when_the_gpu_is_lost(
    bundle: Bundle, streaming: Recognizer, sound: Array
) -> None:
    machine = FakeTensorrt(WindowEngine(bundle), 297, 200, {"embedding": 256, "logits": 4})
    with TensorrtSession(machine.plan(), tensorrt=machine, open_cuda=machine.open_cuda) as session:
        engine = WindowwiseEngine(bundle, session, provider="tensorrt", close=session.close)
        stream = Recognizer(bundle, engine=engine)
        expected = recognised(streaming, sound)
        assert_same(recognised(stream, sound, 4_000), expected)
        assert engine.provider == "tensorrt"
        assert sum(machine.batches) > 5
        stream.reset()
        events = stream.feed(sound[:56_000])
        machine.cuda.lost = True
        events += stream.feed(sound[56_000:]) + stream.flush()
        assert_same([event for event in events if not isinstance(event, EngineChange)], expected)
        assert sum(isinstance(event, EngineChange) for event in events) == 1
        engine.close()
    assert machine.cuda.closed


def test_a_model_of_other_windows_has_other_features(bundle: Bundle) -> None:
    graphs = replace(bundle.manifest.graphs, window_features=16)
    other = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
    assert WindowwiseEngine(other, Counted(bundle), provider="tensorrt").frames == 169
