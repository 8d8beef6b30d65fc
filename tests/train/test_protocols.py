"""What the recogniser knows of a speaker under each protocol, and that no scored clip is part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from calibrate.fitting.ordinary import OrdinaryFit
from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.inference.provider import open_engine
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, load_bundle
from edge.recognition.recognizer import Recognizer
from edge.recognition.speaker_baseline import SpeakerLevel
from tests.cnn_lstm import CNN_LSTM
from tests.train.synthetic import SAMPLE_RATE, voice
from train import protocols
from train.corpora import Clip
from train.evaluation import ClipRecognizer
from train.protocols import (
    Answers,
    EvaluationClips,
    adapted,
    ordinary_answers,
    parse_protocols,
    running_answers,
    supported_protocols,
    unadapted,
)

SECONDS = 1.3


@pytest.fixture(scope="module")
def plain() -> Bundle:
    return load_bundle(CNN_LSTM)


@pytest.fixture(scope="module")
def relative(plain: Bundle) -> Bundle:
    """A bundle whose head reads the baseline."""
    shape = plain.head.fc1_weight.shape
    weight = np.random.default_rng(3).standard_normal(shape).astype(np.float32) / shape[1] ** 0.5
    return replace(plain, head=replace(plain.head, baseline_weight=weight))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Three clips of each emotion by a speaker, and one of each by another."""
    folder, made = tmp_path_factory.mktemp("corpus"), []
    for speaker, takes in ((0, 3), (1, 1)):
        for emotion in EMOTIONS:
            for take in range(takes):
                path = folder / f"{speaker}-{emotion}-{take}.wav"
                soundfile.write(path, voice(speaker, emotion, take, SECONDS), SAMPLE_RATE)
                made.append(Clip(path, "made", f"s{speaker}", emotion))
    return made


@pytest.fixture(scope="module")
def heard(relative: Bundle, clips: list[Clip]) -> EvaluationClips:
    engine = open_engine(relative, "cpu")
    recognize = ClipRecognizer(relative, engine)
    return EvaluationClips(relative, engine, clips, [recognize(read_clip(clip.path)) for clip in clips])


def scored(parts: Sequence[Answers]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part in parts:
        for clip in part.clips:
            found.setdefault(clip.speaker, set()).add(clip.path.name)
    return found


def test_the_windows_of_a_clip_are_those_of_the_recogniser(relative: Bundle, heard: EvaluationClips) -> None:
    for windows in heard.windows[:4]:
        again = relative.head.for_baseline(np.zeros(relative.head.input_size, np.float32))
        np.testing.assert_allclose(again.probs(windows.embeddings).mean(axis=0), windows.probs, atol=1e-6)


def test_short_windows_at_the_start_of_a_clip_do_not_count_once_a_window_is_full(plain: Bundle) -> None:
    graphs = replace(plain.manifest.graphs, first_window_features=10)
    early = replace(plain, manifest=replace(plain.manifest, graphs=graphs))
    recognize, usual = ClipRecognizer(early), ClipRecognizer(plain)
    sound = voice(0, "sad", 0, 3.5)
    np.testing.assert_allclose(recognize(sound).probs, usual(sound).probs, atol=1e-6)
    assert len(recognize(sound[:40_000]).embeddings) > len(usual(sound[:40_000]).embeddings)


def test_protocols_that_need_a_baseline_are_offered_only_with_one(plain: Bundle, relative: Bundle) -> None:
    assert supported_protocols(plain) == ("none", "labelled")
    assert supported_protocols(relative) == ("none", "running", "ordinary", "labelled")
    assert parse_protocols("running, none", relative) == ("none", "running")
    with pytest.raises(UsageError, match="reads no baseline"):
        parse_protocols("running", plain)
    with pytest.raises(UsageError, match="unknown protocol 'all'"):
        parse_protocols("all", plain)
    with pytest.raises(UsageError, match="twice"):
        parse_protocols("none,none", plain)


def test_only_clips_that_begin_late_enough_in_the_stream_are_scored(
    heard: EvaluationClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "BASELINE_S", 8 * SECONDS)
    parts = list(running_answers(heard, draws=2))
    assert [len(part.clips) for part in parts] == [4, 4, 0, 0]
    assert parts[0].clips != parts[1].clips
    assert parts[0].speech_s == pytest.approx(SECONDS * (8 + 9 + 10 + 11) / 4)
    assert np.abs(parts[0].probs - parts[0].generic).max() > 1e-3
    assert parts[0].probs.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    scores = adapted(heard.clips, parts)
    assert scores.left_out == {"made": ("s1",)}
    assert scores.corpora["made"].speakers == 1


def test_a_running_stream_is_what_the_recogniser_makes_of_the_clips_in_their_order(
    heard: EvaluationClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[Array] = []
    feed = Recognizer.feed

    def spy(self: Recognizer, samples: Array) -> object:
        fed.append(samples)
        return feed(self, samples)

    monkeypatch.setattr(protocols, "BASELINE_S", 8 * SECONDS)
    monkeypatch.setattr(Recognizer, "feed", spy)
    (part, *_) = running_answers(heard, draws=1)
    sounds = fed[0:24:2]
    for clip, sound in zip(part.clips, sounds[-4:], strict=True):
        np.testing.assert_array_equal(sound, read_clip(clip.path))
    assert all(len(pause) == SAMPLE_RATE and not pause.any() for pause in fed[1:24:2])


def test_a_clip_in_a_stream_is_answered_by_windows_without_sound_of_other_clips() -> None:
    spans = [(0.0, 3.0), (4.0, 6.0), (7.0, 7.4), (8.4, 12.0)]
    ends = np.arange(3.0, 13.0, 0.25)
    marked = [protocols._windows_of(spans, place, ends - 3.0, ends) for place in range(4)]
    assert ends[marked[1]].tolist() == [6.0, 6.25, 6.5, 6.75, 7.0]
    assert len(ends[marked[2]]) == 1  # too short: the first window with all of it
    assert ends[marked[2]].item() == 7.5
    assert ends[marked[3]].min() == 10.5
    assert ends[marked[3]].max() == ends.max()


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[list[Array]]:
    """Take tones for speech; return the sounds that profiles are made of."""
    given: list[list[Array]] = []

    def fit(bundle: Bundle, engine: object, sounds: list[Array]) -> OrdinaryFit:
        given.append(sounds)
        baseline = np.full(bundle.head.input_size, 0.3, np.float32)
        return OrdinaryFit(bundle.head.for_baseline(baseline), SpeakerLevel(baseline, None), 1.0, 9.0, ())

    monkeypatch.setattr(protocols, "ordinary_head", fit)
    monkeypatch.setattr(protocols, "voice_s", lambda sounds: sum(map(len, sounds)) / SAMPLE_RATE)
    monkeypatch.setattr(protocols, "LEAST_ORDINARY_S", 2.0)
    return given


def test_an_ordinary_profile_is_made_of_neutral_clips_that_are_not_scored(
    heard: EvaluationClips, spoken: list[list[Array]]
) -> None:
    parts = list(ordinary_answers(heard, draws=2))
    assert [len(part.clips) for part in parts] == [10, 10, 0, 0]
    assert [len(sounds) for sounds in spoken] == [2, 2]
    for part, sounds in zip(parts, spoken, strict=False):
        neutral = [read_clip(clip.path) for clip in part.clips if clip.emotion == "neutral"]
        assert len(neutral) == 1
        assert not any(np.array_equal(sound, neutral[0]) for sound in sounds)
        assert {clip.speaker for clip in part.clips} == {"s0"}
        assert part.speech_s == pytest.approx(2 * SECONDS)
    assert adapted(heard.clips, parts).left_out == {"made": ("s1",)}


def test_a_clip_is_answered_with_the_head_of_the_profile(
    heard: EvaluationClips, spoken: list[list[Array]], relative: Bundle
) -> None:
    (part, *_) = ordinary_answers(heard, draws=1)
    head = relative.head.for_baseline(np.full(relative.head.input_size, 0.3, np.float32))
    for clip, probs, generic in zip(part.clips, part.probs, part.generic, strict=True):
        windows = heard.windows[heard.clips.index(clip)]
        np.testing.assert_allclose(probs, head.probs(windows.embeddings).mean(axis=0), atol=1e-6)
        np.testing.assert_array_equal(generic, windows.probs)
    assert np.abs(part.probs - part.generic).max() > 0.01


def test_a_profile_takes_no_more_clips_than_it_needs(
    heard: EvaluationClips, spoken: list[list[Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "LEAST_ORDINARY_S", 1.0)
    monkeypatch.setattr(protocols, "BASELINE_S", SECONDS)
    (part, *_) = ordinary_answers(heard, draws=1)
    assert part.speech_s == pytest.approx(SECONDS)
    assert len(part.clips) == 11


def test_speech_that_is_refused_is_answered_by_the_generic_model(
    heard: EvaluationClips, spoken: list[list[Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> OrdinaryFit:
        raise UsageError("more than one person seems to speak", remedy="record one person alone")

    monkeypatch.setattr(protocols, "ordinary_head", refuse)
    parts = list(ordinary_answers(heard, draws=2))
    np.testing.assert_array_equal(parts[0].probs, parts[0].generic)
    scores = adapted(heard.clips, parts)
    assert scores.refusals == ("s0: more than one person seems to speak",)
    assert scores.corpora["made"].change == 0.0


def test_voice_is_counted_not_the_pauses() -> None:
    speech = read_clip(Path("edge/demo.flac"))[: 4 * SAMPLE_RATE]
    found = protocols.voice_s([speech])
    assert 1.0 < found < 4.0
    assert protocols.voice_s([np.pad(speech, (0, SAMPLE_RATE))]) == pytest.approx(found, abs=0.1)


def test_the_change_and_the_harm_are_against_the_same_clips_without_adaptation(clips: list[Clip]) -> None:
    labels = [EMOTIONS.index(clip.emotion) for clip in clips]
    right, wrong = np.eye(4, dtype=np.float32)[labels], np.eye(4, dtype=np.float32)[np.array(labels) - 1]
    first, second = np.array([clip.speaker == "s0" for clip in clips]), slice(12, 16)
    parts = [
        Answers(tuple(clips[:12]), wrong[first], right[first], 20.0),
        Answers(tuple(clips[:12]), right[first], right[first], 30.0),
        Answers(tuple(clips[12:]), right[second], wrong[second], 25.0),
    ]
    scores = adapted(clips, parts).corpora["made"]
    assert (scores.speakers, scores.clips) == (2, 28)
    assert scores.harmed == 50.0
    assert scores.change == pytest.approx((-50.0 + 100.0) / 2)
    assert scores.speech_s == pytest.approx(25.0)
    assert scores.recalls == pytest.approx(dict.fromkeys(EMOTIONS, 100 * 4 / 7))
    assert scores.worst == pytest.approx(50.0)


def test_nothing_is_scored_if_every_speaker_has_too_few_clips(heard: EvaluationClips) -> None:
    scores = adapted(heard.clips, ordinary_answers(heard))
    assert scores.corpora == {}
    assert scores.left_out == {"made": ("s0", "s1")}


def test_without_adaptation_every_clip_is_scored_once(heard: EvaluationClips) -> None:
    scores = unadapted(heard)
    assert scores.corpora["made"].clips == len(heard.clips)
    assert (scores.corpora["made"].change, scores.corpora["made"].harmed) == (None, None)
