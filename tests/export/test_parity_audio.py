from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.errors import SourceError, UsageError
from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.normaliser import BinStatistics, GainConfig, Normaliser
from export.parity_audio import (
    LONGEST_CLIP_S,
    MOST_CLIPS,
    STEP_FRAMES,
    filling,
    find_clips,
    read_sounds,
    windows_of,
)
from tests.train.synthetic import SAMPLE_RATE, voice, write_corpus

FRONT_END = FrontEnd()


def normaliser() -> Normaliser:
    return Normaliser(GainConfig(), BinStatistics(np.zeros(200, np.float32), np.ones(200, np.float32)))


def test_the_clips_of_a_manifest_are_found_by_the_file_or_by_its_folder(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", speakers=1, takes=1)
    found = find_clips(folder / "manifest.csv")
    assert found == find_clips(folder)
    assert sorted(found) == sorted(folder.glob("*.wav"))


def test_a_folder_without_a_manifest_is_searched_for_recordings(tmp_path: Path) -> None:
    for name in ("b.wav", "deep/a.FLAC", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_clips(tmp_path) == [tmp_path / "b.wav", tmp_path / "deep" / "a.FLAC"]


def test_of_many_clips_some_from_all_over_are_taken(tmp_path: Path) -> None:
    lines = [f"{number}.wav" for number in range(5 * MOST_CLIPS)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path", *lines, lines[0]]))
    found = find_clips(tmp_path)
    assert len(set(found)) == MOST_CLIPS
    assert (found[0].name, found[-1].name) == (lines[0], lines[-1])


@pytest.mark.parametrize("kind", ["missing", "empty folder", "no rows", "no path column", "not text"])
def test_where_there_are_no_clips_one_line_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clips"
    contents = {"no rows": b"path\n", "no path column": b"file\na.wav\n", "not text": b"\xff\xfe"}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(UsageError) as caught:
        find_clips(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    if kind == "missing":
        assert str(caught.value).endswith("name a folder of sound files, or a manifest .csv")


def test_the_sound_that_ships_comes_first_and_of_a_long_clip_the_beginning(tmp_path: Path) -> None:
    samples = voice(0, "sad", 0, LONGEST_CLIP_S + 1)
    soundfile.write(tmp_path / "long.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    shipped, clip = read_sounds([tmp_path / "long.wav"])
    assert len(shipped) == 4.5 * SAMPLE_RATE  # of the fixture: 3.5 s, and a second of noise
    np.testing.assert_array_equal(clip, samples[: int(LONGEST_CLIP_S * SAMPLE_RATE)])


def test_a_clip_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(SourceError, match=r"a\.wav"):
        list(read_sounds([tmp_path / "a.wav"]))


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0, 3.2, 4.9])
def test_every_sound_gives_windows_that_are_cut_from_its_frames(seconds: float) -> None:
    sound = voice(1, "happy", 0, seconds)
    filled = filling(sound, FRONT_END)
    np.testing.assert_array_equal(filled[: len(sound)], sound)
    windows = windows_of(filled, FRONT_END, normaliser())
    frames = normaliser()(power_spectrogram(filtered(filled, FRONT_END), FRONT_END))
    assert windows.shape == ((len(frames) - 297) // STEP_FRAMES + 1, 297, 200)
    last = (len(windows) - 1) * STEP_FRAMES
    np.testing.assert_array_equal(windows[-1], frames[last : last + 297])


def test_a_sound_of_nothing_is_silence() -> None:
    filled = filling(np.zeros(0, np.float32), FRONT_END)
    assert np.isfinite(windows_of(filled, FRONT_END, normaliser())).all()
