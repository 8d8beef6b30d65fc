from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import SourceError, UsageError
from edge.reports.recordings import find_recordings


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("hall.wav", "anna/a.flac", "anna/late/b.MP3", "ben/c.wav", "ben/notes.txt", "ben/._c.wav"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "corpus"


def found(*sources: object) -> dict[str, str]:
    return {recording.path.name: recording.speaker for recording in find_recordings([*map(str, sources)])}


def test_a_folder_gives_its_sound_files_and_their_speakers(corpus: Path) -> None:
    assert found(corpus) == {"hall.wav": "", "a.flac": "anna", "b.MP3": "anna", "c.wav": "ben"}


def test_a_pattern_names_speakers_below_its_fixed_part(corpus: Path) -> None:
    assert found(corpus / "*/*.*a*") == {"a.flac": "anna", "c.wav": "ben"}
    assert found(corpus / "**/*.wav") == {"hall.wav": "", "c.wav": "ben"}


def test_a_manifest_names_the_speakers(corpus: Path) -> None:
    manifest = corpus / "speakers.csv"
    manifest.write_text("path,speaker\nanna/a.flac,Anna B.\nmissing.wav,Ben\n")
    assert found(manifest) == {"a.flac": "Anna B.", "missing.wav": "Ben"}


def test_a_recording_that_is_named_twice_is_listed_once(corpus: Path) -> None:
    (corpus / "again.flac").symlink_to(corpus / "anna" / "a.flac")
    assert found(corpus / "ben" / "c.wav", corpus) == {
        "c.wav": "ben",
        "a.flac": "anna",
        "hall.wav": "",
        "b.MP3": "anna",
    }


def test_a_file_with_brackets_in_its_name_is_no_pattern(corpus: Path) -> None:
    (corpus / "take [1].wav").write_bytes(b"x")
    assert found(corpus / "take [1].wav") == {"take [1].wav": ""}


@pytest.mark.parametrize("source", ["nothing-here", "nothing-here/*.wav"])
def test_a_source_that_names_nothing_is_an_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceError):
        find_recordings([str(tmp_path / source)])


@pytest.mark.parametrize("source", ["mic", "mic:1", "-", ""])
def test_a_device_or_pipe_cannot_be_in_a_report(source: str) -> None:
    with pytest.raises(UsageError, match="report"):
        find_recordings([source])
