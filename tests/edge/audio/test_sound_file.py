from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import BLOCK_S, SoundFile, read_clip
from edge.errors import SoundWarning, SourceError


def tone(rate: int, duration_s: float = 1.0, frequency_hz: float = 440.0, level: float = 0.5) -> Array:
    times_s = np.arange(round(rate * duration_s)) / rate
    return (level * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def write(path: Path, samples: Array, rate: int = SAMPLE_RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_clip(path)
    message = str(caught.value)
    assert "\n" not in message
    assert ":" in message, "a remedy follows the colon"
    return message


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_read_as_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    path = write(tmp_path / "a.wav", np.stack([tone(rate)] * channels, axis=1), rate)
    clip = read_clip(path)
    assert clip.dtype == np.float32
    assert clip.shape == (SAMPLE_RATE,)
    np.testing.assert_allclose(clip[800:15_200], tone(SAMPLE_RATE)[800:15_200], atol=2e-3)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.flac", "PCM_16", 1e-4),
        ("a.flac", "PCM_24", 1e-6),
        ("a.aiff", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 5e-2),
    ],
)
def test_any_sample_format_reads_as_the_same_sound(
    tmp_path: Path, name: str, subtype: str, tolerance: float
) -> None:
    path = write(tmp_path / name, tone(SAMPLE_RATE), subtype=subtype)
    np.testing.assert_allclose(read_clip(path), tone(SAMPLE_RATE), atol=tolerance)


def test_nan_and_overdriven_samples_of_a_float_file_are_repaired(tmp_path: Path) -> None:
    samples = np.array([0.1, np.nan, 7.0, -np.inf, -2.0, 0.3], np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_array_equal(read_clip(path), np.array([0.1, 0, 1, 0, -1, 0.3], np.float32))


def test_a_file_is_read_in_short_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(44_100, 2.0), 44_100)
    with SoundFile(path) as file:
        (sizes,) = [[len(block) for block in part.blocks(BLOCK_S)] for part in file.streams()]
    assert max(sizes) == round(BLOCK_S * 44_100)
    assert sum(sizes) == 2 * 44_100


def test_a_clip_of_one_sample_is_read(tmp_path: Path) -> None:
    assert len(read_clip(write(tmp_path / "a.wav", tone(SAMPLE_RATE)[:1]))) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert re.search(r"gone\.wav does not exist: name a sound file", error_of(tmp_path / "gone.wav"))


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert "is a folder" in error_of(tmp_path)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert "is empty (0 bytes)" in error_of(tmp_path / "a.wav")


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(0, np.float32))
    assert "holds no samples" in error_of(path)


@pytest.mark.parametrize("name", ["notes.txt", "notes.wav", "notes.flac", "notes.mp3", "notes.raw"])
def test_what_is_not_sound_is_refused_with_a_way_to_convert_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not sound at all\n" * 50)
    assert "cannot be read as sound" in error_of(tmp_path / name)
    assert "ffmpeg -i" in error_of(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["New  Recording 5.m4a", "it's.m4a", "$HOME.m4a", "-x.m4a", "10:30.m4a", "Jürgen.m4a"]
)
def test_the_way_to_convert_a_file_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), Path("my rec"), tmp_path / "my rec"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not sound at all\n" * 50)
        words = shlex.split(error_of(path).partition("for example ")[2])
        assert words[:2] + words[3:-1] == ["ffmpeg", "-i", "-ac", "1", "-ar", "16000"]
        given, converted = Path(words[2]), Path(words[-1])
        assert (given, converted) == (path, path.with_name(f"{path.stem}-16k.wav"))
        assert not words[2].startswith("-")
        assert ":" not in words[2] or words[2].startswith(("./", "/"))


def test_a_file_at_an_odd_rate_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1_000), 1_000)
    assert "is at 1000 Hz, expected 4000 to 192000 Hz" in error_of(path)


def test_a_pipe_in_the_file_system_is_pointed_to_stdin() -> None:
    assert "not a regular file" in error_of(Path("/dev/null"))


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.wav", tone(SAMPLE_RATE))
    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be opened (Permission denied)" in error_of(path)


def test_a_wav_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(SAMPLE_RATE))
    whole = read_clip(path)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 5_000 + 1])
    with pytest.warns(SoundWarning, match=r"0\.69 s of the file are missing"):
        clip = read_clip(path)
    np.testing.assert_array_equal(clip, whole[:5_000])


def test_half_a_flac_file_is_heard_up_to_the_damage_which_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(SAMPLE_RATE, 3.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert re.search(r"damaged or cut off after \d\.\d\d s", error_of(path))
    with SoundFile(path) as file:
        heard = sum(len(block) for part in file.streams() for block in part.blocks(BLOCK_S))
    assert SAMPLE_RATE < heard < 2 * SAMPLE_RATE
    assert file.warning is not None
    assert file.warning.lost_s == pytest.approx(3.0 - heard / SAMPLE_RATE)


def test_without_libsndfile_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.wav", tone(SAMPLE_RATE))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert "apt install libsndfile1" in error_of(path)
