"""A manifest becomes clips, or one line that says what to mend."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.labels import EMOTIONS, derived_ratings
from train.corpora import (
    OTHER_EMOTIONS,
    Clip,
    four_emotions,
    read_corpus,
    read_manifest,
    with_derived_ratings,
)

HEADER = "path,corpus,speaker,gender,language,emotion,intensity,valence,arousal,dominance,text,duration_s"
ROWS = (
    "a/1.flac,acted,acted_01,female,en,happy,strong,,,,Hello there,1.5",
    'a/2.flac,acted,acted_02,male,de,sad,,1.5,2,5,"Ja, gut",0.9',
)


def write_manifest(
    folder: Path, *rows: str, header: str = HEADER, sound: tuple[str, ...] = ("a/1.flac", "a/2.flac")
) -> Path:
    for name in sound:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    path = folder / "manifest.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def a_clip(emotion: str = "happy", **fields: object) -> Clip:
    return Clip(Path("x.flac"), "acted", "acted_01", emotion, **fields)  # type: ignore[arg-type]


def refusal(path: Path) -> str:
    """Read a manifest that must be refused, and return the one line that says why."""
    with pytest.raises(UsageError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_row_becomes_a_clip_with_its_path_beside_the_manifest(tmp_path: Path) -> None:
    happy, sad = read_manifest(write_manifest(tmp_path, *ROWS))
    assert happy == Clip(
        path=tmp_path / "a/1.flac",
        corpus="acted",
        speaker="acted_01",
        emotion="happy",
        gender="female",
        language="en",
        intensity="strong",
        text="Hello there",
    )
    assert sad.text == "Ja, gut"
    assert sad.ratings == (1.5, 2.0, 5.0)
    assert not sad.derived


def test_only_four_columns_are_required(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "angry,a/1.flac,c,s", header="emotion,path,corpus,speaker")
    assert read_manifest(path) == [Clip(tmp_path / "a/1.flac", "c", "s", "angry")]


@pytest.mark.parametrize("emotion", EMOTIONS + OTHER_EMOTIONS)
def test_every_known_emotion_is_accepted(tmp_path: Path, emotion: str) -> None:
    path = write_manifest(tmp_path, f"a/1.flac,c,s,{emotion}", header="path,corpus,speaker,emotion")
    assert [clip.emotion for clip in read_manifest(path)] == [emotion]


def test_absolute_paths_and_parent_folders_are_the_users_own_business(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    absolute = tmp_path / "1.flac"
    path = write_manifest(
        folder,
        f"{absolute},c,s,sad",
        "../2.flac,c,s,sad",
        header="path,corpus,speaker,emotion",
        sound=("../1.flac", "../2.flac"),
    )
    assert [clip.path for clip in read_manifest(path)] == [absolute, folder / "../2.flac"]


def test_a_byte_order_mark_and_spaces_in_the_header_do_no_harm(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "a/1.flac, c, s, sad", header="path, corpus, speaker, emotion")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_manifest(path) == [Clip(tmp_path / "a/1.flac", "c", "s", "sad")]


def test_a_missing_manifest_is_refused_with_the_columns_to_write(tmp_path: Path) -> None:
    message = refusal(tmp_path / "absent.csv")
    assert "there is no manifest" in message
    assert "path, corpus, speaker, emotion" in message


def test_a_folder_given_as_a_manifest_is_refused(tmp_path: Path) -> None:
    assert "name a manifest .csv" in refusal(tmp_path)


def test_missing_columns_are_refused_by_name(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "a/1.flac,c,sad", header="path,corpus,feeling")
    assert "no column speaker or emotion; the header has path, corpus, feeling" in refusal(path)


def test_other_separators_are_refused_by_what_the_header_has(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "a/1.flac|c|s|sad", header="path|corpus|speaker|emotion")
    assert "the header has path|corpus|speaker|emotion" in refusal(path)


def test_a_speaker_is_one_person_however_the_name_is_composed_and_the_emotion_written(tmp_path: Path) -> None:
    rows = ("a/1.flac;c;J\u00fcrgen;Sad", "a/2.flac;c;Ju\u0308rgen;HAPPY;")
    clips = read_manifest(write_manifest(tmp_path, *rows, header="Path;Corpus;Speaker;Emotion"))
    assert {clip.speaker for clip in clips} == {"J\u00fcrgen"}
    assert [clip.emotion for clip in clips] == ["sad", "happy"]


@pytest.mark.parametrize(("content", "reason"), [("", "the header has nothing"), (HEADER, "has no rows")])
def test_a_manifest_without_rows_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    assert reason in refusal(path)


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, *ROWS)
    path.write_bytes(path.read_bytes().replace(b"Ja, gut", b"Ja, sch\xf6n"))
    message = refusal(path)
    assert "line 3: not UTF-8" in message
    assert "save the manifest as CSV in UTF-8" in message


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",c,s,sad,,,", "no path: fill the cell"),
        ("a/2.flac,c,,sad,,,", "no speaker: fill the cell"),
        ("a/2.flac,c", "no speaker and no emotion: fill the cell"),
        ("a/2.flac,c,s,glad,,,", "unknown emotion 'glad': use one of neutral, happy, sad, angry, calm"),
        ("a/2.flac,c,s,unsure,,,", "unknown emotion 'unsure'"),
        ("a/2.flac,c,s,sad,0.5,,", "valence is '0.5': give a number from 1 to 5, or leave it empty"),
        ("a/2.flac,c,s,sad,,5.01,", "arousal is '5.01'"),
        ("a/2.flac,c,s,sad,,,high", "dominance is 'high'"),
        ("a/2.flac,c,s,sad,nan,,", "valence is 'nan'"),
        ("a/2.flac,c,s,sad,,inf,", "arousal is 'inf'"),
        ("a/1.flac,c,s,sad,,,", "a/1.flac is on line 2 already"),
        ("a/2.flac,c,s,sad,1,2,3,4", "more cells than the header has columns"),
        ('a/2.flac,c,s,"sad,,,', "check its double quotes"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    header = "path,corpus,speaker,emotion,valence,arousal,dominance"
    message = refusal(write_manifest(tmp_path, "a/1.flac,c,s,sad,,,", row, header=header))
    assert reason in message
    assert "line 3: " in message


def test_missing_sound_is_refused_with_the_first_and_how_many(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, *ROWS, "b/3.flac,c,s,,,sad,,,,,,", sound=("a/1.flac",))
    message = refusal(path)
    assert f"line 3: no sound file {tmp_path / 'a/2.flac'} (2 of 3 are missing)" in message
    assert "relative to the manifest's folder" in message


def test_a_path_too_long_for_the_disk_is_a_missing_file(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, f"{'x' * 300}.flac,c,s,sad", header="path,corpus,speaker,emotion")
    assert "no sound file" in refusal(path)


def test_a_folder_stands_for_the_manifest_in_it(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, *ROWS)
    assert read_corpus(tmp_path) == read_corpus(path) == read_manifest(path)


def test_a_folder_without_a_corpus_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither manifest.csv nor Session1/dialog/EmoEvaluation"):
        read_corpus(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*absent"):
        read_corpus(tmp_path / "absent")


def test_ratings_are_known_only_when_all_three_are() -> None:
    assert a_clip(valence=1.0, arousal=2.0).ratings is None
    assert a_clip(valence=1.0, arousal=2.0, dominance=3.0).ratings == (1.0, 2.0, 3.0)


def test_derived_ratings_fill_what_people_did_not_give_and_say_so() -> None:
    bare, strong, partial = with_derived_ratings(
        [a_clip("sad"), a_clip("sad", intensity="strong"), a_clip("sad", valence=1.25)]
    )
    norms = derived_ratings("sad")
    assert norms is not None
    assert bare.ratings == norms
    assert strong.ratings == derived_ratings("sad", "strong") != norms
    assert partial.ratings == (1.25, *norms[1:])
    assert bare.derived
    assert strong.derived
    assert partial.derived


def test_ratings_from_people_are_never_called_derived() -> None:
    human = a_clip("sad", valence=1.0, arousal=2.0, dominance=3.0)
    assert with_derived_ratings([human]) == [human]


def test_an_emotion_without_norms_stays_unrated() -> None:
    assert with_derived_ratings([a_clip("boredom")]) == [a_clip("boredom")]


def test_only_the_four_emotions_are_kept() -> None:
    clips = [a_clip(emotion) for emotion in ("calm", "angry", "other", "neutral")]
    assert [clip.emotion for clip in four_emotions(clips)] == ["angry", "neutral"]


@pytest.mark.data
def test_the_recordings_are_as_their_readme_counts_them() -> None:
    folder = Path(os.environ.get("MMTL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no recordings in {folder}: set MMTL_DATA")
    table = re.findall(
        r"^\| `(\w+)`[^|]*\| (\d+) \| [\d.]+ \| (\d+) \|", (folder / "README.md").read_text(), re.M
    )
    assert table
    clips = read_corpus(folder)
    files = Counter(clip.corpus for clip in clips)
    speakers = Counter(corpus for corpus, _ in {(clip.corpus, clip.speaker) for clip in clips})
    assert {(corpus, str(files[corpus]), str(speakers[corpus])) for corpus in files} == set(table)
    assert {clip.corpus for clip in clips if clip.ratings} == {"emotale"}
    assert all(clip.derived != (clip.corpus == "emotale") for clip in with_derived_ratings(clips))
