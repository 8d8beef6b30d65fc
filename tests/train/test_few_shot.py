"""The sessions behind the shots curve divide fairly, and its figures say what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.fitting.model_selection import fit_and_judge
from calibrate.takes import Take
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from tests.train.synthetic import write_corpus
from train import few_shot as shots
from train.corpora import Clip, read_corpus
from train.few_shot import (
    CalibrationTrial,
    calibration_trials,
    count_trials,
    divisions,
    over_corpora,
    shot_scores,
)


def clips_of(texts: Sequence[str], each: int = 1, corpus: str = "made") -> list[Clip]:
    """Clips of one speaker: each sentence so often in each emotion."""
    return [
        Clip(Path(f"{text}-{emotion}-{number}.wav"), corpus, "s1", emotion, text=text)
        for text in texts
        for emotion in EMOTIONS
        for number in range(each)
    ]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_what_is_scored_was_neither_fitted_on_nor_said_there(count: int, sentences: int, each: int) -> None:
    clips = clips_of([f"sentence {number}" for number in range(sentences)], each)
    for division in divisions(clips, count, 3):
        fitted, scored = ([clips[index] for index in part] for part in (division.support, division.query))
        assert Counter(clip.emotion for clip in fitted) == dict.fromkeys(EMOTIONS, count)
        assert {clip.emotion for clip in scored} == set(EMOTIONS)
        assert not {clip.path for clip in fitted} & {clip.path for clip in scored}
        if division.by_sentence:
            assert not {clip.text for clip in fitted} & {clip.text for clip in scored}


def test_clips_are_divided_by_sentence_where_that_can_be() -> None:
    assert all(division.by_sentence for division in divisions(clips_of(["a", "b", "c"]), 2, 5))
    assert not any(division.by_sentence for division in divisions(clips_of(["a", "b"]), 2, 5) if division)
    assert not any(division.by_sentence for division in divisions(clips_of([""], each=3), 2, 5))


def test_without_shots_every_clip_is_scored() -> None:
    clips = clips_of(["a", "b", "c"], each=2)
    (division,) = divisions(clips, 0, 1)
    assert (division.support, division.query) == ((), tuple(range(len(clips))))


def test_draws_differ_and_are_the_same_each_time() -> None:
    clips = clips_of([str(number) for number in range(9)])
    first, again = (list(divisions(clips, 2, 4)) for _ in range(2))
    assert first == again
    assert len({division.support for division in first}) == 4


def test_a_speaker_with_too_few_clips_is_left_out() -> None:
    assert not list(divisions(clips_of(["a", "b"]), 2, 3))


def trial(
    speaker: str, before: float, after: float, corpus: str = "made", count: int = 2
) -> CalibrationTrial:
    return CalibrationTrial(
        corpus, speaker, count, by_sentence=True, adopted=after != before, before=before, after=after
    )


def test_speakers_count_alike_however_many_trials_they_had() -> None:
    trials = [trial("a", 40, 60), trial("a", 60, 80), trial("b", 80, 77), trial("c", 50, 49)]
    (found,) = shot_scores(trials)
    assert (found.speakers, found.before) == (3, 60.0)
    assert found.after == pytest.approx(196 / 3)
    assert found.gain == pytest.approx(16 / 3)
    assert (found.worst_before, found.worst_after, found.least_gain) == (50.0, 49.0, -3.0)
    assert found.harmed == pytest.approx(100 / 3)  # b lost three points; c's one point is no harm
    assert found.adopted == 100.0


def test_corpora_count_alike_and_numbers_of_shots_are_kept_apart() -> None:
    trials = [trial("a", 40, 50), trial("b", 60, 90, "other"), trial("a", 40, 41, count=1)]
    few, more = over_corpora(shot_scores(trials))
    assert (few.shots, few.after, few.speakers) == (1, 41.0, 1)
    assert (more.shots, more.before, more.after, more.worst_after) == (2, 50.0, 70.0, 50.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("corpus"), speakers=2, takes=3, seconds=0.9))


def test_a_model_that_knows_nothing_is_taught_a_speaker(
    bundle: Bundle, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "calibrate.fitting.adapter.L2_PENALTY", 1e-3
    )  # for the small embeddings of random weights
    trials = list(calibration_trials(bundle, clips, [0, 1, 2], 1))
    assert len(trials) == count_trials(clips, [0, 1, 2], 1) == 6
    by_shots = {item.shots: item for item in shot_scores(trials)}
    assert by_shots[0].gain == by_shots[1].gain == 0.0
    assert by_shots[2].after > by_shots[2].before + 20.0


def test_what_is_rejected_scores_as_the_generic_model(
    bundle: Bundle, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[Take]] = []

    def refuse(*given: object) -> object:
        fitted = fit_and_judge(*given)  # type: ignore[arg-type]
        heard.append(list(given[2]))  # type: ignore[call-overload]
        return replace(fitted, judgement=replace(fitted.judgement, verdict="rejected"))

    monkeypatch.setattr(shots, "fit_and_judge", refuse)
    trials = list(calibration_trials(bundle, clips, [2], 1))
    assert [item.after for item in trials] == [item.before for item in trials]
    assert not any(item.adopted for item in trials)
    assert [len(takes) for takes in heard] == [8, 8]
