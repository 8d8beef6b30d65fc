"""Changed conditions have the levels and bands they say, and keep what is for scoring apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import Array
from edge.errors import UsageError
from train.recording_conditions import (
    SCORING_KINDS,
    Ambience,
    ChannelConfig,
    RecordingChannel,
    by_telephone,
    clipped,
    draw_channel,
    in_room,
    read_ambience,
    speech_level,
    with_noise,
    with_response,
)

RATE = 16_000


def tone(hz: float, seconds: float = 1.0) -> Array:
    samples: Array = (0.1 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )
    return samples


def noise(samples: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def rms(samples: Array) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def test_noise_is_as_far_below_the_speech_as_asked_whatever_the_pauses() -> None:
    speech = np.concatenate([np.zeros(RATE, np.float32), tone(200.0), np.zeros(RATE, np.float32)])
    added = with_noise(speech, 3.0 * noise(len(speech)), 20.0) - speech
    assert 20 * np.log10(rms(tone(200.0)) / rms(added)) == pytest.approx(20.0, abs=0.2)


def test_a_telephone_keeps_its_band_and_the_length() -> None:
    assert rms(by_telephone(tone(1000.0))) == pytest.approx(rms(tone(1000.0)), rel=0.1)
    assert rms(by_telephone(tone(100.0))) < 0.05 * rms(tone(100.0))
    assert rms(by_telephone(tone(5500.0))) < 0.05 * rms(tone(5500.0))
    assert len(by_telephone(tone(1000.0)[:12345])) == 12345


def test_a_room_adds_a_tail_and_keeps_the_level() -> None:
    response = np.zeros(4000, np.float32)
    response[[0, 3000]] = 1.0, 0.5
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    heard = in_room(click, response)
    assert heard[4000] == pytest.approx(0.5 * heard[1000], rel=1e-3)
    assert speech_level(in_room(tone(300.0), response)) == pytest.approx(speech_level(tone(300.0)), rel=1e-3)


def test_the_share_of_clipped_samples_is_as_asked() -> None:
    flat = clipped(noise(RATE), 0.05)
    assert np.mean(np.abs(flat) == np.abs(flat).max()) == pytest.approx(0.05, abs=0.002)


def test_a_flat_response_changes_nothing_and_a_falling_one_darkens() -> None:
    np.testing.assert_allclose(with_response(tone(1000.0), np.zeros(7, np.float32)), tone(1000.0), atol=1e-5)
    falling = np.linspace(0.0, -20.0, 7).astype(np.float32)
    assert rms(with_response(tone(7900.0), falling)) == pytest.approx(0.1 * rms(tone(7900.0)), rel=0.05)


def test_a_channel_without_conditions_changes_nothing_and_a_full_one_everything() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(RecordingChannel()(tone(300.0), rng), tone(300.0))
    full = ChannelConfig(speed=1.0, tilt=1.0, room=1.0, noise=1.0, telephone=1.0, clipping=1.0)
    ambience = Ambience((noise(RATE),), (noise(100),))
    for seed in range(20):
        heard = draw_channel(full, ambience, np.random.default_rng(seed))(tone(300.0, 0.5), rng)
        assert np.isfinite(heard).all()
        assert 0.9 * 8000 < len(heard) < 1.1 * 8000


def test_a_seed_gives_the_same_channel() -> None:
    ambience = Ambience((noise(RATE),), ())
    one, two = (draw_channel(ChannelConfig(), ambience, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(
        one(tone(300.0), np.random.default_rng(1)), two(tone(300.0), np.random.default_rng(1))
    )


def test_kinds_for_scoring_are_apart_from_those_for_training(tmp_path: Path) -> None:
    kept = sorted(SCORING_KINDS)[0]
    rows = [("a.wav", kept), ("b.wav", "Sea_waves"), ("c.wav", "impulse response: room-like")]
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "kind"), *rows])
    for place, (name, _) in enumerate(rows):
        soundfile.write(tmp_path / name, 0.1 * noise(800 * (place + 1)), RATE)
    scoring, training = (read_ambience(tmp_path, scoring=scoring) for scoring in (True, False))
    assert [len(item) for item in scoring.noises] == [800]
    assert [len(item) for item in training.noises] == [1600]
    assert [len(scoring.rooms), len(training.rooms)] == [0, 1]
    assert rms(training.rooms[0]) * np.sqrt(len(training.rooms[0])) == pytest.approx(1.0, rel=1e-5)


def test_a_missing_list_or_one_without_noises_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no list of noises"):
        read_ambience(tmp_path, scoring=True)
    (tmp_path / "manifest.csv").write_text("path,kind\n", "utf-8")
    with pytest.raises(UsageError, match="no noise to score with"):
        read_ambience(tmp_path, scoring=True)
