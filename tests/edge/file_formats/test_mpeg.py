"""MP3 as libsndfile writes it, changed as recorders, servers and people change it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import Array
from edge.audio.sound_file import BLOCK_S, SoundFile, read_clip
from edge.errors import SourceError
from edge.file_formats.mpeg import FrameHeader, frame_header

ROOT = Path(__file__).parents[3]
DECODER_DELAY = 529
"""Delay of a layer III decoder, in samples, which it trims."""


def encoded(samples: Array, rate: int) -> bytes:
    """Write an MP3 file of variable bitrate with its Xing frame."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(
        file, "w", rate, channels, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE"
    ) as sound:
        sound.write(samples)
    return file.getvalue()


def speechlike(rate: int, duration_s: float = 4.0) -> Array:
    """Noise that comes and goes: the bitrate follows it."""
    times_s = np.arange(round(rate * duration_s)) / rate
    noise = np.random.default_rng(0).normal(0.0, 0.2, len(times_s))
    return (noise * (np.sin(np.pi * times_s) > 0)).astype(np.float32)


def frames(content: bytes) -> list[bytes]:
    """Divide MP3 without tags into its frames."""
    found, at = [], 0
    while header := frame_header(content[at : at + 4]):
        found.append(content[at : at + header.length])
        at += header.length
    assert at == len(content)
    return found


RATE = 16_000
WHOLE = encoded(speechlike(RATE), RATE)
INFO, *SOUND = frames(WHOLE)
BARE = b"".join(SOUND)
SAMPLES = 576


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, content: bytes) -> Array:
    path = folder / "clip.mp3"
    path.write_bytes(content)
    return read_clip(path)


def lost_s(folder: Path, content: bytes) -> tuple[int, float]:
    """Return the number of samples read, and the seconds reported as missing."""
    path = folder / "clip.mp3"
    path.write_bytes(content)
    with SoundFile(path) as file:
        heard = sum(len(block) for part in file.streams() for block in part.blocks(BLOCK_S))
    file.finish()
    return heard, file.warning.lost_s if file.warning else 0.0


def test_the_material_is_of_variable_bitrate_and_has_an_info_frame() -> None:
    assert len({len(frame) for frame in SOUND}) > 3
    assert b"Xing" in INFO


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("fffb9064", FrameHeader(1, 3, 44_100, 2, 128_000, 1_152, 417)),
        ("fffb9264", FrameHeader(1, 3, 44_100, 2, 128_000, 1_152, 418)),
        ("fffbe0c4", FrameHeader(1, 3, 44_100, 1, 320_000, 1_152, 1_044)),
        ("fff348c4", FrameHeader(2, 3, 16_000, 1, 32_000, 576, 144)),
        ("ffe318c4", FrameHeader(2, 3, 8_000, 1, 8_000, 576, 72)),
        ("fffd8404", FrameHeader(1, 2, 48_000, 2, 128_000, 1_152, 384)),
        ("ffff4004", FrameHeader(1, 1, 44_100, 2, 128_000, 384, 136)),
    ],
)
def test_a_header_says_how_long_its_frame_is(header: str, expected: FrameHeader) -> None:
    assert frame_header(bytes.fromhex(header)) == expected


@pytest.mark.parametrize(
    "header", ["", "fffb", "00000000", "fffb0064", "fffbf064", "fffb9c64", "ffeb9064", "fff99064"]
)
def test_what_is_no_header_or_states_no_length_is_none(header: str) -> None:
    """No bitrate, the forbidden one, no rate, no version, no layer."""
    assert frame_header(bytes.fromhex(header)) is None


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_variable_bitrate_without_an_info_frame_is_read_to_its_end(
    folder: Path, rate: int, channels: int
) -> None:
    samples = speechlike(rate)
    content = encoded(samples if channels == 1 else np.stack([samples, samples[::-1]], axis=1), rate)
    _, *sound = frames(content)
    header = frame_header(sound[0][:4])
    assert header is not None
    heard, missing_s = lost_s(folder, b"".join(sound))
    assert heard == len(sound) * header.samples - DECODER_DELAY
    assert missing_s == 0.0


def test_with_an_info_frame_what_the_encoder_put_before_and_behind_is_trimmed(folder: Path) -> None:
    assert len(read(folder, WHOLE)) == 4 * RATE


def stating(count: int) -> bytes:
    """The file with an info frame that states another number of frames."""
    at = INFO.index(b"Xing") + 8
    return INFO[:at] + count.to_bytes(4, "big") + INFO[at + 4 :] + BARE


@pytest.mark.parametrize("stated", [0, 1, len(SOUND) // 2])
def test_a_stated_count_that_is_too_small_does_not_cut_the_sound_short(folder: Path, stated: int) -> None:
    assert len(read(folder, stating(stated))) == 4 * RATE


def test_a_file_shorter_than_it_states_is_read_and_the_rest_is_missed(folder: Path) -> None:
    half = len(SOUND) // 2
    heard, missing_s = lost_s(folder, INFO + b"".join(SOUND[:half]))
    assert heard == pytest.approx(half * SAMPLES, abs=3 * SAMPLES)
    assert missing_s == pytest.approx((len(SOUND) - half) * SAMPLES / RATE, rel=0.1)


def test_another_encoder_s_info_frame_is_no_sound(folder: Path) -> None:
    vbri = bytearray(INFO)
    vbri[4:] = bytes(len(vbri) - 4)
    vbri[36:40] = b"VBRI"
    vbri[50:54] = len(SOUND).to_bytes(4, "big")
    assert lost_s(folder, bytes(vbri) + BARE) == (len(SOUND) * SAMPLES - DECODER_DELAY, 0.0)


ID3 = b"ID3\4\0\0\0\0\2\0" + bytes(256)
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
APE = (
    b"APETAGEX"
    + (2_000).to_bytes(4, "little")
    + (64).to_bytes(4, "little")
    + b"\0\0\0\xa0"
    + bytes(8)
    + b"x" * 64
)


@pytest.mark.parametrize("behind", [b"", ID3V1, APE, APE + ID3V1, bytes(5_000)])
@pytest.mark.parametrize("before", [b"", ID3, 2 * ID3])
def test_tags_and_padding_are_neither_sound_nor_loss(folder: Path, before: bytes, behind: bytes) -> None:
    assert lost_s(folder, before + BARE + behind) == (len(SOUND) * SAMPLES - DECODER_DELAY, 0.0)


@pytest.mark.parametrize("second", [WHOLE, BARE, ID3 + WHOLE, ID3V1 + ID3 + BARE, ID3V1 + WHOLE])
@pytest.mark.parametrize("first", [WHOLE, BARE, ID3 + WHOLE])
def test_joined_files_are_read_to_the_end_of_the_last(folder: Path, first: bytes, second: bytes) -> None:
    heard, missing_s = lost_s(folder, first + second)
    assert heard == pytest.approx(8 * RATE, abs=6 * SAMPLES)
    assert missing_s == 0.0


def test_joined_files_may_differ_in_rate_and_channels(folder: Path) -> None:
    stereo = encoded(np.stack([speechlike(44_100)] * 2, axis=1), 44_100)
    assert len(read(folder, WHOLE + stereo)) == 8 * RATE
    assert len(read(folder, WHOLE + b"".join(frames(stereo)[1:]))) == pytest.approx(8 * RATE, abs=3_000)


def test_data_between_frames_is_skipped_and_reported(folder: Path) -> None:
    half = len(SOUND) // 2
    rubbish = np.random.default_rng(0).bytes(4_000)
    heard, missing_s = lost_s(folder, b"".join(SOUND[:half]) + rubbish + b"".join(SOUND[half:]))
    assert heard == len(SOUND) * SAMPLES - DECODER_DELAY
    assert missing_s == pytest.approx(4.0 * 4_000 / len(BARE), rel=0.05)
    with pytest.raises(SourceError, match="cannot be read as sound"):
        read(folder, rubbish)


def test_a_decoder_s_remarks_stay_off_stderr(folder: Path) -> None:
    damaged = bytearray(BARE)
    for place in range(500, len(damaged), 97):
        damaged[place] ^= 0x5A
    path = folder / "clip.mp3"
    path.write_bytes(bytes(damaged))
    script = (
        "import sys\nfrom edge.audio.sound_file import read_clip\n"
        "read_clip(sys.argv[1])\nprint('mine', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "mine\n"
    script = "import sys, soundfile; soundfile.read(sys.argv[1])"
    loud = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert re.search("mpg123", loud.stderr), "the file does not make the decoder talk"
