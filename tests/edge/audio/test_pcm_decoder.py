from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.audio.pcm_decoder import PcmDecoder
from edge.errors import SourceError
from edge.file_formats.signatures import LONGEST_BEGINNING, NETWORK


def feed_all(raw: PcmDecoder, data: bytes, piece: int) -> None:
    for start in range(0, len(data), piece):
        raw.feed(data[start : start + piece])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_bytes_become_the_same_samples_however_they_are_cut(sizes: list[int]) -> None:
    expected = np.random.default_rng(0).integers(-32_768, 32_768, 500, dtype=np.int16)
    data, raw, heard, at = expected.astype("<i2").tobytes() + b"\x7f", PcmDecoder(), [], 0
    while at < len(data):
        for size in sizes:
            heard.append(raw.feed(data[at : at + size]))
            at += size
    np.testing.assert_array_equal(np.concatenate(heard)[:, 0], expected / np.float32(32_768))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_interleaved_channels_become_frames_however_their_bytes_are_cut(sizes: list[int]) -> None:
    expected = np.random.default_rng(0).integers(-32_768, 32_768, (200, 3), dtype=np.int16)
    data, raw, heard, at = expected.astype("<i2").tobytes() + b"\x01\x02\x03", PcmDecoder(channels=3), [], 0
    while at < len(data):
        for size in sizes:
            heard.append(raw.feed(data[at : at + size]))
            at += size
    np.testing.assert_array_equal(np.concatenate(heard), expected / np.float32(32_768))


def test_the_format_of_several_channels_is_not_doubted() -> None:
    raw = PcmDecoder(channels=2)
    raw.feed(np.random.default_rng(0).bytes(400_000))
    assert raw.take_warning() is None


@pytest.mark.parametrize("piece", [1, 3, 16, 4_096])
def test_a_signature_is_refused_however_its_bytes_are_cut(piece: int) -> None:
    data, raw = b"\x1a\x45\xdf\xa3" + bytes(60), PcmDecoder(" on standard input")
    with pytest.raises(SourceError, match=r"compressed sound arrived on standard input \(WebM or Matroska\)"):
        feed_all(raw, data, piece)


def test_frames_are_refused_once_enough_of_them_have_come() -> None:
    frame = bytes.fromhex("fffb9000") + bytes(413)
    with pytest.raises(
        SourceError, match=r"a sound file arrived \(MP3\), expected raw s16le mono: decode it"
    ):
        feed_all(PcmDecoder(), 12 * frame, len(frame))


def test_a_remedy_of_its_own_replaces_the_usual_one() -> None:
    with pytest.raises(SourceError, match=r"a network protocol arrived \(HTTP\).*: go away"):
        PcmDecoder("", {NETWORK: "go away"}).feed(b"GET / HTTP/1.1\r\n")


def test_a_signature_in_the_middle_of_the_sound_is_sound() -> None:
    raw = PcmDecoder()
    raw.feed(bytes(LONGEST_BEGINNING))
    assert len(raw.feed(b"RIFF" * 100)) == 200


def test_a_caution_about_the_format_is_taken_once() -> None:
    raw = PcmDecoder(" on standard input")
    assert raw.take_warning() is None
    raw.feed(np.random.default_rng(0).bytes(100_000))
    warning = raw.take_warning()
    assert warning is not None
    assert warning.what == "format"
    assert warning.message.startswith("the sound on standard input looks like noise at full scale")
    assert warning.lost_s == 0.0
    assert raw.take_warning() is None
