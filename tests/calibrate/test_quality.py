"""The quality gate: which takes are refused, and why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.quality import measure, refusal, setup_advice
from calibrate.take_limits import LONGEST_PROMPTED_S
from edge.arrays import Array
from tests.calibrate.session.synthetic_voices import LoudVoice, room, speech, tone

NOTHING = np.zeros(0, np.float32)


def music() -> Array:
    """A scale of tones like a piano's."""
    time_s = np.arange(5_600) / 16_000
    fade = np.exp(-3.0 * time_s) * np.minimum(1.0, 200.0 * time_s)
    notes = [
        fade * sum(np.sin(2.0 * np.pi * frequency * part * time_s) / part for part in range(1, 6))
        for frequency in (262, 294, 330, 349, 392, 440, 494, 523)
    ]
    return (0.1 * np.concatenate(notes)).astype(np.float32)


def test_clear_speech_passes() -> None:
    quality = measure(speech())
    assert refusal(quality) == setup_advice(quality) == ""
    assert quality.duration_s == 3.0
    assert 1.0 < quality.voice_s < 2.5


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (NOTHING, "Nothing was heard"),
        (np.zeros(48_000, np.float32), "Nothing was heard"),
        (np.full(48_000, 0.2, np.float32), "Nothing was heard"),
        (room(3.0), "Nothing was heard"),
        (room(3.0, 0.1), "No speech was heard"),
        (tone(3.0), "No speech was heard"),
        (music(), "No speech was heard"),
        (speech()[:19_000], "s of speech was heard: say the whole sentence"),
        (np.clip(speech(3.0), -1.0, 1.0), "clipping"),
        (np.clip(speech(100.0), -1.0, 1.0), "clipping"),
        (speech(0.01, 1e-5), "Too quiet"),
        (speech(0.3, 0.03), "Too much noise"),
        (np.tile(speech(), 8), "lasts more than 20 s"),
    ],
    ids=[
        *("empty", "silence", "offset", "room", "hiss", "tone", "music", "cut", "overdriven", "shouted"),
        *("faint", "noisy", "long"),
    ],
)
def test_an_unusable_take_is_refused_with_its_reason(sound: Array, reason: str) -> None:
    said = refusal(measure(sound))
    assert reason in said
    assert said.count(".") >= 1
    assert "\n" not in said


def test_speech_normalised_to_full_scale_does_not_count_as_clipped() -> None:
    assert refusal(measure(speech(1.0))) == ""


def test_levels_are_those_of_the_voice_and_of_the_background() -> None:
    sound = np.concatenate([room(1.0, 0.001), tone(2.0, 0.1), room(1.0, 0.001)])
    quality = measure(sound, LoudVoice())
    assert quality.level_dbfs == pytest.approx(-20.0, abs=0.2)
    assert quality.noise_dbfs == pytest.approx(-60.0, abs=0.5)
    assert quality.snr_db == pytest.approx(40.0, abs=0.7)
    assert quality.voice_s == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("amplitude", "hz"), [(0.05, 0.0), (0.3, 0.0), (0.02, 50.0), (0.02, 60.0), (0.05, 3.0)]
)
def test_an_offset_hum_and_rumble_change_nothing(amplitude: float, hz: float) -> None:
    added = amplitude * np.cos(2.0 * np.pi * hz * np.arange(len(speech())) / 16_000)
    plain = measure(speech(), LoudVoice())
    disturbed = measure((speech() + added).astype(np.float32), LoudVoice())
    assert disturbed.level_dbfs == pytest.approx(plain.level_dbfs, abs=0.1)
    assert disturbed.noise_dbfs == pytest.approx(plain.noise_dbfs, abs=1.0)


def test_the_setup_is_judged_independently_of_the_length() -> None:
    short = measure(speech()[:19_000])
    assert refusal(short)
    assert setup_advice(short) == ""


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.0, LONGEST_PROMPTED_S + 2.0),
    st.floats(0.0, 1.0),
    st.integers(0, 3),
)
def test_any_sound_is_measured_in_finite_numbers(seconds: float, level: float, seed: int) -> None:
    noise = level * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    quality = measure(noise.clip(-1, 1).astype(np.float32), LoudVoice())
    numbers = (quality.level_dbfs, quality.noise_dbfs, quality.snr_db, quality.loudest_dbfs)
    assert np.isfinite(numbers).all()
    assert 0.0 <= quality.clipped <= 1.0
    assert 0.0 <= quality.voice_s <= quality.duration_s + 0.032
    refusal(quality)
