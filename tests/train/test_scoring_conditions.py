"""Each condition changes the sound as it says, the same way each time, with noises kept out of training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import Array
from edge.errors import UsageError
from edge.labels import EMOTIONS
from tests.train.synthetic import SAMPLE_RATE, voice
from train.corpora import Clip
from train.evaluation import score_by_corpus
from train.recording_conditions import speech_level
from train.scoring_conditions import (
    CONDITIONS,
    DESCRIBED,
    coded,
    condition_scores,
    parse_conditions,
    quiet,
    recording_conditions,
    sounds_under,
)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise for scoring at 1 kHz, for training at 3 kHz, and a room for scoring."""
    folder = tmp_path_factory.mktemp("noise")
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    echo = np.zeros(SAMPLE_RATE // 2)
    echo[[0, 4000]] = 1.0, 0.8
    sounds = {
        "rain.wav": ("Rain", 0.1 * np.sin(2 * np.pi * 1000.0 * time)),
        "dog.wav": ("Dog_bark", 0.1 * np.sin(2 * np.pi * 3000.0 * time)),
        "omni-35-10.wav": ("impulse response: room-like", echo),
    }
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "kind"])
        for name, (kind, sound) in sounds.items():
            soundfile.write(folder / name, sound, SAMPLE_RATE)
            table.writerow([name, kind])
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("clip") / "a.wav"
    soundfile.write(path, voice(0, "happy", 0, 1.5), SAMPLE_RATE, subtype="FLOAT")
    return Clip(path, "made", "s0", "happy")


def changed(noise: Path, clip: Clip, name: str) -> Array:
    found = recording_conditions(noise, parse_conditions(name, with_ambience=True))
    (sound,) = sounds_under(found[name], [clip])  # type: ignore[index]
    return sound


def power_at(sound: Array, hz: float) -> float:
    phase = 2j * np.pi * hz * np.arange(len(sound)) / SAMPLE_RATE
    return float(abs(np.mean(sound * np.exp(-phase))) ** 2)


def test_every_condition_keeps_the_length_and_all_but_clean_change_the_sound(noise: Path, clip: Clip) -> None:
    clean = changed(noise, clip, "clean")
    assert set(DESCRIBED) == set(CONDITIONS)
    for name in CONDITIONS:
        sound = changed(noise, clip, name)
        assert sound.dtype == np.float32
        assert sound.shape == clean.shape
        assert np.isfinite(sound).all()
        assert np.array_equal(sound, clean) == (name == "clean")


def test_noise_is_of_the_kinds_for_scoring_and_ten_decibels_apart(noise: Path, clip: Clip) -> None:
    clean, little, much = (changed(noise, clip, name) for name in ("clean", "noise20", "noise10"))
    assert power_at(little - clean, 1000.0) > 100 * power_at(little - clean, 3000.0)
    np.testing.assert_allclose(much - clean, 10**0.5 * (little - clean), atol=1e-5)  # the same stretch
    level = np.sqrt(np.mean((much - clean) ** 2)) / speech_level(clean)
    assert 20 * np.log10(level) == pytest.approx(-10.0, abs=0.1)
    np.testing.assert_array_equal(much, changed(noise, clip, "noise10"))


def test_a_room_of_those_for_scoring_repeats_the_sound(noise: Path, clip: Clip) -> None:
    clean, room = changed(noise, clip, "clean"), changed(noise, clip, "room")
    echoed = clean + 0.8 * np.pad(clean, (4000, 0))[: len(clean)]
    assert np.corrcoef(room, echoed)[0, 1] > 0.999


def test_an_offset_and_a_low_level_are_what_they_say(noise: Path, clip: Clip) -> None:
    clean = changed(noise, clip, "clean")
    np.testing.assert_allclose(changed(noise, clip, "offset") - clean, 0.02, atol=1e-6)
    low = quiet(clean)
    np.testing.assert_allclose(low, 0.1 * clean, atol=0.5 / 32768 + 1e-7)
    np.testing.assert_array_equal(low * 32768, np.round(low * 32768))


@pytest.mark.parametrize("codec", ["mp3", "opus"])
@pytest.mark.parametrize("samples", [800, 24_000])
def test_a_codec_loses_detail_but_neither_time_nor_level(codec: str, samples: int) -> None:
    sound = voice(0, "happy", 0, samples / SAMPLE_RATE)
    heard = coded(sound, codec)  # type: ignore[arg-type]
    assert len(heard) == samples
    assert not np.array_equal(heard, sound)
    if samples > SAMPLE_RATE:
        assert np.corrcoef(heard, sound)[0, 1] > 0.8
        assert np.std(heard) == pytest.approx(np.std(sound), rel=0.3)


def test_conditions_are_parsed_in_their_order_with_clean_first() -> None:
    assert parse_conditions("offset, noise10", with_ambience=True) == ("clean", "noise10", "offset")
    with pytest.raises(UsageError, match="unknown condition 'rain'"):
        parse_conditions("rain", with_ambience=True)
    with pytest.raises(UsageError, match="twice"):
        parse_conditions("mp3,mp3", with_ambience=True)
    with pytest.raises(UsageError, match="add --noise FOLDER"):
        parse_conditions("mp3,room", with_ambience=False)


def test_a_folder_without_a_room_for_scoring_cannot_score_rooms(noise: Path, tmp_path: Path) -> None:
    rows = (noise / "manifest.csv").read_text().splitlines()
    kept = [rows[0], *(f"{noise}/{row}" for row in rows[1:] if "room" not in row)]
    (tmp_path / "manifest.csv").write_text("\n".join(kept))
    with pytest.raises(UsageError, match="no room that is kept for scoring"):
        recording_conditions(tmp_path, ["room"])
    assert set(recording_conditions(tmp_path, ["noise20"])) == {"noise20"}


def test_the_loss_is_against_clean_sound_and_the_mean_over_trained_corpora() -> None:
    clips = [Clip(Path("a"), corpus, "s", emotion) for corpus in ("p", "q") for emotion in EMOTIONS]
    right = np.tile(np.eye(4, dtype=np.float32), (2, 1))
    wrong = right.copy()
    wrong[[0, 4, 5]] = right[[1, 5, 6]]
    scores = condition_scores(score_by_corpus(clips, right), score_by_corpus(clips, wrong))
    assert scores.uar == {"p": 75.0, "q": 50.0}
    assert scores.loss == {"p": 25.0, "q": 50.0}
    assert scores.mean(["p", "elsewhere"]) == (75.0, 25.0)
    assert scores.mean([]) == (62.5, 37.5)
