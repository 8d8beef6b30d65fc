"""A clip is scored with the speaker's other speech as baseline, never with itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.arrays import Array
from edge.labels import EMOTIONS
from edge.model.manifest import BaselineConfig
from edge.recognition.speaker_baseline import recorded_level, window_weights
from train.baseline_protocols import (
    LEFT_TO_SCORE,
    BaselineProtocol,
    FittedHead,
    ProtocolConfig,
    answers_by_protocol,
    merged,
    scores_by_protocol,
)
from train.corpora import Clip
from train.feature_cache import Features
from train.speaker_head import (
    EmbeddingStatistics,
    HeadArchitecture,
    SpeakerHead,
    clip_weight,
    relative_inputs,
)

TAKES = 6
SECONDS = 2.5


class Recording(FittedHead):
    """Keeps what it is given, and answers with the windows' first values."""

    def logits(self, standardised: Array, heard: Array, weights: NDArray[np.float64]) -> Array:
        assert len(heard) == len(weights)
        self.seen.append((standardised.copy(), heard.sum(axis=0)))  # type: ignore[attr-defined]
        return standardised[:, :4]


def clips_of(speakers: int = 2) -> list[Clip]:
    return [
        Clip(Path(f"{speaker}-{emotion}-{take}.wav"), "toy", f"s{speaker}", emotion)
        for speaker in range(speakers)
        for emotion in EMOTIONS
        for take in range(TAKES)
    ]


def features_of(clips: list[Clip]) -> Features:
    """One window a clip: one value is the clip's own number, so that a baseline tells what it is made of."""
    values = np.eye(len(clips), dtype=np.float16)
    numbers = np.arange(len(clips))
    return Features(values, numbers, np.full(len(clips), 250), (SECONDS,) * len(clips))


@pytest.fixture(scope="module")
def answered() -> tuple[list[Clip], dict[BaselineProtocol, list[tuple[int, set[int]]]]]:
    """The clips, and by protocol the number of each scored clip with those its baseline is made of."""
    clips = clips_of()
    size = len(clips)
    statistics = EmbeddingStatistics(np.zeros(size, np.float32), np.ones(size, np.float32))
    head = Recording(statistics, SpeakerHead(HeadArchitecture(size)))
    object.__setattr__(head, "seen", [])
    answers = answers_by_protocol(head, clips, features_of(clips), ProtocolConfig(heard_s=10.0))
    seen = iter(head.seen)  # type: ignore[attr-defined]
    found: dict[BaselineProtocol, list[tuple[int, set[int]]]] = {}
    for protocol, items in answers.items():
        for item in items:
            windows, heard = next(seen)
            number = int(windows.argmax())
            assert clips[number] is item.clip
            found.setdefault(protocol, []).append((number, set(np.flatnonzero(heard).tolist())))
    return clips, found


Answered = tuple[list[Clip], dict[BaselineProtocol, list[tuple[int, set[int]]]]]


def test_without_a_baseline_every_clip_is_scored_once(answered: Answered) -> None:
    clips, found = answered
    assert [number for number, _ in found["none"]] == list(range(len(clips)))
    assert not any(heard for _, heard in found["none"])


@pytest.mark.parametrize("protocol", ["running", "ordinary"])
def test_a_clip_is_never_in_its_own_baseline_nor_is_another_speaker(
    answered: Answered, protocol: BaselineProtocol
) -> None:
    clips, found = answered
    for number, heard in found[protocol]:
        assert heard
        assert number not in heard
        assert {clips[item].speaker for item in heard} == {clips[number].speaker}


def test_a_running_baseline_is_all_that_was_heard_before_and_long_enough(answered: Answered) -> None:
    clips, found = answered
    lengths = [len(heard) for _, heard in found["running"]]
    enough = int(10.0 / SECONDS)
    assert min(lengths) == enough
    assert sorted(lengths) == sorted(list(range(enough, len(clips) // 2)) * 4)


def test_an_ordinary_baseline_is_neutral_and_leaves_neutral_clips_to_score(answered: Answered) -> None:
    clips, found = answered
    scored = [clips[number].emotion for number, _ in found["ordinary"]]
    for _, heard in found["ordinary"]:
        assert {clips[item].emotion for item in heard} == {"neutral"}
        assert len(heard) == int(10.0 / SECONDS)
    assert scored.count("neutral") == 4 * LEFT_TO_SCORE
    assert scored.count("angry") == 4 * TAKES


def test_a_speaker_with_too_little_other_speech_has_no_answers_and_no_scores() -> None:
    clips = [clip for clip in clips_of(1) if clip.emotion != "neutral"]
    size = len(clips)
    statistics = EmbeddingStatistics(np.zeros(size, np.float32), np.ones(size, np.float32))
    head = FittedHead(statistics, SpeakerHead(HeadArchitecture(size, 4)).eval())
    answers = answers_by_protocol(head, clips, features_of(clips), ProtocolConfig(heard_s=1000.0))
    assert answers["running"] == answers["ordinary"] == []
    assert list(scores_by_protocol(merged([answers, answers]), 1.0)) == ["none"]


def test_scores_are_by_corpus_and_of_the_speakers() -> None:
    clips = clips_of()
    size = len(clips)
    statistics = EmbeddingStatistics(np.zeros(size, np.float32), np.ones(size, np.float32))
    head = FittedHead(statistics, SpeakerHead(HeadArchitecture(size, 4)).eval())
    scores = scores_by_protocol(
        answers_by_protocol(head, clips, features_of(clips), ProtocolConfig(heard_s=10.0, draws=1)), 1.0
    )
    assert scores["none"]["toy"].clips == len(clips)
    assert scores["running"]["toy"].clips == len(clips) - 2 * 4
    assert list(scores["none"]["toy"].per_speaker) == ["s0", "s1"]


def test_the_windows_of_a_clip_share_its_weight() -> None:
    clips = clips_of(1)
    size = len(clips)
    numbers = np.repeat(np.arange(size), 3)
    features = Features(
        np.eye(size, dtype=np.float16)[numbers], numbers, np.full(3 * size, 250), (5.95,) * size
    )
    statistics = EmbeddingStatistics(np.zeros(size, np.float32), np.ones(size, np.float32))
    seen = []

    def spy(standardised: Array, heard: Array, weights: NDArray[np.float64]) -> Array:
        seen.append(heard.T @ weights)
        return relative_inputs(standardised, heard, weights)

    fitted = FittedHead(statistics, SpeakerHead(HeadArchitecture(size, 4)).eval(), spy)
    answers_by_protocol(fitted, clips, features, ProtocolConfig(heard_s=20.0, draws=1))
    totals = np.concatenate(seen)
    np.testing.assert_allclose(totals[totals > 0.0], 2.0, rtol=1e-6)
    assert [int((heard > 0.0).sum()) for heard in seen[:size]] == [0] * size
    assert int((seen[-1] > 0.0).sum()) == 4


def test_a_long_recording_counts_as_several_clips() -> None:
    assert (clip_weight(0.5), clip_weight(2.975), clip_weight(5.95)) == (1.0, 1.0, 2.0)
    windows, weights = np.array([[1.0], [3.0], [5.0]], np.float32), window_weights([1.0, 2.0], [1, 2])
    weighed = recorded_level(windows, weights, BaselineConfig()).mean
    np.testing.assert_allclose(weighed, [(1.0 + 2.0 * 4.0) / (3.0 + BaselineConfig.prior_windows)], rtol=1e-6)
