"""Each speaker is scored by a head that was trained on others, and a recording is on one side only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.errors import UsageError
from edge.labels import EMOTIONS
from train.baseline_protocols import ClipLogits, FittedHead, ProtocolConfig
from train.corpora import Clip
from train.cross_fitting import (
    held_out_answers,
    require_disjoint,
    speaker_folds,
    temperature_of,
    without_speakers_of,
)
from train.feature_cache import Features
from train.speaker_head import HeadArchitecture, SpeakerHead, fit_statistics

SIZE = 5


def clips_of(**speakers: int) -> list[Clip]:
    """Clips of each emotion by some speakers of each corpus."""
    return [
        Clip(Path(f"{corpus}-{number}-{emotion}.wav"), corpus, f"{corpus}{number}", emotion)
        for corpus, count in speakers.items()
        for number in range(count)
        for emotion in EMOTIONS
    ]


def features_of(clips: Sequence[Clip]) -> Features:
    values = np.random.default_rng(0).standard_normal((len(clips), SIZE)).astype(np.float16)
    count = len(clips)
    return Features(
        values, np.arange(count), np.full(count, 250), (2.5,) * count, tuple(map(str, range(count)))
    )


def test_folds_hold_each_speaker_once_and_are_even_over_the_corpora() -> None:
    clips = clips_of(one=9, two=7, three=2)
    folds = speaker_folds(clips, 4)
    everyone = [speaker for fold in folds for speaker in fold]
    assert sorted(everyone) == sorted({clip.speaker for clip in clips})
    assert {len(fold) for fold in folds} == {4, 5}
    for corpus in ("one", "two"):
        counts = [sum(speaker.startswith(corpus) for speaker in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
    assert speaker_folds(clips[::-1], 4) == folds


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (4, "3 training speakers are too few for 4 folds by speaker: give --folds 2 to 3"),
        (1, "1 fold leaves nothing to train on: give --folds 2 or more, or 0"),
    ],
)
def test_numbers_of_folds_that_cannot_be_are_refused(count: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        speaker_folds(clips_of(one=3), count)


def test_one_speaker_is_too_few_for_any_folds() -> None:
    with pytest.raises(UsageError, match="too few for 2 folds by speaker: give --folds 0"):
        speaker_folds(clips_of(one=1), 2)


def test_each_group_is_answered_for_by_a_head_of_the_others() -> None:
    clips = clips_of(one=4)
    folds = {"a": ["one0", "one2"], "b": ["one1", "one3"]}
    trained: dict[str, set[str]] = {}

    def fit(own: Sequence[Clip], copies: Sequence[Features], name: str) -> FittedHead:
        trained[name] = {clip.speaker for clip in own}
        assert all(copy.clip.tolist() == list(range(len(own))) for copy in copies)
        originals = features_of(clips).values[[clips.index(clip) for clip in own]]
        np.testing.assert_array_equal(copies[0].values, originals)
        return FittedHead(
            fit_statistics(np.asarray(copies[0].values, np.float32)),
            SpeakerHead(HeadArchitecture(SIZE, 4)).eval(),
        )

    answers = held_out_answers(clips, [features_of(clips)] * 2, folds, fit, ProtocolConfig())
    assert trained == {"a": {"one1", "one3"}, "b": {"one0", "one2"}}
    assert sorted(item.clip.path for item in answers["none"]) == sorted(clip.path for clip in clips)


def test_the_temperature_makes_the_held_out_posteriors_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(1)
    clips = clips_of(one=200)
    logits = 2.0 * rng.standard_normal((len(clips), len(EMOTIONS)))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = [EMOTIONS[int(rng.choice(len(EMOTIONS), p=row))] for row in chances]
    items = [
        ClipLogits(replace(clip, emotion=emotion), (3.0 * row).astype(np.float32)[None])
        for clip, emotion, row in zip(clips, drawn, logits, strict=True)
    ]
    assert temperature_of({"none": items, "running": [], "ordinary": []}) == pytest.approx(3.0, rel=0.15)


def test_a_speaker_on_two_sides_is_refused() -> None:
    clips = clips_of(one=2)
    groups = {"fold 1": ["one0", "one1"], "test": ["one1"]}
    with pytest.raises(UsageError, match="speaker one1 is in fold 1 and in test: put each"):
        require_disjoint(groups, clips, features_of(clips).digests)


def test_the_same_recording_of_two_speakers_is_refused_if_they_are_on_two_sides() -> None:
    clips = clips_of(one=2)
    digests = list(features_of(clips).digests)
    digests[-1] = digests[0]
    require_disjoint({"training": ["one0", "one1"]}, clips, digests)
    with pytest.raises(
        UsageError,
        match=r"one-0-neutral.wav \(one0, fold 1\) and one-1-angry.wav \(one1, test\) are the same recording",
    ):
        require_disjoint({"fold 1": ["one0"], "test": ["one1"]}, clips, digests)


def test_a_corpus_is_left_out_with_all_its_speakers() -> None:
    assert without_speakers_of(clips_of(one=2, two=1)) == {"one": ["one0", "one1"], "two": ["two0"]}
    with pytest.raises(UsageError, match="needs two corpora or more, and there is only one"):
        without_speakers_of(clips_of(one=2))
