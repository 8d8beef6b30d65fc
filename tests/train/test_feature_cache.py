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
from train import feature_cache
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
    clips: list[Clip], net: PretrainedNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "PAUSED", 0.0)  # copies then have windows of the same clips
    zero, one, two = (np.array(features(tmp_path, clips, net, Copy(n)).values) for n in range(3))
    assert not np.allclose(zero, one)
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(features(tmp_path / "..", clips, net, Copy(1)).values, one)


def test_clips_of_a_speaker_share_their_channel_in_a_copy(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "PAUSED", 0.0)
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


def test_features_of_some_clips_count_those_clips(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    everything = features(tmp_path, clips, net, Copy(0))
    some = everything.of(np.array([1, 4]))
    assert some.clip.tolist() == [0, 1]
    np.testing.assert_array_equal(some.values, everything.values[[1, 4]])
    assert some.digests == (everything.digests[1], everything.digests[4])
    assert some.seconds == (0.7, 0.7)


def test_clips_of_the_same_samples_have_the_same_digest(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(clips[0].path.read_bytes())
    digests = features(tmp_path / "kept", [*clips, replace(clips[0], path=other)], net, Copy(0)).digests
    assert digests[-1] == digests[0]
    assert len(set(digests)) == len(clips)


@pytest.mark.parametrize("damage", ["index", "values", "swapped"])
def test_a_damaged_copy_is_computed_again(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path, damage: str
) -> None:
    first = np.array(features(tmp_path, clips, net, Copy(0)).values)
    if damage == "index":
        (tmp_path / "copy-0-0.json").write_text("{")
    elif damage == "values":
        (tmp_path / "copy-0-0.npy").write_bytes(b"\x93NUMPY")
    else:
        np.save(tmp_path / "copy-0-0.npy", first[:-1])
    np.testing.assert_array_equal(features(tmp_path, clips, net, Copy(0)).values, first)


def test_a_changed_recording_is_computed_again(net: PretrainedNet, tmp_path: Path) -> None:
    own = read_corpus(write_corpus(tmp_path / "corpus", speakers=1, takes=1, seconds=0.6))
    first = np.array(features(tmp_path, own, net, Copy(0)).values)
    own[0].path.write_bytes(own[1].path.read_bytes() + b"\0")
    second = features(tmp_path, own, net, Copy(0)).values
    np.testing.assert_array_equal(second[0], first[1])


def test_recordings_are_known_from_another_working_folder(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(tmp_path, clips, net, Copy(0))
    before = (tmp_path / "copy-0-0.json").stat().st_mtime_ns
    monkeypatch.chdir(clips[0].path.parent)
    features(tmp_path, [replace(clip, path=Path(clip.path.name)) for clip in clips], net, Copy(0))
    assert (tmp_path / "copy-0-0.json").stat().st_mtime_ns == before


def test_as_many_threads_as_torch_has_give_the_same_features(
    clips: list[Clip], net: PretrainedNet, tmp_path: Path
) -> None:
    one = features(tmp_path / "one", clips, net, Copy(1)).values
    torch.set_num_threads(3)
    try:
        several = features(tmp_path / "several", clips, net, Copy(1)).values
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(several, one)


def test_half_of_the_clips_of_a_copy_stand_between_pauses(clips: list[Clip]) -> None:
    silent = ChannelConfig(speed=0.0, tilt=0.0, room=0.0, noise=0.0, telephone=0.0, clipping=0.0)
    shares = []
    for number in range(1, 31):
        for clip in clips[:4]:
            recorded, heard = read_clip(clip.path), Copy(number).waveform(clip, AMBIENCE, silent)
            longer = len(heard) - len(recorded)
            assert 0 <= longer <= 2 * feature_cache.LONGEST_PAUSE_S * 16_000
            shares.append(longer > 0)
            if longer:
                starts = [start for start in range(longer + 1) if heard[start] == recorded[0]]
                assert any(np.array_equal(heard[s : s + len(recorded)], recorded) for s in starts)
                frames = len(network_frames(heard))
                for _, length in Copy(number).windows(clip, frames):
                    assert length == min(frames, WINDOW_FRAMES)
    assert 0.3 < np.mean(shares) < 0.7
