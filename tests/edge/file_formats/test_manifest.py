"""Manifests as people and spreadsheets write them are read, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.file_formats.manifest import (
    manifest_rows,
    missing_remedy,
    parse_emotion,
    parse_rating,
    recording_path,
)
from edge.labels import EMOTIONS

PLAIN = "path,emotion,text\na.wav,happy,Yes\nb.wav,sad,\n"
ROWS = [
    {"path": "a.wav", "emotion": "happy", "text": "Yes"},
    {"path": "b.wav", "emotion": "sad", "text": ""},
]


def rows(folder: Path, content: str | bytes, *required: str) -> list[dict[str, str]]:
    path = folder / "manifest.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = [row for _, row in manifest_rows(path, required or ("path", "emotion"))]
    return [{name: row[name] for name in ("path", "emotion", "text") if name in row} for row in found]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "path, emotion, text\na.wav, happy, Yes\nb.wav, sad,\n",
        '"path", "emotion", "text"\n"a.wav", "happy", "Yes"\n"b.wav", "sad", ""\n',
        '"path" , "emotion" , "text"\n"a.wav" , "happy" , "Yes" \n"b.wav" ,"sad" , ""',
        "\n\n Path ,EMOTION,Text\n\na.wav,happy,Yes\n   \n,,\nb.wav,sad,\n\n",
        "path,emotion,text,,,\na.wav,happy,Yes,,,\nb.wav,sad,,,,\n",
        "path,emotion,text\na.wav,happy,Yes,,,\nb.wav,sad\n",
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "; "),
        PLAIN.replace(",", "\t"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        '"sep=,"\r\n' + PLAIN,
        "sep=\t\n" + PLAIN.replace(",", "\t"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        "\ufeff".encode("utf-16-be") + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
    ],
)
def test_it_is_read_the_same_however_it_was_written(tmp_path: Path, content: str | bytes) -> None:
    assert rows(tmp_path, content) == ROWS


def test_separators_and_quotes_in_quoted_cells_are_text(tmp_path: Path) -> None:
    content = 'path;emotion;text\na.wav;happy;"Yes; ""now"", please"\n'
    assert rows(tmp_path, content)[0]["text"] == 'Yes; "now", please'


def test_a_manifest_of_one_column_needs_no_separator(tmp_path: Path) -> None:
    assert rows(tmp_path, "path\na;b.wav\n", "path") == [{"path": "a;b.wav"}]


def test_lines_are_counted_as_an_editor_shows_them(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b'sep=,\r\npath,emotion,text\r\n\r\na.wav,sad,"two\r\nlines"\r\n,,\r\nb.wav,sad,\r\n')
    assert [line for line, _ in manifest_rows(path, ("path", "emotion"))] == [5, 7]


def test_letters_are_composed_except_in_paths(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "path,emotion,text\nJu\u0308rgen.wav,sad,Ju\u0308rgen\n")
    assert (row["path"], row["text"]) == ("Ju\u0308rgen.wav", "J\u00fcrgen")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"line 1: no column path or emotion; the header has nothing"),
        ("\n\npath;mood\n", r"line 3: no column emotion; the header has path, mood: name the columns path"),
        ("a.wav,happy\n", r"line 1: no column path or emotion; the header has a.wav, happy"),
        ("path,emotion,Emotion\n", r"line 1: more than one column emotion"),
        ("path,emotion\na.wav\n", r"line 2: no emotion: fill the cell or remove the row"),
        ("path,emotion\na.wav,sad,,really\n", r"line 2: more cells than the header has columns"),
        ('path,emotion\na.wav,"sad\n', r"line 2: not a CSV row .*check its double quotes"),
        ("path,emotion\na.wav,für\n".encode("cp1252"), r'line 2: not UTF-8 text: .*"CSV UTF-8"'),
        (PLAIN.encode("utf-16-le"), r"line 1: not UTF-8 text: save the manifest as CSV in UTF-8"),
        (b"PK\x03\x04\x14\x00\xb5", r"line 1: not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        rows(tmp_path, content)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("written", ["happy", "Happy", "HAPPY"])
def test_an_emotion_is_known_in_any_case(written: str) -> None:
    assert parse_emotion({"emotion": written}, EMOTIONS, "m.csv, line 2") == "happy"


def test_an_unknown_emotion_is_refused_as_it_was_written_with_those_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"m\.csv, line 2: unknown emotion 'Glad': use one of neutral, happy"
    ):
        parse_emotion({"emotion": "Glad"}, EMOTIONS, "m.csv, line 2")


def test_a_rating_may_have_a_decimal_comma() -> None:
    assert parse_rating({"valence": "3,5"}, "valence", "") == 3.5
    with pytest.raises(UsageError, match="valence is '3,5,1': give a number from 1 to 5"):
        parse_rating({"valence": "3,5,1"}, "valence", "m.csv, line 2")


def test_a_recording_is_found_with_the_separators_of_windows_and_letters_composed_otherwise(
    tmp_path: Path,
) -> None:
    (tmp_path / "rec" / "Ju\u0308rgen").mkdir(parents=True)
    there = tmp_path / "rec" / "Ju\u0308rgen" / "1.wav"
    there.touch()
    for written in ("rec/Ju\u0308rgen/1.wav", "rec/J\u00fcrgen/1.wav", r"rec\Ju" "\u0308rgen\\1.wav"):
        assert recording_path({"path": written}, tmp_path) == there
    odd = tmp_path / r"rec\1.wav"
    odd.touch()
    assert recording_path({"path": r"rec\1.wav"}, tmp_path) == odd


@pytest.mark.parametrize("written", [r"C:\rec\1.wav", "C:/rec/1.wav", r"\\server\rec\1.wav"])
def test_an_absolute_path_of_windows_is_called_one(tmp_path: Path, written: str) -> None:
    assert missing_remedy(recording_path({"path": written}, tmp_path)).startswith("that is a Windows path")
    assert missing_remedy(recording_path({"path": "lost.wav"}, tmp_path)).startswith("paths are relative")
