"""Clips in a stream are heard after what came before, and each keeps the features of its own samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.features.frontend import filtered, power_spectrogram
from edge.features.mel_power import MEL_POWER, MelPower
from edge.features.normaliser import GainConfig
from tests.train.synthetic import tiny_recurrent, write_corpus
from train.corpora import Clip, read_corpus
from train.feature_cache import Copy, Features, cached_features
from train.recording_conditions import Ambience, ChannelConfig
from train.recurrent_net import RecurrentNet
from train.stream_features import STREAM_CLIPS, UNIT, reference_level, streamed_features, streams_of

LEVELS = GainConfig(reference=-1.0)
QUIET = ChannelConfig(speed=0.0, tilt=0.0, room=0.0, noise=1.0, telephone=0.0, clipping=0.0)
AMBIENCE = Ambience((np.random.default_rng(0).standard_normal(16_000).astype(np.float32),), ())


@pytest.fixture(scope="module")
def net() -> RecurrentNet:
    return tiny_recurrent().net


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("streamed"), speakers=2, takes=4, seconds=0.7))


def whole(frames: int) -> list[tuple[int, int]]:
    return [(0, frames)]


def pooled(waveforms: Sequence[Array], net: RecurrentNet) -> list[Array]:
    return [values[0] for values, _ in streamed_features(waveforms, net, LEVELS, [whole for _ in waveforms])]


def features(
    folder: Path, clips: Sequence[Clip], net: RecurrentNet, number: int, levels: GainConfig
) -> Features:
    def silently(clips: Sequence[Clip], label: str) -> Iterable[Clip]:
        return clips

    return cached_features(folder, clips, net, Copy(number), (AMBIENCE, QUIET), silently, levels)


def noise(samples: int, seed: int) -> Array:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize("sizes", [(16_000, 24_000), (1_280, 16_001), (9_999, 12_345, 31_337)])
def test_each_clip_has_the_features_of_its_own_samples_in_the_whole_stream(
    net: RecurrentNet, sizes: tuple[int, ...]
) -> None:
    waveforms = [noise(size, seed) for seed, size in enumerate(sizes)]
    power = power_spectrogram(filtered(np.concatenate(waveforms), MEL_POWER), MEL_POWER)
    frames = torch.from_numpy(MelPower(LEVELS, UNIT)(power))
    with torch.inference_mode():
        every = net.encoder(frames[: len(frames) // 8 * 8][None])[0][0]
        begin = 0
        for values, size in zip(pooled(waveforms, net), sizes, strict=True):
            own = [
                place
                for place in range(len(every))
                if begin <= 1_280 * place and 1_280 * place + 1_520 <= begin + size
            ] or [-(-begin // 1_280)]
            np.testing.assert_allclose(values, net.pooled(every[own][None])[0], atol=1e-6)
            begin += size


def test_what_comes_before_changes_a_clip_and_what_comes_after_does_not(net: RecurrentNet) -> None:
    one, two = noise(16_000, 0), noise(16_000, 1)
    alone, (first, second) = pooled([two], net)[0], pooled([one, two], net)
    np.testing.assert_allclose(first, pooled([one], net)[0], atol=1e-6)
    assert np.abs(second - alone).max() > 1e-3


@pytest.mark.parametrize("samples", [1, 300, 1_000, 1_600])
def test_a_clip_shorter_than_a_feature_has_a_window(net: RecurrentNet, samples: int) -> None:
    for stream in ([noise(samples, 0)], [noise(16_000, 1), noise(samples, 0)]):
        values, lengths = streamed_features(stream, net, LEVELS, [whole for _ in stream])[-1]
        assert lengths == (8,)
        assert np.isfinite(values).all()


def test_each_clip_is_in_one_stream_of_its_speaker(clips: list[Clip]) -> None:
    streams = streams_of(clips, 0, 1)
    assert sorted(place for stream in streams for place in stream) == list(range(len(clips)))
    for stream in streams:
        assert len({clips[place].speaker for place in stream}) == 1
        assert len(stream) <= STREAM_CLIPS
    assert streams != streams_of(clips, 0, 2)
    assert streams == streams_of(clips, 0, 1)


def test_the_first_copy_starts_at_each_clip_and_the_others_are_streams(
    clips: list[Clip], net: RecurrentNet, tmp_path: Path
) -> None:
    fresh, streamed = (features(tmp_path, clips, net, number, LEVELS) for number in range(2))
    for row, clip in zip(fresh.values, clips, strict=True):
        np.testing.assert_allclose(row, pooled([read_clip(clip.path)], net)[0], atol=2e-3)
    assert sorted(set(streamed.clip.tolist())) == list(range(len(clips)))
    assert (np.diff(streamed.clip) >= 0).all()
    waveforms = [Copy(1).waveform(clip, AMBIENCE, QUIET) for clip in clips]
    stream = streams_of(clips, 0, 1)[0]
    windows = [lambda frames, clip=clips[place]: Copy(1).windows(clip, frames) for place in stream]
    expected = streamed_features([waveforms[place] for place in stream], net, LEVELS, windows)
    for place, (values, lengths) in zip(stream, expected, strict=True):
        np.testing.assert_allclose(streamed.values[streamed.clip == place], values, atol=2e-3)
        assert tuple(streamed.frames[streamed.clip == place]) == lengths


def test_another_level_is_computed_again(clips: list[Clip], net: RecurrentNet, tmp_path: Path) -> None:
    one = np.array(features(tmp_path, clips[:2], net, 0, LEVELS).values)
    two = np.array(features(tmp_path, clips[:2], net, 0, GainConfig(reference=-8.0)).values)
    assert not np.allclose(one, two)


def test_the_reference_level_is_the_mean_over_clips(clips: list[Clip]) -> None:
    levels = [reference_level([clip]) for clip in clips[:3]]
    assert reference_level(clips[:3]) == pytest.approx(np.mean(levels))
    assert -30.0 < levels[0] < 10.0
