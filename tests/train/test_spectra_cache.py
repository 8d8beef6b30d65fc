"""Spectra are computed once, mapped from then on, and the same with and without the cache."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from edge.audio import sound_file
from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from tests.train.synthetic import SAMPLE_RATE, TINY, voice, write_corpus
from train import segments, spectra_cache
from train.batches import SamplingConfig
from train.corpora import Clip, read_corpus
from train.run import RunSetup, run
from train.run_folder import RunFolder
from train.segments import Spectra, read_spectra
from train.spectra_cache import SpectraCache
from train.splits import split_by_speaker
from train.tables import Silent
from train.training import Options

FRONT_END = FrontEnd()


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path / "corpus", speakers=3, takes=1, seconds=0.6))


@pytest.fixture
def cache(tmp_path: Path) -> SpectraCache:
    return SpectraCache(tmp_path / "cache")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the recordings that are read from now on."""
    names: list[str] = []
    read = sound_file.read_clip

    def noted(path: Path) -> object:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(segments, "read_clip", noted)
    return names


def is_mapped(item: Spectra) -> bool:
    base: object = item.logs
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def require_same(found: Sequence[Spectra], expected: Sequence[Spectra]) -> None:
    assert [(item.clip, item.speed) for item in found] == [(item.clip, item.speed) for item in expected]
    for item, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(item.logs, other.logs)


def test_cached_spectra_are_those_of_the_recordings_and_are_mapped(
    clips: list[Clip], cache: SpectraCache, heard: list[str]
) -> None:
    mixed = clips[::2] + clips[1::2]
    expected = read_spectra(mixed, FRONT_END, 49, speeds=(0.9,))
    heard.clear()
    require_same(cache(mixed, FRONT_END, 49, speeds=(0.9,)), expected)
    assert len(heard) == len(clips)
    again = cache(mixed, FRONT_END, 49, speeds=(0.9,))
    require_same(again, expected)
    assert len(heard) == len(clips)
    for item in again:
        assert not item.logs.flags.writeable
        assert is_mapped(item)


def test_the_progress_counts_kept_clips_too(clips: list[Clip], cache: SpectraCache) -> None:
    counts = []

    def shown(items: Sequence[Clip], label: str) -> Iterable[Clip]:
        for count, item in enumerate(items, start=1):
            yield item
            counts.append(count)

    for _ in range(2):
        cache(clips, FRONT_END, 49, shown)
    assert counts == 2 * list(range(1, len(clips) + 1))


def test_only_the_speaker_of_a_changed_recording_is_read_again(
    clips: list[Clip], cache: SpectraCache, heard: list[str]
) -> None:
    cache(clips, FRONT_END, 49)
    changed = clips[0]
    soundfile.write(changed.path, voice(7, "sad", 0, 0.6), SAMPLE_RATE)
    os.utime(changed.path, ns=(0, 1))  # the same size, and at once: the clock may not have moved
    heard.clear()
    require_same(cache(clips, FRONT_END, 49), read_spectra(clips, FRONT_END, 49))
    own = [clip.path.name for clip in clips if clip.speaker == changed.speaker]
    assert heard[: len(own)] == own
    assert len(heard) == len(own) + len(clips)


@pytest.mark.parametrize("changed", ["front end", "length", "speeds", "code"])
def test_spectra_that_would_come_out_otherwise_are_computed(
    clips: list[Clip], cache: SpectraCache, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    cache(clips, FRONT_END, 49)
    front_end, shortest = FRONT_END, 49
    speeds: tuple[float, ...] = ()
    if changed == "front end":
        front_end = replace(FRONT_END, hop_length_ms=20)
    elif changed == "length":
        shortest = 90
    elif changed == "speeds":
        speeds = (1.1,)
    else:
        monkeypatch.setattr(segments, "_TINY", np.float32(1e-3))
    require_same(
        cache(clips, front_end, shortest, speeds=speeds),
        read_spectra(clips, front_end, shortest, speeds=speeds),
    )


def truncated(values: Path, index: Path) -> None:
    values.write_bytes(values.read_bytes()[:-100])


def emptied(values: Path, index: Path) -> None:
    values.write_bytes(b"")


def one_bit_flipped(values: Path, index: Path) -> None:
    data = bytearray(values.read_bytes())
    data[len(data) // 2] ^= 1
    values.write_bytes(data)


def of_other_numbers(values: Path, index: Path) -> None:
    np.save(values, np.zeros(3))


def pickled(values: Path, index: Path) -> None:
    np.save(values, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def without_values(values: Path, index: Path) -> None:
    values.unlink()


def with_another_index(values: Path, index: Path) -> None:
    index.write_text('{"frames": "many", "crc32": []}')


def with_a_broken_index(values: Path, index: Path) -> None:
    index.write_text("[" * 100_000)


DAMAGES = [
    *(truncated, emptied, one_bit_flipped, of_other_numbers, pickled, without_values),
    *(with_another_index, with_a_broken_index),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_computed_again(
    clips: list[Clip], tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "cache"
    expected = SpectraCache(folder)(clips, FRONT_END, 49)
    (values, *_) = sorted(folder.glob("*.npy"))
    kept = [np.array(item.logs) for item in expected]
    del expected  # on some systems a mapped file cannot be written
    damage(values, values.with_suffix(".json"))
    for _ in range(2):  # the second time it is there again
        found = SpectraCache(folder)(clips, FRONT_END, 49)
        assert all((item.logs == logs).all() for item, logs in zip(found, kept, strict=True))
    assert len(list(folder.iterdir())) == 6


def test_two_that_fill_the_cache_at_once_get_the_same(clips: list[Clip], tmp_path: Path) -> None:
    expected = read_spectra(clips, FRONT_END, 49)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(SpectraCache(tmp_path / "cache"), clips, FRONT_END, 49) for _ in range(4)]
        for one in runs:
            require_same(one.result(), expected)
    assert len(list((tmp_path / "cache").iterdir())) == 6


def test_a_cache_that_cannot_be_written_is_refused_before_a_clip_is_read(
    clips: list[Clip], tmp_path: Path, heard: list[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose a folder you may write to"):
        SpectraCache(tmp_path / "file")(clips, FRONT_END, 49)
    assert heard == []


def test_files_beyond_the_number_that_may_be_mapped_are_read(
    clips: list[Clip], cache: SpectraCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectra_cache, "MOST_MAPPED", 1)
    found = cache(clips, FRONT_END, 49)
    mapped = {item.clip.speaker for item in found if is_mapped(item)}
    assert len(mapped) == 1
    require_same(found, read_spectra(clips, FRONT_END, 49))


def test_a_run_is_the_same_to_the_bit_with_and_without_a_cache(clips: list[Clip], tmp_path: Path) -> None:
    split = split_by_speaker(clips, validation=["s1"], test=["s2"])
    options = Options("erm", epochs=1, draw=SamplingConfig(window=297, batch_size=4))
    states = []
    for name, cache in (("without", None), ("first", tmp_path / "c"), ("second", tmp_path / "c")):
        setup = RunSetup(RunFolder(tmp_path / name), torch.device("cpu"), cache=cache)
        run(split, TINY, options, setup, Silent())
        states.append(load_file(tmp_path / name / "state.safetensors"))
    assert len(list((tmp_path / "c").glob("*.npy"))) == 3
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], value) for name, value in states[0].items())
