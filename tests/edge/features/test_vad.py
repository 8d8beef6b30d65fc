from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.features.frontend import FrontEnd
from edge.features.silero_vad import PIECE
from edge.features.vad import SpeechDetector, VadConfig

Flags = NDArray[np.bool_]

GATE = VadConfig()
RATE = 16_000
FRAME, HOP, HOP_MS = 640, 160, 10
SILENT, VOICED, BETWEEN = 0.0, 1.0, 0.42


class Told:
    """Takes the mean of a piece as the probability of speech in it."""

    def reset(self) -> None:
        self.pieces = 0

    def __call__(self, piece: Array) -> float:
        assert piece.shape == (PIECE,)
        self.pieces += 1
        return float(piece.mean())


def told(*pieces: tuple[int, float]) -> Array:
    """Samples from (number of pieces, probability of speech)."""
    return np.concatenate([np.full(count * PIECE, probability, np.float32) for count, probability in pieces])


def flags_of(samples: Array) -> Flags:
    return SpeechDetector(GATE, voice=Told()).feed(samples).speech


def stretches(flags: Flags) -> list[tuple[int, int]]:
    """The stretches of speech in frames: the first flagged, and the first after."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def heard(sound: Array) -> list[tuple[int, int]]:
    """The stretches of speech in a real sound."""
    return stretches(SpeechDetector(GATE).feed(sound).speech)


def frame_at(samples: int) -> int:
    """The first frame that ends after this number of samples, or later."""
    return -(-(samples - FRAME) // HOP)


def test_there_is_one_flag_for_each_frame_of_the_front_end() -> None:
    front_end = FrontEnd()
    for count in [0, 1, 639, 640, 799, 800, 5_000, 48_001]:
        assert len(flags_of(np.zeros(count, np.float32))) == front_end.frames_in(count)


def test_speech_begins_after_so_much_voice_and_ends_after_so_long_without() -> None:
    ((first, last),) = stretches(flags_of(told((30, SILENT), (50, VOICED), (60, SILENT))))
    assert first == frame_at(31 * PIECE) + GATE.enter_ms // HOP_MS - 1
    assert last == frame_at(81 * PIECE) + GATE.leave_ms // HOP_MS - 1


def test_a_piece_counts_as_soon_as_it_is_complete_and_not_before() -> None:
    gate = VadConfig(enter_ms=10)
    sound = told((5, SILENT), (1, VOICED))
    detector = SpeechDetector(gate, voice=Told())
    detector.feed(sound[:-1])
    assert not detector.feed(sound[-1:]).speech.any()
    assert frame_at(6 * PIECE) * HOP + FRAME == 6 * PIECE + 128
    assert detector.feed(np.zeros(128, np.float32)).speech.tolist() == [True]


@pytest.mark.parametrize(("pieces", "count"), [(7, 0), (8, 1)])
def test_a_sound_shorter_than_the_time_to_enter_is_not_speech(pieces: int, count: int) -> None:
    """Seven pieces last 224 ms, eight 256."""
    assert len(stretches(flags_of(told((30, SILENT), (pieces, VOICED), (60, SILENT))))) == count


@pytest.mark.parametrize(("pieces", "count"), [(24, 1), (26, 2)])
def test_a_pause_between_words_does_not_end_speech(pieces: int, count: int) -> None:
    """24 pieces last 768 ms, 26 last 832."""
    sound = told((30, SILENT), (30, VOICED), (pieces, SILENT), (30, VOICED), (30, SILENT))
    assert len(stretches(flags_of(sound))) == count


def test_voice_must_fall_into_the_memory_to_count() -> None:
    scattered = [(4, VOICED), (GATE.memory_ms // 32, SILENT)] * 5
    assert stretches(flags_of(told((30, SILENT), *scattered))) == []
    together = [(4, VOICED), (4, SILENT)] * 5
    assert len(stretches(flags_of(told((30, SILENT), *together)))) == 1


@pytest.mark.parametrize(("before", "count"), [(SILENT, 0), (VOICED, 1)])
def test_between_the_thresholds_the_state_is_kept(before: float, count: int) -> None:
    """Seven pieces of voice alone are too few: those that follow decide."""
    sound = told((30, SILENT), (7, before), (20, BETWEEN), (30, SILENT))
    assert len(stretches(flags_of(sound))) == count


@pytest.mark.parametrize(("probability", "count"), [(0.49, 0), (0.51, 1)])
def test_the_threshold_to_enter_is_that_of_the_gate(probability: float, count: int) -> None:
    assert len(stretches(flags_of(told((30, probability))))) == count


@pytest.mark.parametrize(("probability", "count"), [(0.34, 1), (0.36, 0)])
def test_the_threshold_to_leave_is_that_of_the_gate(probability: float, count: int) -> None:
    flags = flags_of(told((30, VOICED), (60, probability)))
    assert (not flags[-1]) == count


@examples(max_examples=40)
@given(
    st.lists(st.sampled_from([SILENT, BETWEEN, VOICED]), max_size=60),
    st.lists(st.integers(1, 3_000), max_size=9),
)
def test_the_result_does_not_depend_on_the_blocks(probabilities: list[float], sizes: list[int]) -> None:
    sound = told(*[(1, probability) for probability in probabilities], (1, SILENT))
    detector, flags, done = SpeechDetector(GATE, voice=Told()), [], 0
    for size in [*sizes, len(sound)]:
        flags.append(detector.feed(sound[done : done + size]).speech)
        done = min(done + size, len(sound))
    assert (np.concatenate(flags) == flags_of(sound)).all()


def test_the_result_does_not_depend_on_the_blocks_in_a_real_sound() -> None:
    sound = read_clip(demo_clip())[: 3 * RATE]
    detector = SpeechDetector(GATE)
    flags = [detector.feed(sound[start : start + 997]).speech for start in range(0, len(sound), 997)]
    whole = SpeechDetector(GATE).feed(sound).speech
    assert whole.any()
    assert (np.concatenate(flags) == whole).all()


def test_later_samples_do_not_change_earlier_results() -> None:
    sound = read_clip(demo_clip())[: 2 * RATE]
    changed = sound.copy()
    changed[RATE:] = 0.0
    entire, other = SpeechDetector(GATE).feed(sound).speech, SpeechDetector(GATE).feed(changed).speech
    now = FrontEnd().frames_in(RATE)
    assert (entire[:now] == other[:now]).all()
    assert (entire != other).any()


def test_reset_is_exact() -> None:
    detector, sound = SpeechDetector(GATE), read_clip(demo_clip())[3_000:40_000]
    first = detector.feed(sound).speech
    detector.feed(sound[::-1][:777])
    detector.reset()
    assert first.any()
    assert (detector.feed(sound).speech == first).all()


def test_the_end_of_a_stream_ends_speech_and_keeps_the_frames_in_step() -> None:
    detector, sound = SpeechDetector(GATE, voice=Told()), told((40, VOICED))[:-100]
    before = detector.feed(sound).speech
    detector.end()
    after = detector.feed(sound).speech
    assert before[-1]
    assert len(before) + len(after) == FrontEnd().frames_in(2 * len(sound))
    ((first, _),) = stretches(after)
    assert first == GATE.enter_ms // HOP_MS - 1


@pytest.mark.parametrize("hop_ms", [5, 20, 40])
def test_times_are_counted_by_the_hop_of_the_front_end(hop_ms: int) -> None:
    sound = told((31, SILENT), (50, VOICED), (80, SILENT))
    front_end = FrontEnd(hop_length_ms=hop_ms)
    flags = SpeechDetector(GATE, front_end, voice=Told()).feed(sound).speech
    assert len(flags) == front_end.frames_in(len(sound))
    ((first, last),) = stretches(flags)
    ((usual_first, usual_last),) = stretches(flags_of(sound))
    assert hop_ms * first == pytest.approx(HOP_MS * usual_first, abs=hop_ms + HOP_MS)
    assert hop_ms * last == pytest.approx(HOP_MS * usual_last, abs=hop_ms + HOP_MS)


def test_memory_is_bounded() -> None:
    detector = SpeechDetector(GATE, voice=Told())
    for _ in range(50):
        detector.feed(told((10, VOICED))[:-7])
    assert len(detector._recent) == GATE.memory_ms // HOP_MS
    assert detector._samples.end - detector._judged < PIECE
    assert detector._samples.capacity < 100 * PIECE  # of 500 heard


def noise(level: float, seconds: float = 4.0) -> Array:
    generator = np.random.default_rng(0)
    return np.float32(level) * generator.standard_normal(round(seconds * RATE), np.float32)


def hum(level: float, seconds: float = 4.0) -> Array:
    time_s = np.arange(round(seconds * RATE)) / RATE
    tones = [np.sin(2 * np.pi * 50 * harmonic * time_s) / harmonic for harmonic in (1, 2, 3)]
    sound: Array = (level * np.sum(tones, axis=0)).astype(np.float32)
    return sound


def keys(level: float, seconds: float = 6.0) -> Array:
    """Eight keys a second: two bursts of some milliseconds each, down and up."""
    generator = np.random.default_rng(0)
    sound = np.zeros(round(seconds * RATE))
    for at in generator.uniform(0, seconds - 0.2, round(8 * seconds)):
        for delay_s, share in ((0.0, 1.0), (generator.uniform(0.06, 0.1), 0.5)):
            start, count = round((at + delay_s) * RATE), round(RATE * generator.uniform(0.004, 0.02))
            fading = np.exp(-5 * np.arange(count) / count)
            sound[start : start + count] += level * share * fading * generator.standard_normal(count)
    return np.clip(sound, -1, 1).astype(np.float32)


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(noise(0.0), id="digital silence"),
        pytest.param(noise(1e-4), id="a quiet room"),
        pytest.param(noise(0.3), id="loud noise"),
        pytest.param(hum(0.5), id="loud hum"),
        pytest.param(np.clip(hum(2.0), -1, 1), id="hum that clips"),
        pytest.param(keys(0.5), id="a keyboard"),
        pytest.param(keys(0.5) + hum(0.02, 6.0), id="a keyboard in hum"),
        pytest.param(np.full(4 * RATE, 0.5, np.float32), id="a constant"),
    ],
)
def test_sound_without_a_voice_is_not_speech(sound: Array) -> None:
    assert heard(sound) == []


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_speech_is_heard_loud_or_quiet(level: float) -> None:
    pause = np.zeros(2 * RATE, np.float32)
    sound = np.concatenate([pause[:RATE], level * read_clip(demo_clip())[:RATE], pause])
    ((first, last),) = heard(sound.astype(np.float32))
    assert 100 <= first <= 190
    assert last > 250


def test_speech_after_a_long_silence_or_a_switched_room_is_heard() -> None:
    speech = read_clip(demo_clip())[8_000 : 8_000 + 2 * RATE]
    for before in (noise(0.0, 20), noise(0.003, 20), hum(0.3, 20)):
        ((first, _),) = heard(np.concatenate([before, speech]))
        assert 2_000 <= first <= 2_080


def test_speech_in_noise_is_heard() -> None:
    speech = read_clip(demo_clip())[: 4 * RATE]
    noisy = speech + noise(float(np.sqrt(np.mean(speech**2))) / 10**0.25)
    assert sum(last - first for first, last in heard(noisy)) > 250
