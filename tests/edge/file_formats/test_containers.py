"""Files of every format that soundfile writes: wrong headers, joined, truncated, with extra chunks."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import SAMPLE_RATE, Array
from edge.audio.sound_file import BLOCK_S, SoundFile, read_clip
from edge.errors import SoundWarning, SourceError

FRAMES = 16_001
"""An odd number: the last of an 8-bit chunk needs padding."""


def tone(frequency_hz: float, frames: int = FRAMES) -> Array:
    return (0.4 * np.sin(2 * np.pi * frequency_hz * np.arange(frames) / SAMPLE_RATE)).astype(np.float32)


FIRST, SECOND = tone(300.0), tone(500.0)


def written(form: str, subtype: str = "PCM_16", samples: Array = FIRST, rate: int = SAMPLE_RATE) -> bytes:
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=form) as sound:
        sound.write(samples)
    return file.getvalue()


class Unsought(soundfile.SoundFile):  # type: ignore[misc]
    """Libsndfile alone: soundfile seeks after each block, which not all decoders can."""

    def seekable(self) -> bool:
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, content: bytes) -> Array:
    """Read a file and check that nothing is missing; its name does not show the format."""
    path = folder / "clip.bin"
    path.write_bytes(content)
    return read_clip(path)


def recordings(folder: Path, content: bytes) -> tuple[list[Array], SoundFile]:
    """Read a file's streams without conversion."""
    path = folder / "clip.bin"
    path.write_bytes(content)
    with SoundFile(path) as file:
        found = [np.concatenate(list(recording.blocks(BLOCK_S)))[:, 0] for recording in file.streams()]
    return found, file


def can_write(form: str, subtype: str, channels: int) -> bool:
    """Tell whether libsndfile writes this, and as a file that any program reads alike.

    RAW has no header, SD2 needs two files, and GSM has a block behind its end.
    """
    if form in ("RAW", "SD2") or subtype == "GSM610":
        return False
    try:
        written(form, subtype, np.zeros((1_000, channels), np.float32), 8_000)
    except soundfile.SoundFileError:
        return False
    return True


ALL = [
    (form, subtype, channels)
    for form in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(form)
    for channels in (1, 2)
    if can_write(form, subtype, channels)
]


def test_most_formats_are_tried() -> None:
    assert len(ALL) > 150


@pytest.mark.parametrize(("form", "subtype", "channels"), ALL)
def test_a_good_file_reads_as_libsndfile_alone_reads_it(
    folder: Path, form: str, subtype: str, channels: int
) -> None:
    rate = 8_000 if form == "WVE" else SAMPLE_RATE
    samples = FIRST if channels == 1 else np.stack([FIRST, SECOND], axis=1)
    content = written(form, subtype, samples, rate)
    (folder / f"clip.{form.lower()}").write_bytes(content)
    with Unsought(folder / f"clip.{form.lower()}") as sound:
        expected = sound.read(20_000, dtype="float32", always_2d=True)
    (found,), file = recordings(folder, content)
    np.testing.assert_array_equal(found, expected[:, 0])
    assert file.warning is None
    file.finish()


# Sizes that are wrong

WAV = written("WAV")
DATA = WAV.index(b"data") + 8


def wav(size: int, form_size: int | None = None, before: bytes = b"", sound: bytes = WAV[DATA:]) -> bytes:
    """A WAV file whose header states any size, with chunks before its sound."""
    stated = size if form_size is None else form_size
    head = b"RIFF" + struct.pack("<I", stated) + WAV[8:36] + before
    return head + b"data" + struct.pack("<I", size) + sound


def junk(size: int, padded: bool = True) -> bytes:
    return b"JUNK" + struct.pack("<I", size) + b"j" * size + (b"\0" if padded and size % 2 else b"")


OPEN = [0, 0xFFFF_FFFF, 0xFFFF_FFFE, 0x7FFF_FFFF, 0x8000_0000, 0x7FFF_F000, 0xFFFF_FFFF - 36]


@pytest.mark.parametrize("size", OPEN)
@pytest.mark.parametrize("before", [b"", junk(28), junk(7), junk(7, padded=False), junk(5) + junk(4_000)])
def test_a_wav_header_that_was_not_completed_is_read_to_the_end(
    folder: Path, size: int, before: bytes
) -> None:
    np.testing.assert_array_equal(read(folder, wav(size, before=before)), read(folder, WAV))
    np.testing.assert_array_equal(read(folder, wav(size, 0, before)), read(folder, WAV))


def test_a_size_that_was_right_before_the_recorder_stopped_is_not_trusted(folder: Path) -> None:
    np.testing.assert_array_equal(read(folder, wav(2 * 4_000)), read(folder, WAV))


@pytest.mark.parametrize(
    "behind", [b"", b"LIST\x04\0\0\0INFO", b"id3 \x06\0\0\0ID3\x04\0\0", junk(301), b"\0", bytes(500)]
)
def test_chunks_and_a_little_rubbish_behind_the_sound_are_not_sound(folder: Path, behind: bytes) -> None:
    np.testing.assert_array_equal(read(folder, wav(len(WAV) - DATA) + behind), read(folder, WAV))


@pytest.mark.parametrize("padded", [True, False])
def test_an_odd_number_of_bytes_with_or_without_padding(folder: Path, padded: bool) -> None:
    content = written("WAV", "PCM_U8")
    expected = read(folder, content)
    assert len(expected) == FRAMES
    sound = content[: content.index(b"data") + 8 + FRAMES]
    behind = (b"\0" if padded else b"") + b"LIST\x04\0\0\0INFO"
    np.testing.assert_array_equal(read(folder, sound + behind), expected)


def test_a_header_alone_holds_no_samples(folder: Path) -> None:
    for size in OPEN:
        with pytest.raises(SourceError, match="holds no samples"):
            read(folder, wav(size, sound=b""))
    with pytest.raises(SourceError, match="holds no samples"):
        read(folder, wav(0, sound=b"LIST\x04\0\0\0INFO"))


def test_a_file_shorter_than_it_states_is_read_and_the_rest_is_missed(folder: Path) -> None:
    (found,), file = recordings(folder, wav(2 * FRAMES, sound=WAV[DATA : DATA + 2 * 4_000]))
    assert len(found) == 4_000
    assert file.warning is not None
    assert file.warning.what == "length"
    assert file.warning.lost_s == pytest.approx((FRAMES - 4_000) / SAMPLE_RATE)
    assert file.warning.message.startswith("0.75 s of the file are missing")


def patched(content: bytes, at: int, form: str, *values: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


AIFF, AU, CAF, W64, RF64 = (written(form) for form in ("AIFF", "AU", "CAF", "W64", "RF64"))
RIFX = b"RIFX" + WAV[7:3:-1] + WAV[8:16] + WAV[19:15:-1] + b"\0\1\0\1" + WAV[27:23:-1] + WAV[31:27:-1]
RIFX += b"\0\2\0\x10data" + WAV[43:39:-1] + np.frombuffer(WAV[DATA:], "<i2").astype(">i2").tobytes()

LYING = {
    **{f"AIFF {size:x}": patched(AIFF, AIFF.index(b"SSND") + 4, ">I", size) for size in OPEN},
    "AIFF count 0": patched(AIFF, AIFF.index(b"COMM") + 10, ">I", 0),
    **{f"AU {size:x}": patched(AU, 8, ">I", size) for size in OPEN},
    **{f"CAF {size}": patched(CAF, CAF.index(b"data") + 4, ">q", size) for size in (-1, 0, 2**63 - 1)},
    **{f"W64 {size:x}": patched(W64, W64.index(b"data") + 16, "<Q", size) for size in (0, 24, 2**63)},
    **{
        f"RF64 {size:x}": patched(RF64, RF64.index(b"ds64") + 8, "<QQQ", size, size, size)
        for size in (0, 2**63, 0xFFFF_FFFF_FFFF_FFFF)
    },
    **{f"RIFX {size:x}": patched(RIFX, 40, ">I", size) for size in OPEN},
}


@pytest.mark.parametrize("name", LYING)
def test_a_header_of_any_container_that_was_not_completed_is_read_to_the_end(folder: Path, name: str) -> None:
    np.testing.assert_array_equal(read(folder, LYING[name]), read(folder, WAV))


def test_a_file_of_more_than_4_gib_is_read_to_its_end(folder: Path) -> None:
    """The file is nearly all hole; only its last second is decoded here."""
    path = folder / "long.wav"
    with path.open("wb") as file:
        file.write(wav(0xFFFF_FFFF)[:DATA])
        file.seek(5 << 30)
        file.write(WAV[DATA:])
    with SoundFile(path) as sound:
        decoder = next(iter(sound.streams()))._file
        assert decoder.frames == (5 * 2**30 + 2 * FRAMES - DATA) // 2
        decoder.seek(decoder.frames - FRAMES)
        np.testing.assert_array_equal(decoder.read(2 * FRAMES, dtype="float32"), read(folder, WAV))


# Files that were joined

MP3 = written("MP3", "MPEG_LAYER_III")
KINDS = {
    "WAV": WAV,
    "WAV of unknown length": wav(0xFFFF_FFFF),
    "WAV with chunks": wav(len(WAV) - DATA) + b"LIST\x04\0\0\0INFO",
    "AIFF": AIFF,
    "AU": AU,
    "AU of unknown length": patched(AU, 8, ">I", 0xFFFF_FFFF),
    "CAF": CAF,
    "W64": W64,
    "RF64": RF64,
    "FLAC": written("FLAC"),
    "Ogg Vorbis": written("OGG", "VORBIS"),
    "Ogg Opus": written("OGG", "OPUS"),
    "MP3": MP3,
}


@pytest.mark.parametrize("second", ["WAV", "FLAC", "same"])
@pytest.mark.parametrize("first", KINDS)
def test_joined_files_are_read_one_after_the_other(folder: Path, first: str, second: str) -> None:
    contents = [KINDS[first], KINDS[first if second == "same" else second]]
    expected = np.concatenate([read(folder, content) for content in contents])
    found = read(folder, b"".join(contents))
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_joined_files_may_differ_in_rate_and_channels(folder: Path) -> None:
    other = written("WAV", "PCM_24", np.stack([SECOND, SECOND], axis=1), 44_100)
    both = read(folder, WAV + other)
    np.testing.assert_array_equal(both, np.concatenate([read(folder, WAV), read(folder, other)]))


def test_many_links_of_an_ogg_chain_are_read(folder: Path) -> None:
    links = [written("OGG", "VORBIS", tone(200.0 + number, 4_000)) for number in range(20)]
    assert len(read(folder, b"".join(links))) == 20 * 4_000


def test_what_follows_damage_is_read_and_the_loss_is_said(folder: Path) -> None:
    flac = KINDS["FLAC"]
    parts, file = recordings(folder, flac[: len(flac) // 2] + flac)
    assert len(parts) == 2
    np.testing.assert_array_equal(parts[1], recordings(folder, flac)[0][0])
    assert file.warning is not None
    assert file.warning.lost_s == pytest.approx((FRAMES - len(parts[0])) / SAMPLE_RATE)
    with pytest.raises(
        SourceError, match=r"damaged or cut off after 0\.\d\d s \(.*\), 0\.\d\d s cannot be read"
    ):
        file.finish()


# FLAC and Ogg


def unknown(flac: bytes) -> bytes:
    """A FLAC file as one written to a pipe: no number of frames and no checksum in its header."""
    changed = bytearray(flac)
    changed[21] &= 0xF0
    changed[22:42] = bytes(20)
    return bytes(changed)


def test_flac_of_unknown_length_is_read_to_its_end(folder: Path) -> None:
    flac = KINDS["FLAC"]
    np.testing.assert_array_equal(read(folder, unknown(flac)), read(folder, flac))
    np.testing.assert_array_equal(read(folder, 2 * unknown(flac)), read(folder, 2 * flac))


def test_a_tag_behind_flac_is_not_damage(folder: Path) -> None:
    flac = KINDS["FLAC"]
    np.testing.assert_array_equal(read(folder, flac + b"TAG" + bytes(125)), read(folder, flac))


@pytest.mark.parametrize("kind", ["Ogg Vorbis", "Ogg Opus"])
def test_half_an_ogg_file_is_read_as_far_as_its_pages_go(folder: Path, kind: str) -> None:
    _, subtype = kind.upper().split()
    content = written("OGG", subtype, np.tile(FIRST, 8))
    (found,), file = recordings(folder, content[: len(content) * 3 // 4])
    assert 4 * FRAMES < len(found) < 8 * FRAMES
    assert file.warning is not None
    assert 0.05 < file.warning.lost_s < 2.0, "the page that was cut off"


def test_another_stream_between_the_pages_of_the_sound_is_passed_over(folder: Path) -> None:
    ogg = KINDS["Ogg Vorbis"]
    second = ogg.index(b"OggS", 4)
    other = bytearray(ogg[:second])
    struct.pack_into("<I", other, 14, 77)
    other[28:] = bytes(len(other) - 28)
    found = read(folder, ogg[:second] + bytes(other) + ogg[second:])
    np.testing.assert_array_equal(found, read(folder, ogg))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_cut_off_in_its_header_is_refused_or_holds_nothing_much(folder: Path, kind: str) -> None:
    for length in range(1, 80):
        with contextlib.suppress(SourceError, SoundWarning):
            assert len(read(folder, KINDS[kind][:length])) < 100


# Failures to read


def test_a_disk_that_fails_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.file_formats import section_reader

    reads = iter(range(1_000))
    real = section_reader.SectionReader._read

    def failing(reader: section_reader.SectionReader, index: int, count: int) -> bytes:
        if next(reads) > 20:
            raise OSError(5, "Input/output error")
        return real(reader, index, count)

    monkeypatch.setattr(section_reader.SectionReader, "_read", failing)
    with pytest.raises(
        SourceError, match=r"after 0\.\d\d s \(Input/output error\), \d\.\d\d s cannot be read"
    ):
        read(folder, WAV + WAV)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    cut=st.floats(0.0, 1.0),
    behind=st.binary(max_size=3_000),
    again=st.booleans(),
)
def test_any_cut_with_anything_behind_it_is_heard_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, cut: float, behind: bytes, again: bool
) -> None:
    content = KINDS[kind]
    content = content[: round(cut * len(content))] + behind + (content if again else b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SoundWarning)
        try:
            samples = read(tmp_path_factory.getbasetemp(), content)
        except SourceError:
            return
    assert len(samples) <= 2.5 * FRAMES + len(behind)
