"""Every byte string here is written out, or made by soundfile: no recordings."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.file_formats.signatures import LONGEST_BEGINNING, MEDIA, NETWORK, OTHER, READABLE, find_signature

BEGINNINGS: list[tuple[str, str, bytes]] = [
    ("WAV", READABLE, b"RIFF\x24\0\0\0WAVEfmt "),
    ("WAV", READABLE, b"RIFX\0\0\0\x24WAVEfmt "),
    ("WAV", READABLE, b"RF64\xff\xff\xff\xffWAVEds64"),
    ("WAV", READABLE, b"BW64\xff\xff\xff\xffWAVEds64"),
    ("Wave64", READABLE, bytes.fromhex("726966662e91cf11a5d628db04c10000")),
    ("AIFF", READABLE, b"FORM\0\0\0\x24AIFFCOMM"),
    ("AU", READABLE, b".snd\0\0\0\x18"),
    ("AU", READABLE, b"dns.\x18\0\0\0"),
    ("CAF", READABLE, b"caff\0\x01\0\0desc"),
    ("FLAC", READABLE, b"fLaC\0\0\0\x22"),
    ("Ogg", READABLE, b"OggS\0\x02"),
    ("MP3 with an ID3 tag", READABLE, b"ID3\x04\0\0\0\0\x08\0"),
    ("WebM or Matroska", MEDIA, bytes.fromhex("1a45dfa39f4286810142f781")),
    ("WebM or Matroska", MEDIA, bytes.fromhex("1f43b67501ffffffffffffff")),
    ("MP4, M4A or QuickTime", MEDIA, b"\0\0\0\x1cftypM4A \0\0\x02\0"),
    ("MP4, M4A or QuickTime", MEDIA, b"\0\0\0\x14ftypqt  \0\0\0\0"),
    ("MP4, M4A or QuickTime", MEDIA, b"\0\0\0\x18stypmsdh"),
    ("MP4, M4A or QuickTime", MEDIA, b"\0\0\x01\xf0moof\0\0\0\x10mfhd"),
    ("AMR", MEDIA, b"#!AMR\n<\x91\x17"),
    ("AMR", MEDIA, b"#!AMR-WB\n"),
    ("WavPack", MEDIA, b"wvpk\x94\0\0\0\x10\x04"),
    ("Monkey's Audio", MEDIA, b"MAC \x96\x0f\0\0"),
    ("Musepack", MEDIA, b"MPCKSH\x0f"),
    ("Musepack", MEDIA, b"MP+\x07\0\0"),
    ("WMA or ASF", MEDIA, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")),
    ("AC-3 or E-AC-3", MEDIA, bytes.fromhex("0b7745e11c40e1dc3000")),
    ("AC-3 or E-AC-3", MEDIA, bytes.fromhex("0b7700bf3f865fff")),
    ("DTS", MEDIA, bytes.fromhex("7ffe8001fc3cf0340f")),
    ("FLV or NUT", MEDIA, b"nut/multimedia container\0NM"),
    ("FLV or NUT", MEDIA, b"FLV\x01\x04\0\0\0\x09"),
    ("gzip", OTHER, bytes.fromhex("1f8b0800000000000003")),
    ("ZIP", OTHER, b"PK\x03\x04\x14\0"),
    ("bzip2, xz, Zstandard, 7z or RAR", OTHER, b"BZh91AY&SY"),
    ("bzip2, xz, Zstandard, 7z or RAR", OTHER, bytes.fromhex("28b52ffd2400")),
    ("a picture", OTHER, b"\x89PNG\r\n\x1a\n"),
    ("a picture", OTHER, b"\xff\xd8\xff\xe0\0\x10JFIF"),
    ("PDF", OTHER, b"%PDF-1.7\n"),
    ("a NumPy array", OTHER, b"\x93NUMPY\x01\0v\0"),
    ("HTTP", NETWORK, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("HTTP", NETWORK, b"POST /asr HTTP/1.1\r\nHost: localhost\r\n"),
    ("HTTP", NETWORK, b"HTTP/1.1 200 OK\r\n"),
    ("HTTP", NETWORK, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("TLS", NETWORK, bytes.fromhex("16030102000100") + bytes(20)),
    ("SSH", NETWORK, b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("JSON", OTHER, b'{"type":"audio-start","data":{"rate":16000}}\n'),
    ("JSON", OTHER, b'[\n  {\n    "rate": 16000'),
    ("JSON", OTHER, b'\xef\xbb\xbf{"rate": 16000}'),
    ("XML or HTML", OTHER, b"<!DOCTYPE html>"),
    ("text", OTHER, b"0.013, -0.024, 0.5, 0.1, " * 4),
    ("text", OTHER, b"UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAAAAAAAAAAAAAAAAAAA"),
]


@pytest.mark.parametrize(("name", "kind", "beginning"), BEGINNINGS)
def test_what_is_not_raw_sound_is_named_by_its_first_bytes(name: str, kind: str, beginning: bytes) -> None:
    signature = find_signature(beginning + bytes(range(200)))
    assert signature is not None
    assert (signature.name, signature.kind) == (name, kind)


def frames(header: str, length: int, count: int) -> bytes:
    """Frames of MP3 or AAC by their header, with a body that matches no signature."""
    return (bytes.fromhex(header) + bytes(length - len(header) // 2)) * count


def transport_stream() -> bytes:
    return (bytes.fromhex("47400010") + bytes(184)) * 30


FRAMED: list[tuple[str, bytes]] = [
    ("MP3", frames("fffb9000", 417, 12)),  # version 1, 44.1 kHz, 128 kbit/s
    ("MP3", frames("fff34864", 144, 40)),  # version 2, 16 kHz mono, 32 kbit/s
    ("MP3", frames("fffd8404", 384, 12)),  # layer II, 48 kHz, 128 kbit/s
    ("AAC", frames("fff15080082ffc", 65, 80)),
    ("MPEG transport stream", transport_stream()),
]


@pytest.mark.parametrize(("name", "stream"), FRAMED)
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_stream_of_frames_is_recognised_also_from_its_middle(name: str, stream: bytes, cut: int) -> None:
    signature = find_signature(stream[cut : cut + LONGEST_BEGINNING])
    assert signature is not None
    assert signature.name == name


def test_mp3_as_an_encoder_writes_it_is_recognised() -> None:
    file = io.BytesIO()
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000)
    soundfile.write(file, sound, 16_000, format="MP3")
    signature = find_signature(file.getvalue()[:LONGEST_BEGINNING])
    assert signature is not None
    assert signature.name == "MP3"


@pytest.mark.parametrize(("name", "stream"), FRAMED)
def test_a_mark_without_the_frames_that_must_follow_is_sound(name: str, stream: bytes) -> None:
    sound = np.random.default_rng(1).integers(-9_000, 9_000, LONGEST_BEGINNING // 2, dtype=np.int16).tobytes()
    assert find_signature(stream[:8] + sound[8:]) is None


@given(st.binary(max_size=LONGEST_BEGINNING), st.integers(0, 2_000))
def test_no_bytes_break_it(data: bytes, start: int) -> None:
    find_signature((b"\xff\xfb\x90\x00" + data)[start:])


SILENCES: list[bytes] = [
    value * LONGEST_BEGINNING for value in (b"\0", b"\xff", b"\x01\0", b"\xfb\xff", b"\0\x80")
]


@pytest.mark.parametrize("silence", SILENCES)
def test_silence_and_offsets_are_sound(silence: bytes) -> None:
    assert find_signature(silence[:LONGEST_BEGINNING]) is None


def pcm(samples: Array) -> bytes:
    return np.clip(32_768 * samples, -32_768, 32_767).astype("<i2").tobytes()


def test_no_piece_of_speech_or_noise_at_any_level_is_refused() -> None:
    """Each stretch of the demo and of noise could be the beginning of a stream."""
    random = np.random.default_rng(0)
    sounds: list[Array] = [read_clip(demo_clip()), *random.normal(0.0, 0.2, (2, 80_000)).astype(np.float32)]
    for sound in sounds:
        for level in (1.0, 0.1, 0.003):
            data = pcm(level * sound)
            starts = range(0, len(data) - LONGEST_BEGINNING, 254)
            assert [find_signature(data[start : start + LONGEST_BEGINNING]) for start in starts] == [
                None
            ] * len(starts)
