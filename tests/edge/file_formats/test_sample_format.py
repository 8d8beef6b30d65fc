"""The demo clip and made noise in every format that soundfile writes without a header."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.audio.sources import demo_clip
from edge.file_formats.sample_format import DECIDED_AFTER, NOISE, PAIRS, WINDOW_BYTES, SampleFormatCheck


def encoded(samples: Array, subtype: str, endian: str = "LITTLE") -> bytes:
    """Write (N,) or (N, channels) samples without a header."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="RAW", subtype=subtype, endian=endian)
    return file.getvalue()


def found(data: bytes, piece: int = 10_000_000) -> str | None:
    """Return the format that the check names for a stream in blocks; it names one once."""
    check = SampleFormatCheck()
    said = [check.feed(data[start : start + piece]) for start in range(0, len(data), piece)]
    names = [name for name in said if name]
    assert len(names) <= 1
    return names[0] if names else None


@pytest.fixture(scope="module")
def speech() -> Array:
    clip = read_clip(demo_clip())
    scaled: Array = 0.5 * clip / np.abs(clip).max()
    return scaled


def both(first: float, second: float) -> Callable[[Array], Array]:
    return lambda samples: np.stack([first * samples, second * samples], axis=1)


def two_microphones(samples: Array) -> Array:
    random = np.random.default_rng(0)
    pair = np.stack([samples, 0.8 * np.roll(samples, 4)], axis=1)
    return (pair + random.normal(0.0, 0.002, pair.shape)).astype(np.float32)


WRONG = [
    ("big-endian 16-bit samples", lambda samples: encoded(samples, "PCM_16", "BIG")),
    ("packed 24-bit samples", lambda samples: encoded(samples, "PCM_24")),
    (PAIRS, lambda samples: encoded(samples, "PCM_32")),
    ("32-bit floats", lambda samples: encoded(samples, "FLOAT")),
    ("big-endian 32-bit floats", lambda samples: encoded(samples, "FLOAT", "BIG")),
    ("64-bit floats", lambda samples: encoded(samples, "DOUBLE")),
    ("unsigned 8-bit samples", lambda samples: encoded(samples, "PCM_U8")),
    ("signed 8-bit samples", lambda samples: encoded(samples, "PCM_S8")),
    ("mu-law", lambda samples: encoded(samples, "ULAW")),
    ("A-law", lambda samples: encoded(samples, "ALAW")),
    (PAIRS, lambda samples: encoded(both(1.0, 1.0)(samples), "PCM_16")),
    (PAIRS, lambda samples: encoded(both(1.0, 0.0)(samples), "PCM_16")),
    (PAIRS, lambda samples: encoded(both(0.0, 1.0)(samples), "PCM_16")),
    (PAIRS, lambda samples: encoded(both(1.0, -1.0)(samples), "PCM_16")),
    (PAIRS, lambda samples: encoded(two_microphones(samples), "PCM_16")),
    (NOISE, lambda samples: np.random.default_rng(0).bytes(200_000)),
]


@pytest.mark.parametrize(("name", "sent"), WRONG)
def test_a_wrong_sample_format_is_named(speech: Array, name: str, sent: Callable[[Array], bytes]) -> None:
    assert found(sent(speech)) == name


@pytest.mark.parametrize("level", [0.03, 0.3, 1.0, 3.0])
def test_speech_as_declared_is_not_doubted_at_any_level(speech: Array, level: float) -> None:
    assert found(encoded(np.clip(level * speech, -1.0, 1.0), "PCM_16")) is None


def tone(*frequencies_hz: float) -> Array:
    phases = 2 * np.pi * np.outer(frequencies_hz, np.arange(6 * 16_000) / 16_000)
    samples: Array = (0.6 * np.sin(phases).mean(axis=0)).astype(np.float32)
    return samples


def noise(exponent: float) -> Array:
    """Six seconds whose power falls with frequency to an exponent: 0 is white, 1 pink, 2 brown, -1 blue."""
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(0.0, 1.0, 6 * 16_000))
    frequencies = np.maximum(1.0, np.arange(len(spectrum)))
    samples = np.fft.irfft(spectrum * frequencies ** (-exponent / 2.0))
    clipped: Array = np.clip(0.15 * samples / samples.std(), -1.0, 1.0).astype(np.float32)
    return clipped


SOUNDS = {
    **{
        f"tone at {frequency_hz} Hz": tone(frequency_hz)
        for frequency_hz in (50, 440, 2_000, 3_999, 4_000, 5_274)
    },
    **{f"tone at {frequency_hz} Hz": tone(frequency_hz) for frequency_hz in (6_500, 7_000, 7_500, 7_900)},
    "chord": tone(262, 330, 392, 2_093, 5_274),
    "square": 0.5 * np.sign(tone(100)),
    **{f"noise {exponent}": noise(exponent) for exponent in (-1.0, 0.0, 1.0, 2.0)},
    "loud noise": np.clip(4.0 * noise(0.0), -1.0, 1.0),
    "clicks": np.where(np.arange(96_000) % 1_601 < 3, 0.9, 0.0).astype(np.float32),
    "offset": np.full(96_000, 0.3, np.float32),
    "offset and speech-like noise": 0.3 + 0.5 * noise(2.0),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_tones_noise_and_offset_are_not_doubted(name: str) -> None:
    assert found(encoded(SOUNDS[name], "PCM_16")) is None


def test_silence_is_no_evidence_and_what_follows_it_is(speech: Array) -> None:
    quiet = bytes(10 * WINDOW_BYTES)
    assert found(quiet) is None
    assert found(quiet + encoded(speech, "PCM_16", "BIG")) == "big-endian 16-bit samples"


@settings(max_examples=10, deadline=None)
@given(piece=st.integers(100, 20_000))
def test_the_verdict_does_not_depend_on_the_pieces(speech: Array, piece: int) -> None:
    assert found(encoded(speech, "FLOAT"), piece) == "32-bit floats"
    assert found(encoded(speech, "PCM_16"), piece) is None


def test_the_check_ends(speech: Array) -> None:
    check, good = SampleFormatCheck(), encoded(np.tile(speech, 6), "PCM_16")
    assert check.feed(good) is None
    assert len(good) > 2 * DECIDED_AFTER[-1] * WINDOW_BYTES
    assert check.feed(np.random.default_rng(0).bytes(len(good))) is None
