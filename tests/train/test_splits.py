"""No speaker is ever on two sides, and the rules need no chance."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import UsageError
from train.corpora import Clip
from train.splits import (
    Split,
    default_split,
    leave_one_speaker_out,
    read_split,
    speakers_of,
    split_by_speaker,
)


def clips_of(*speakers: str, corpus: str = "acted", each: int = 2) -> list[Clip]:
    """Make clips of speakers named by gender and number, as f1 or m2."""
    genders = {"f": "female", "m": "male"}
    return [
        Clip(Path(f"{corpus}/{name}/{index}.flac"), corpus, name, "sad", gender=genders.get(name[0], ""))
        for name in speakers
        for index in range(each)
    ]


def sides(split: Split) -> tuple[list[str], list[str], list[str]]:
    return speakers_of(split.train), speakers_of(split.validation), speakers_of(split.test)


@pytest.mark.parametrize(
    ("train", "validation", "test", "names"),
    [
        ("f1", "f1", "f2", "train and validation"),
        ("f1", "f2", "f1", "train and test"),
        ("f2", "f1", "f1", "validation and test"),
    ],
)
def test_a_speaker_on_two_sides_is_refused(train: str, validation: str, test: str, names: str) -> None:
    with pytest.raises(UsageError, match=f"speaker f1 is on two sides of the split, {names}"):
        Split(*(tuple(clips_of(speaker)) for speaker in (train, validation, test)))


def test_named_speakers_go_to_their_sides_with_all_their_clips() -> None:
    clips = clips_of("f1", "f2", "m1", "m2")
    split = split_by_speaker(clips, validation=["m1"], test={"f2"})
    assert sides(split) == (["f1", "m2"], ["m1"], ["f2"])
    assert sorted(split.train + split.validation + split.test, key=lambda clip: clip.path) == clips


def test_unknown_speakers_are_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown speaker m7, m9: choose from f1, f2"):
        split_by_speaker(clips_of("f1", "f2"), validation=["m9"], test=["m7", "f1"])


def test_a_speaker_named_for_both_sides_is_refused() -> None:
    with pytest.raises(UsageError, match="speaker f1 is in both validation and test"):
        split_by_speaker(clips_of("f1", "f2", "f3"), validation=["f1"], test=["f1"])


def test_holding_out_everybody_is_refused() -> None:
    with pytest.raises(UsageError, match="all 2 speakers are on the validation or test side"):
        split_by_speaker(clips_of("f1", "f2"), validation=["f1"], test=["f2"])


def test_one_speaker_only_is_refused_wherever_a_split_is_made() -> None:
    clips = clips_of("f1", each=9)
    for make in (
        default_split,
        lambda one: list(leave_one_speaker_out(one)),
        lambda one: split_by_speaker(one, validation=[], test=[]),
    ):
        with pytest.raises(UsageError, match=r"one speaker only \(f1\).* add recordings of other speakers"):
            make(clips)


def test_two_speakers_are_too_few_to_choose_and_test() -> None:
    with pytest.raises(UsageError, match="2 speakers only, but a split by speaker needs at least 3"):
        default_split(clips_of("f1", "m1"))


def test_no_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="there are no clips"):
        default_split([])


def test_the_default_split_takes_a_fifth_twice_from_the_end_by_alternate_genders() -> None:
    speakers = [f"{'mf'[number % 2]}{number:02d}" for number in range(10)]
    assert sides(default_split(clips_of(*speakers))) == (
        ["f01", "f03", "f05", "m00", "m02", "m04"],
        ["f07", "m06"],
        ["f09", "m08"],
    )


def test_genders_alternate_although_the_names_do_not() -> None:
    split = default_split(clips_of("f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "m1", "m2"))
    assert sides(split)[1:] == (["f7", "m1"], ["f8", "m2"])


def test_a_gender_that_runs_out_leaves_the_rest_to_the_other() -> None:
    split = default_split(clips_of("f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "m1"))
    assert sides(split)[1:] == (["f7", "f8"], ["f9", "m1"])


def test_each_corpus_is_split_for_itself_and_small_ones_only_train() -> None:
    clips = (
        clips_of("f1", "f2", "m1", corpus="three")
        + clips_of("f8", "m8", corpus="two")
        + clips_of("x", corpus="one")
    )
    assert sides(default_split(clips)) == (["f1", "f8", "m8", "x"], ["f2"], ["m1"])


def test_corpora_that_are_all_small_are_refused() -> None:
    clips = clips_of("f1", "m1", corpus="a") + clips_of("f2", "m2", corpus="b")
    with pytest.raises(UsageError, match="no corpus has three or more speakers"):
        default_split(clips)


def test_two_corpora_that_name_a_speaker_alike_are_refused() -> None:
    clips = clips_of("f1", "f2", "m1", corpus="a") + clips_of("m1", "m2", "m3", corpus="b")
    with pytest.raises(UsageError, match="speaker m1 is in the corpora a and b: rename one"):
        default_split(clips)


NAMES = st.lists(st.from_regex(r"[fmx][0-9]{1,2}", fullmatch=True), min_size=3, max_size=25, unique=True)


@settings(deadline=None, max_examples=50)
@given(speakers=NAMES, seed=st.integers(0, 9))
def test_the_default_split_keeps_every_clip_once_whatever_their_order(speakers: list[str], seed: int) -> None:
    clips = clips_of(*speakers)
    shuffled = random.Random(seed).sample(clips, len(clips))
    split = default_split(shuffled)
    assert sides(split) == sides(default_split(clips))
    assert sorted(clip.path for clip in split.train + split.validation + split.test) == sorted(
        clip.path for clip in clips
    )
    held_out = len(speakers_of(split.test))
    assert held_out == len(speakers_of(split.validation)) == max(1, round(len(speakers) / 5))


def test_each_speaker_is_left_out_once_and_validated_on_in_turn_by_another_gender() -> None:
    splits = dict(leave_one_speaker_out(clips_of("f1", "f2", "f3", "m1", "m2")))
    assert {name: sides(split)[1] for name, split in splits.items()} == {
        "f1": ["m1"],
        "f2": ["m2"],
        "f3": ["m1"],
        "m1": ["f1"],
        "m2": ["f2"],
    }
    assert all(sides(split)[2] == [name] for name, split in splits.items())
    assert all(len(sides(split)[0]) == 3 for split in splits.values())


def test_with_one_gender_the_next_speaker_is_validated_on() -> None:
    splits = leave_one_speaker_out(clips_of("f1", "f2", "f3"))
    assert [(name, sides(split)[1]) for name, split in splits] == [
        ("f1", ["f2"]),
        ("f2", ["f3"]),
        ("f3", ["f1"]),
    ]


def test_leaving_out_one_of_two_is_refused() -> None:
    with pytest.raises(UsageError, match="2 speakers only"):
        next(leave_one_speaker_out(clips_of("f1", "m1")))


def write_split(folder: Path, content: object) -> Path:
    path = folder / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_split_file_round_trips(tmp_path: Path) -> None:
    content = {"validation": ["f1"], "test": ["m1", "m2"], "exclude_corpora": ["emotale"]}
    assert read_split(write_split(tmp_path, content)) == content


def test_a_split_file_need_not_exclude_corpora(tmp_path: Path) -> None:
    assert read_split(write_split(tmp_path, {"validation": [], "test": ["m1"]}))["exclude_corpora"] == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot read .* as JSON"),
        ("[]", "is not a split"),
        ({"validation": ["f1"]}, "is not a split"),
        ({"validation": ["f1"], "test": "m1"}, "is not a split"),
        ({"validation": ["f1"], "test": [1]}, "is not a split"),
        ({"validation": ["f1"], "test": ["m1"], "tset": []}, "is not a split: write .* and nothing else"),
    ],
)
def test_a_split_file_of_another_form_is_refused_with_the_form(
    tmp_path: Path, content: object, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_split(write_split(tmp_path, content))
    assert '"exclude_corpora": [corpora]' in str(caught.value)


def test_a_split_file_may_have_a_byte_order_mark_and_decomposed_letters(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_bytes('{"validation": [], "test": ["Ju\u0308rgen"]}'.encode("utf-8-sig"))
    assert read_split(path)["test"] == ["J\u00fcrgen"]


def test_a_missing_split_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no split file"):
        read_split(tmp_path / "absent.json")
