"""Features are those of each window by itself, and are computed again only when something changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.audio.sound_file import read_clip
from tests.train.synthetic import write_corpus
from train.corpora import Clip, read_corpus
from train.feature_cache import (
    SHORTEST_FRAMES,
    WINDOW_FRAMES,
    Copy,
    Features,
    cached_features,
    encoded,
    network_frames,
)
from train.pretrained_net import PretrainedArchitecture, PretrainedNet
from train.recording_conditions import Ambience, ChannelConfig
from train.whisper_encoder import HEAD_SIZE

ARCHITECTURE = PretrainedArchitecture(width=HEAD_SIZE, blocks=1)
QUIET = ChannelConfig(speed=0.0, tilt=0.0, room=0.0, noise=1.0, telephone=0.0, clipping=0.0)
AMBIENCE = Ambience((np.random.default_rng(0).standard_normal(16_000).astype(np.float32),), ())


@pytest.fixture(scope="module")
def net() -> PretrainedNet:
    torch.manual_seed(0)
    return PretrainedNet(ARCHITECTURE).eval()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("cached"), speakers=2, takes=1, seconds=0.7))


def silently(clips: Sequence[Clip], label: str) -> Iterable[Clip]:
    return clips


def features(folder: Path, clips: Sequence[Clip], net: PretrainedNet, copy: Copy) -> Features:
    return cached_features(folder, clips, net, copy, (AMBIENCE, QUIET), silently)


def test_the_first_copy_holds_each_clip_as_it_was_recorded(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    found = features(tmp_path, clips, net, Copy(0))
    assert found.clip.tolist() == list(range(len(clips)))
    for row, clip in zip(found.values, clips, strict=True):
        np.testing.assert_allclose(row, encoded([network_frames(read_clip(clip.path))], net)[0], atol=2e-3)


def test_features_are_not_computed_twice_and_are_mapped_from_disk(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    features(tmp_path, clips, net, Copy(0))
    before = (tmp_path / "copy-0-0.npy").stat().st_mtime_ns
    again = features(tmp_path, clips, net, Copy(0))
    assert isinstance(again.values, np.memmap)
    assert (tmp_path / "copy-0-0.npy").stat().st_mtime_ns == before


def test_another_encoder_or_other_clips_are_computed_again(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    first = np.array(features(tmp_path, clips, net, Copy(0)).values)
    torch.manual_seed(1)
    assert not np.allclose(
        features(tmp_path, clips, PretrainedNet(ARCHITECTURE).eval(), Copy(0)).values, first
    )
    assert len(features(tmp_path, clips[:3], net, Copy(0)).values) == 3


def test_other_copies_differ_and_a_number_determines_them(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    zero, one, two = (np.array(features(tmp_path, clips, net, Copy(n)).values) for n in range(3))
    assert not np.allclose(zero, one)
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(features(tmp_path / "..", clips, net, Copy(1)).values, one)


def test_clips_of_a_speaker_share_their_channel_in_a_copy(clips: list[Clip]) -> None:
    telephone_or_not = replace(QUIET, noise=0.0, telephone=0.5)
    rooms = Ambience(AMBIENCE.noises, ())
    for number in range(1, 6):
        changed: dict[str, set[bool]] = {}
        for clip in clips:
            heard = Copy(number).waveform(clip, rooms, telephone_or_not)
            changed.setdefault(clip.speaker, set()).add(not np.array_equal(heard, read_clip(clip.path)))
        assert all(len(kinds) == 1 for kinds in changed.values())


@pytest.mark.parametrize("frames", [1, 40, 150, 296, 297, 750])
def test_windows_lie_within_the_clip_and_are_of_the_asked_lengths(clips: list[Clip], frames: int) -> None:
    for number in range(20):
        for start, length in Copy(number).windows(clips[0], frames):
            assert 0 <= start <= start + length <= frames
            assert min(frames, SHORTEST_FRAMES) <= length <= WINDOW_FRAMES
