"""The manifest of a session and its sounds."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from calibrate.takes import Take, count_takes, read_sounds, read_takes
from edge.arrays import Array
from edge.errors import SourceError, UsageError
from edge.labels import EMOTIONS
from edge.model.bundle import load_bundle
from tests.cnn_lstm import CNN_LSTM


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> Array:
    samples = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return (level * samples).clip(-1, 1).astype(np.float32)


def session(folder: Path, rows: list[str], header: str = "path,emotion") -> Path:
    """Write a manifest, and a short sound for each row that names one."""
    for row in rows:
        name = row.split(",")[0]
        if name.endswith(".wav"):
            soundfile.write(folder / name, noise(0.6), 16_000)
    manifest = folder / "session.csv"
    manifest.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return manifest


TWO_OF_TWO = ["a.wav,neutral", "b.wav,neutral", "c.wav,angry", "d.wav,angry"]


def test_a_manifest_of_paths_and_emotions_is_enough(tmp_path: Path) -> None:
    takes = read_takes(session(tmp_path, TWO_OF_TWO))
    assert takes[2] == Take(tmp_path / "c.wav", EMOTIONS.index("angry"))
    assert count_takes(takes) == {"neutral": 2, "happy": 0, "sad": 0, "angry": 2}


def test_texts_and_ratings_are_read_and_other_columns_ignored(tmp_path: Path) -> None:
    rows = [
        'a.wav,neutral,anna,"Yes, now",3,2.5,,blue',
        "b.wav,neutral,,,,,,",
        "c.wav,sad,anna,,1,1,5,",
        "d.wav,sad,,,,,,",
    ]
    header = "path,emotion,speaker,text,valence,arousal,dominance,shirt"
    takes = read_takes(session(tmp_path, rows, header))
    assert (takes[0].text, takes[0].ratings) == ("Yes, now", (3.0, 2.5, None))
    assert (takes[1].text, takes[1].ratings) == ("", (None, None, None))
    assert takes[2].ratings == (1.0, 1.0, 5.0)


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("path,feeling", TWO_OF_TWO, "no column emotion"),
        ("path,emotion", [], "no rows"),
        ("path,emotion,emotion", ["a.wav,sad,happy"], "line 1: more than one column emotion"),
        ("path,emotion", ["a.wav,jolly"], "line 2: unknown emotion 'jolly': use one of neutral, happy"),
        ("path,emotion", ["a.wav,"], "line 2: no emotion"),
        ("path,emotion", ["lost.flac,sad"], "line 2: no sound file .*lost.flac"),
        ("path,emotion", [*TWO_OF_TWO, "a.wav,sad"], "line 6: a.wav is on line 2 already"),
        ("path,emotion", ["a.wav,sad,really"], "more cells than the header"),
        ("path,emotion", ['a.wav,"sad'], "not a CSV row"),
        (
            "path,emotion",
            ["a.wav,sad", "b.wav,sad"],
            "has only sad takes.*add takes of neutral, happy, angry",
        ),
        ("path,emotion", [*TWO_OF_TWO, "e.wav,happy"], "a single take of happy"),
        ("path,emotion,valence", ["a.wav,sad,5.5"], "valence is '5.5': give a number from 1 to 5"),
        ("path,emotion,arousal", ["a.wav,sad,0"], "arousal is '0'"),
        ("path,emotion,dominance", ["a.wav,sad,nan"], "dominance is 'nan'"),
        ("path,emotion,dominance", ["a.wav,sad,high"], "dominance is 'high'"),
        (
            "path,emotion,speaker",
            ["a.wav,sad,anna", "b.wav,sad,bo"],
            "line 3: the speaker is bo, but anna on",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, header: str, rows: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        read_takes(session(tmp_path, rows, header))
    assert "\n" not in str(refusal.value)


def test_a_missing_manifest_a_folder_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no manifest"):
        read_takes(tmp_path / "lost.csv")
    with pytest.raises(UsageError, match="cannot read"):
        read_takes(tmp_path)
    (tmp_path / "latin.csv").write_bytes("path,emotion,text\na.wav,sad,für\n".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        read_takes(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("samples", "error", "said"),
    [
        (noise(0.51), UsageError, "lasts 0.51 s, but a take needs at least 0.52 s"),
        (noise(61.0), UsageError, "lasts 61 s, but a take may last 60 s"),
        (np.zeros(16_000, np.float32), UsageError, "is silent"),
        (np.full(16_000, 0.3, np.float32), UsageError, "is silent"),
        (noise(1.0, level=1e-5), UsageError, "is silent"),
        (np.zeros(0, np.float32), SourceError, "no samples"),
    ],
)
def test_a_take_that_cannot_be_used_is_named(
    tmp_path: Path, samples: Array, error: type[Exception], said: str
) -> None:
    path = tmp_path / "take.wav"
    soundfile.write(path, samples, 16_000, "FLOAT")
    with pytest.raises(error, match=f"take.wav.*{said}"):
        read_sounds([Take(path, 0)], load_bundle(CNN_LSTM))


def test_a_recording_of_hours_is_refused_without_reading_it(tmp_path: Path) -> None:
    path, size = tmp_path / "night.wav", 4 * 3_600 * 192_000  # four hours of 48 kHz stereo, 2.8 GB
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, 48_000, 192_000, 4, 16)
    header = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVE" + form + b"data" + struct.pack("<I", size)
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + size)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="lasts more than 120 s, but a take may last 60 s"):
            read_sounds([Take(path, 0)], load_bundle(CNN_LSTM))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_file_that_is_not_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.wav"
    path.write_text("Dear Anna,")
    with pytest.raises(SourceError, match="cannot be read as sound"):
        read_sounds([Take(path, 0)], load_bundle(CNN_LSTM))


@pytest.mark.parametrize(("second", "said"), [(3, "labelled neutral and angry"), (0, "labelled neutral")])
def test_a_recording_that_occurs_twice_is_refused(tmp_path: Path, second: int, said: str) -> None:
    for name in ("a.wav", "copy.wav"):
        soundfile.write(tmp_path / name, noise(1.0), 16_000)
    takes = [Take(tmp_path / "a.wav", 0), Take(tmp_path / "copy.wav", second)]
    with pytest.raises(UsageError, match=f"a.wav and .*copy.wav are the same recording, {said}: remove"):
        read_sounds(takes, load_bundle(CNN_LSTM))
