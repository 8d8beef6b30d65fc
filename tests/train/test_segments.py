from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.features.frontend import FrontEnd, filtered, power_spectrogram
from edge.features.normaliser import Normaliser
from tests.tolerances import float32_tolerance, largest
from tests.train.synthetic import SAMPLE_RATE, make_spectra, voice
from train.corpora import Clip
from train.segments import (
    Spectra,
    fit_normalisation,
    network_input,
    normalised,
    read_spectra,
    segment_starts,
)

FRONT_END = FrontEnd()


def clip_of(path: Path, seconds: float, emotion: str = "happy") -> Clip:
    soundfile.write(path, voice(1, emotion, 0, seconds), SAMPLE_RATE, subtype="FLOAT")
    return Clip(path=path, corpus="made", speaker="s1", emotion=emotion)


def test_what_is_trained_on_is_what_the_deployed_normaliser_gives(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav", 4.0)
    (spectra,) = read_spectra([clip], FRONT_END, 49)
    normalisation = fit_normalisation([spectra, *make_spectra(2)])
    deployed = Normaliser(normalisation.levels, normalisation.statistics)
    expected = deployed(power_spectrogram(filtered(voice(1, "happy", 0, 4.0), FRONT_END), FRONT_END))
    trained = normalised(spectra, normalisation)
    assert trained.dtype == np.float32
    assert trained.shape == expected.shape
    # float16 keeps a logarithm below 16 to 0.004, one below 32 to 0.008
    assert np.abs((trained - expected) * normalisation.statistics.std).max() < 0.009


def test_the_normaliser_in_pieces_gives_the_same_too() -> None:
    (spectra, *others) = make_spectra(2)
    normalisation = fit_normalisation([spectra, *others])
    deployed = Normaliser(normalisation.levels, normalisation.statistics)
    pieces = [deployed(spectra.power(start, start + 7)) for start in range(0, spectra.frames, 7)]
    whole = normalised(spectra, normalisation)
    tolerance = float32_tolerance(200 + spectra.frames, largest(whole))  # a frame's level, and all before
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=tolerance)


def test_power_survives_its_storage_within_a_percent(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav", 1.0)
    (spectra,) = read_spectra([clip], FRONT_END, 49)
    power = power_spectrogram(filtered(voice(1, "happy", 0, 1.0), FRONT_END), FRONT_END)
    np.testing.assert_allclose(spectra.power(), power, rtol=0.009)
    np.testing.assert_array_equal(spectra.power(10, 20), spectra.power()[10:20])


def test_a_clip_too_short_for_the_network_is_completed_with_silence(tmp_path: Path) -> None:
    (spectra,) = read_spectra([clip_of(tmp_path / "a.wav", 0.3)], FRONT_END, 49)
    assert spectra.frames == 49
    assert spectra.power(40).max() < 1e-11 < spectra.power(0, 20).max()


def test_silence_is_read_and_normalised_without_harm(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    clip = Clip(path=tmp_path / "a.wav", corpus="made", speaker="s1", emotion="sad")
    (spectra,) = read_spectra([clip], FRONT_END, 49)
    assert np.isfinite(normalised(spectra, fit_normalisation(make_spectra(1)))).all()


def test_the_training_set_has_no_mean_and_unit_deviation_in_every_bin() -> None:
    spectra = make_spectra(3, takes=4)
    normalisation = fit_normalisation(spectra)
    frames = np.concatenate([normalised(item, normalisation) for item in spectra])
    tolerance = float32_tolerance(len(frames), largest(frames))
    np.testing.assert_allclose(frames.mean(0), 0.0, rtol=0, atol=tolerance)
    np.testing.assert_allclose(frames.std(0), 1.0, rtol=0, atol=tolerance)


def test_a_bin_that_never_changes_is_not_divided_by_nothing() -> None:
    spectra = make_spectra(1)
    for item in spectra:
        item.logs[:] = -2.0
    normalisation = fit_normalisation(spectra)
    assert normalisation.statistics.std.min() >= 0.0099
    assert np.isfinite(normalised(spectra[0], normalisation)).all()


def test_constants_of_the_level_follower_can_be_given() -> None:
    levels = fit_normalisation(make_spectra(1), memory_frames=123.0).levels
    assert levels.memory_frames == 123.0


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(10, [0]), (297, [0]), (298, [0, 1]), (594, [0, 297]), (700, [0, 202, 403])],
)
def test_a_clip_is_cut_into_the_fewest_equal_segments(frames: int, starts: list[int]) -> None:
    assert segment_starts(frames, 297) == pytest.approx(starts, abs=1)


@pytest.mark.parametrize("frames", [1, 49, 296, 297, 298, 891, 1000, 2345])
def test_the_segments_cover_the_clip_from_its_first_frame_to_its_last(frames: int) -> None:
    starts = segment_starts(frames, 297)
    covered = {frame for start in starts for frame in range(start, min(start + 297, frames))}
    assert covered == set(range(frames))


def test_the_reading_can_be_watched(tmp_path: Path) -> None:
    seen = []

    def watched(clips: object, label: str) -> list[Clip]:
        seen.append((clips, label))
        return list(clips)  # type: ignore[call-overload, no-any-return]

    clips = [clip_of(tmp_path / "a.wav", 0.6)]
    assert len(read_spectra(clips, FRONT_END, 49, watched)) == 1
    assert seen == [(clips, "reading clips")]


def test_spectra_know_their_length() -> None:
    spectra: Spectra = make_spectra(1)[0]
    assert spectra.frames == len(spectra.power()) == 60


def test_the_papers_input_is_standardised_by_itself_and_then_padded() -> None:
    quiet, *others = make_spectra(2)
    loud = replace(quiet, logs=(quiet.logs + np.float16(2.0)).astype(np.float16))
    normalisation = replace(fit_normalisation([quiet, *others]), scope="window", padded_to=100)
    frames = network_input(quiet, normalisation, 10, 40)
    assert frames.shape == (100, 200)
    assert not frames[40:].any()
    assert frames[:40].mean() == pytest.approx(0.0, abs=1e-4)
    assert frames[:40].std() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(network_input(loud, normalisation, 10, 40), frames, atol=0.02)
    usual = network_input(quiet, fit_normalisation([quiet, *others]), 10, 40)
    np.testing.assert_array_equal(usual, normalised(quiet, fit_normalisation([quiet, *others]))[10:50])
