"""The IEMOCAP folder format, on a small synthetic tree of that form."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import UsageError
from train.corpora import Clip, read_corpus
from train.iemocap import is_release, read_turns

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"

ANNOTATORS = (
    "C-E2:\tNeutral;\t()\n"
    "C-E4:\tAnger; Frustration;\t([6.0000 - 7.0000] louder)\n"
    "C-F1:\tNeutral;\t()\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\n"
    "A-M1:\tval 2; act 3; dom  5;\t(mostly)\n\n"
)


def add_dialog(root: Path, dialog: str, *turns: tuple[str, str, str], sound: bool = True) -> Path:
    """Write a dialog's label file and (empty) sound files; a turn is name, emotion and ratings."""
    session = root / f"Session{int(dialog[3:5])}"
    evaluation = session / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
    wav = session / "sentences" / "wav" / dialog
    evaluation.parent.mkdir(parents=True, exist_ok=True)
    wav.mkdir(parents=True)
    lines = [HEADER]
    for index, (name, code, ratings) in enumerate(turns):
        lines += [f"[{index}.2901 - {index + 1}.2357]\t{dialog}_{name}\t{code}\t[{ratings}]\n", ANNOTATORS]
        if sound:
            (wav / f"{dialog}_{name}.wav").touch()
    evaluation.write_text("".join(lines))
    return evaluation


@pytest.fixture
def release(tmp_path: Path) -> Path:
    add_dialog(
        tmp_path,
        "Ses01F_impro01",
        ("F000", "neu", "2.5000, 2.0000, 3.5000"),
        ("M000", "exc", "4.0000, 4.5000, 3.0000"),
    )
    add_dialog(tmp_path, "Ses01F_script01_1", ("M003", "ang", "1.0000, 5.0000, 5.0000"))
    add_dialog(
        tmp_path,
        "Ses05M_impro05a",
        ("F001", "xxx", "3.0000, 3.0000, 3.0000"),
        ("M010", "fru", "2.0000, 3.3333, 3.6667"),
    )
    return tmp_path


def test_a_turn_becomes_a_clip(release: Path) -> None:
    first = read_corpus(release)[0]
    assert first == Clip(
        path=release / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        corpus="iemocap",
        speaker="Ses01_F",
        emotion="neutral",
        gender="female",
        language="en",
        valence=2.5,
        arousal=2.0,
        dominance=3.5,
    )
    assert not first.derived


def test_the_speaker_is_who_speaks_and_not_who_wears_the_markers(release: Path) -> None:
    by_turn = {clip.path.stem: (clip.speaker, clip.gender) for clip in read_corpus(release)}
    assert by_turn == {
        "Ses01F_impro01_F000": ("Ses01_F", "female"),
        "Ses01F_impro01_M000": ("Ses01_M", "male"),
        "Ses05M_impro05a_F001": ("Ses05_F", "female"),
        "Ses05M_impro05a_M010": ("Ses05_M", "male"),
    }


def test_scripted_dialogs_are_read_only_when_asked_for(release: Path) -> None:
    assert all("impro" in clip.path.stem for clip in read_corpus(release))
    everything = read_corpus(release, improvised_only=False)
    assert [clip.path.stem for clip in everything if clip.emotion == "angry"] == ["Ses01F_script01_1_M003"]
    assert len(everything) == 5
    assert [turn.improvised for turn in read_turns(release, improvised_only=False)].count(False) == 1


def test_excited_is_its_own_emotion_unless_it_is_to_count_as_happy(release: Path) -> None:
    assert [clip.emotion for clip in read_corpus(release)] == ["neutral", "excited", "other", "frustrated"]
    merged = read_corpus(release, excited_as_happy=True)
    assert [clip.emotion for clip in merged] == ["neutral", "happy", "other", "frustrated"]


@pytest.mark.parametrize(
    ("code", "emotion"),
    [
        ("neu", "neutral"),
        ("hap", "happy"),
        ("sad", "sad"),
        ("ang", "angry"),
        ("exc", "excited"),
        ("fru", "frustrated"),
        ("fea", "fearful"),
        ("dis", "disgust"),
        ("sur", "surprised"),
        ("oth", "other"),
        ("xxx", "other"),
    ],
)
def test_each_code_has_its_emotion(tmp_path: Path, code: str, emotion: str) -> None:
    add_dialog(tmp_path, "Ses02F_impro01", ("F000", code, "3.0000, 3.0000, 3.0000"))
    assert [turn.emotion for turn in read_turns(tmp_path)] == [emotion]


def test_single_annotators_and_resource_forks_are_ignored(release: Path) -> None:
    evaluation = release / "Session1/dialog/EmoEvaluation"
    (evaluation / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\xff[junk")
    (evaluation / "Categorical").mkdir()
    (evaluation / "Categorical" / "Ses01F_impro01_e2_cat.txt").write_text("[not a turn]\n")
    assert len(read_corpus(release)) == 4


def test_stray_bytes_in_a_comment_do_no_harm(release: Path) -> None:
    path = release / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"(mostly)", b"(mo\xe9tly)"))
    assert len(read_corpus(release)) == 4


def test_part_of_a_release_is_read_too(tmp_path: Path) -> None:
    assert not is_release(tmp_path)
    add_dialog(tmp_path, "Ses03M_impro02", ("M000", "sad", "2.0000, 2.0000, 2.0000"))
    assert is_release(tmp_path)
    assert [clip.speaker for clip in read_corpus(tmp_path)] == ["Ses03_M"]


def test_an_average_just_outside_the_scale_counts_as_its_end(tmp_path: Path) -> None:
    add_dialog(tmp_path, "Ses01F_impro01", ("F000", "ang", "0.5000, 5.5000, 5.0000"))
    assert [clip.ratings for clip in read_corpus(tmp_path)] == [(1.0, 5.0, 5.0)]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (("F000", "ang", "3.0000, 5.6000, 3.0000"), "line 3: arousal is 5.6000, expected 1 to 5"),
        (("F000", "ang", "0.0000, 3.0000, 3.0000"), "line 3: valence is 0.0000"),
        (("F000", "ang", "3.0000, 3.0000, 3.0.0"), r"line 3: dominance is 3\.0\.0"),
        (("F000", "joy", "3.0000, 3.0000, 3.0000"), "line 3: unknown emotion 'joy': use one of neu, hap"),
        (("F000", "ang", "3.0000, 3.0000"), r"line 3: cannot read .* expected \[start - end\] turn"),
        (("X000", "ang", "3.0000, 3.0000, 3.0000"), "line 3: cannot read"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_with_its_file_and_number(
    tmp_path: Path, turn: tuple[str, str, str], reason: str
) -> None:
    path = add_dialog(tmp_path, "Ses01F_impro01", turn)
    with pytest.raises(UsageError, match=reason) as caught:
        read_corpus(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_missing_sound_is_refused_with_the_first_and_how_many(release: Path) -> None:
    add_dialog(
        release,
        "Ses04F_impro01",
        ("F000", "neu", "3.0000, 3.0000, 3.0000"),
        ("F001", "neu", "3.0000, 3.0000, 3.0000"),
        sound=False,
    )
    with pytest.raises(
        UsageError, match=r"no sound file .*Ses04F_impro01_F000\.wav \(2 of 6 are missing\): copy"
    ):
        read_corpus(release)


def test_a_release_of_scripted_dialogs_only_is_refused_with_the_remedy(tmp_path: Path) -> None:
    add_dialog(tmp_path, "Ses01F_script01_1", ("F000", "neu", "3.0000, 3.0000, 3.0000"))
    with pytest.raises(
        UsageError, match="has only scripted dialogues: copy the whole release, or train with --scripted"
    ):
        read_corpus(tmp_path)


def test_label_files_without_a_turn_are_refused(tmp_path: Path) -> None:
    add_dialog(tmp_path, "Ses01F_impro01")
    with pytest.raises(UsageError, match="has no rated turns"):
        read_corpus(tmp_path)
