"""A run on a pretrained encoder, from clips to its checkpoint and scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from edge.audio.sound_file import read_clip
from edge.errors import ModelError, UsageError
from tests.train.synthetic import write_corpus, write_encoder
from train import run_features
from train.checkpoint import load_pretrained
from train.corpora import Clip, read_corpus, with_derived_ratings
from train.episodes import EpisodeConfig
from train.feature_cache import network_frames
from train.head_training import HeadAlgorithm, HeadOptions
from train.last_block import BlockTuning, tuned_block
from train.pretrained_net import PretrainedNet
from train.pretrained_run import PretrainedOptions, PretrainedSetup, run_pretrained, untrained
from train.run_folder import RunFolder
from train.splits import Split, split_by_speaker

Item = TypeVar("Item")

OPTIONS = PretrainedOptions(
    head=HeadOptions(steps=6),
    episodes=EpisodeConfig(speakers=2, samples=4),
    copies=1,
    folds=2,
)

TUNED = replace(OPTIONS, tuning=BlockTuning(steps=2, windows=4))


class Silent:
    def __init__(self, stop_at: str = "") -> None:
        self.labels: list[str] = []
        self._stop_at = stop_at

    def __call__(self, items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
        if self._stop_at and self._stop_at in label:
            raise KeyboardInterrupt
        self.labels.append(label)
        yield from items

    def say(self, line: str) -> None:
        pass


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), speakers=5, takes=1, seconds=0.6)
    return with_derived_ratings(read_corpus(corpus))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def sides(clips: list[Clip]) -> Split:
    return split_by_speaker(clips, validation=["s3"], test=["s4"])


@pytest.fixture
def train(clips: list[Clip], encoder: Path, cache: Path, tmp_path: Path) -> Callable[..., Path]:
    def do(
        name: str = "run",
        *,
        options: PretrainedOptions = OPTIONS,
        split: Split | None = None,
        start: Path | None = None,
        progress: Silent | None = None,
        resume: bool = False,
    ) -> Path:
        before = load_pretrained(start) if start else None
        setup = PretrainedSetup(
            RunFolder(tmp_path / name), cache, start=before, resume=resume, provenance={"command": "mmtl"}
        )
        net = before.net if before else untrained(encoder)
        run_pretrained(split or sides(clips), net, options, setup, progress or Silent())
        return tmp_path / name

    return do


def scores_of(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return scores


def test_a_run_keeps_its_checkpoint_scores_and_picture(train: Callable[..., Path], encoder: Path) -> None:
    folder = train()
    names = {"best.safetensors", "config.json", "scores.json", "confusion.png"}
    assert {path.name for path in folder.iterdir()} == names
    config, scores = json.loads((folder / "config.json").read_text()), scores_of(folder)
    best = load_pretrained(folder / "best.safetensors")
    assert best.training == config
    assert best.temperature == scores["temperature"]
    assert config["speakers"] == {"train": ["s0", "s1", "s2", "s3"], "validation": [], "test": ["s4"]}
    assert scores["joined_the_training_side"] == ["s3"]
    for name, tensor in untrained(encoder).encoder.state_dict().items():
        assert torch.equal(best.net.encoder.state_dict()[name], tensor)
    assert not torch.equal(best.net.embedding_std, torch.ones_like(best.net.embedding_std))


def test_every_training_speaker_is_held_out_once_and_test_speakers_are_scored(
    train: Callable[..., Path],
) -> None:
    scores = scores_of(train())
    assert sorted(speaker for fold in scores["folds"] for speaker in fold) == ["s0", "s1", "s2", "s3"]
    held_out = scores["cross_fitted"]["none"]["corpora"]["synthetic"]
    assert list(held_out["per_speaker"]) == ["s0", "s1", "s2", "s3"]
    assert held_out["low"] <= held_out["uar"] <= held_out["high"]
    assert scores["cross_fitted"]["none"]["mean_uar"] == held_out["uar"]
    assert list(scores["test"]["none"]["corpora"]["synthetic"]["per_speaker"]) == ["s4"]


@pytest.mark.parametrize("options", [OPTIONS, TUNED])
def test_the_checkpoint_answers_from_sound_as_the_head_did_on_cached_features(
    train: Callable[..., Path], clips: list[Clip], options: PretrainedOptions
) -> None:
    folder = train(options=options)
    net = load_pretrained(folder / "best.safetensors").net
    test = [clip for clip in clips if clip.speaker == "s4"]
    with torch.inference_mode():
        answers = [
            net(torch.from_numpy(network_frames(read_clip(clip.path)))[None]).argmax().item() for clip in test
        ]
    confusion = np.array(scores_of(folder)["test"]["none"]["corpora"]["synthetic"]["confusion"])
    np.testing.assert_array_equal(np.bincount(answers, minlength=4), confusion.sum(axis=0))


def test_members_are_trained_apart_and_kept_as_one_head(train: Callable[..., Path], tmp_path: Path) -> None:
    def net(seed: int, members: int = 1) -> PretrainedNet:
        head = replace(OPTIONS.head, seed=seed, members=members)
        folder = train(f"{seed} {members}", options=replace(OPTIONS, head=head, copies=0))
        return load_pretrained(folder / "best.safetensors").net

    apart, joined = [net(seed) for seed in range(3)], net(0, members=3)
    assert joined.arch.fully_connected == 3 * apart[0].arch.fully_connected
    inputs = torch.randn(20, 2 * joined.arch.embedding_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mean = torch.stack([each.head(inputs) for each in apart]).mean(dim=0)
        torch.testing.assert_close(joined.head(inputs), mean, rtol=0, atol=0.01)
        assert (mean - apart[0].head(inputs)).abs().max() > 0.05
    with safe_open(tmp_path / "0 3" / "best.safetensors", "pt") as file:
        assert file.get_tensor("head.meta.fc1.weight").dtype == torch.float16


def test_a_tuned_block_is_kept_with_the_head_and_the_blocks_before_it_stay(
    train: Callable[..., Path], encoder: Path
) -> None:
    best = load_pretrained(train(options=TUNED) / "best.safetensors")
    published, found = untrained(encoder).encoder.state_dict(), best.net.encoder.state_dict()
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, published[name])}
    assert changed
    assert all(name.startswith("block.1.") for name in changed)
    assert best.training["options"]["tuning"]["steps"] == 2


def test_who_is_scored_has_no_part_in_the_block_that_is_tuned(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[set[str]] = []
    ordinary = tuned_block

    def watched(*arguments: Any) -> nn.Module:
        learned.append(set(arguments[3]))
        return ordinary(*arguments)

    monkeypatch.setattr(run_features, "tuned_block", watched)
    folds = scores_of(train(options=TUNED))["folds"]
    everyone = {"s0", "s1", "s2", "s3"}
    assert learned == [everyone - set(fold) for fold in folds] + [everyone]


@pytest.mark.parametrize("options", [OPTIONS, TUNED])
def test_test_speakers_have_no_part_in_the_weights_nor_the_temperature(
    train: Callable[..., Path], clips: list[Clip], options: PretrainedOptions
) -> None:
    relabelled = [
        replace(clip, emotion="angry" if clip.emotion == "sad" else clip.emotion)
        if clip.speaker == "s4"
        else clip
        for clip in clips
    ]
    first = train("first", options=options)
    second = train("second", options=options, split=sides(relabelled))
    assert_same_weights(first, second)
    assert scores_of(first)["temperature"] == scores_of(second)["temperature"]


def assert_same_weights(first: Path, second: Path, *, same: bool = True) -> None:
    one, two = (load_pretrained(folder / "best.safetensors").net.state_dict() for folder in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one) == same


@pytest.mark.parametrize("algorithm", ["erm", "mmtl", "reptile"])
def test_the_other_algorithms_run_too(train: Callable[..., Path], algorithm: HeadAlgorithm) -> None:
    options = replace(OPTIONS, head=HeadOptions(algorithm, steps=3), folds=0)
    folder = train(options=options)
    assert load_pretrained(folder / "best.safetensors").temperature is None
    assert "cross_fitted" not in scores_of(folder)


def test_an_interrupted_run_finds_its_copies_and_comes_to_the_same_end(
    train: Callable[..., Path], tmp_path: Path, clips: list[Clip], encoder: Path
) -> None:
    whole = train("whole")

    def go(*, resume: bool, progress: Silent) -> Path:
        folder = RunFolder(tmp_path / "stopped")
        setup = PretrainedSetup(folder, tmp_path / "own", resume=resume, provenance={"command": "mmtl"})
        run_pretrained(sides(clips), untrained(encoder), OPTIONS, setup, progress)
        return folder.path

    with pytest.raises(KeyboardInterrupt):
        go(resume=False, progress=Silent("encoding copy-1"))
    with pytest.raises(UsageError, match="already holds a run: add --resume"):
        go(resume=False, progress=Silent())
    progress = Silent()
    assert_same_weights(whole, go(resume=True, progress=progress))
    assert [label for label in progress.labels if "encoding" in label] == ["encoding copy-1-0"]


def test_each_corpus_is_scored_by_a_head_of_the_others(train: Callable[..., Path], clips: list[Clip]) -> None:
    two = [replace(clip, corpus="other") if clip.speaker in {"s0", "s1"} else clip for clip in clips]
    options = replace(OPTIONS, leave_corpus_out=True)
    scores = scores_of(train(options=options, split=Split(tuple(two), (), ())))
    left_out = scores["leave_corpus_out"]["none"]["corpora"]
    assert list(left_out["other"]["per_speaker"]) == ["s0", "s1"]
    assert list(left_out["synthetic"]["per_speaker"]) == ["s2", "s3", "s4"]
    assert "test" not in scores


def test_a_run_takes_up_the_encoder_the_statistics_and_the_head_of_another(
    train: Callable[..., Path], clips: list[Clip]
) -> None:
    of = {name: tuple(clip for clip in clips if clip.speaker == name) for name in ("s0", "s1", "s2", "s3")}
    first = train("first", split=Split((*of["s0"], *of["s1"]), (), ()))
    still = replace(OPTIONS, head=HeadOptions(steps=1, learning_rate=1e-9), folds=0)
    start = first / "best.safetensors"
    before = load_pretrained(start)
    second = train("second", split=Split((*of["s2"], *of["s3"]), (), ()), start=start, options=still)
    after = load_pretrained(second / "best.safetensors")
    for name, tensor in before.net.state_dict().items():
        torch.testing.assert_close(after.net.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert after.temperature == before.temperature
    assert after.training["speakers"]["train"] == ["s0", "s1", "s2", "s3"]
    assert after.training["before"] == "mmtl"


def test_speakers_that_the_start_has_heard_are_neither_test_speakers_nor_scored_by_folds(
    train: Callable[..., Path], clips: list[Clip]
) -> None:
    first = train("first", split=Split(tuple(clip for clip in clips if clip.speaker in {"s0", "s1"}), (), ()))
    start = first / "best.safetensors"
    with pytest.raises(UsageError, match="trained or chosen with speaker s0, who is a test speaker here"):
        train("second", split=split_by_speaker(clips, validation=[], test=["s0"]), start=start)
    scores = scores_of(train("third", split=Split(tuple(clips), (), ()), start=start))
    held_out = scores["cross_fitted"]["none"]["corpora"]["synthetic"]["per_speaker"]
    assert list(held_out) == ["s2", "s3", "s4"]


def test_a_corpus_without_neutral_clips_is_refused(train: Callable[..., Path], clips: list[Clip]) -> None:
    acted = tuple(clip for clip in clips if clip.emotion != "neutral")
    with pytest.raises(UsageError, match=r"synthetic has no neutral clips.*leave it out with --exclude"):
        train(split=Split(acted, (), ()))


def test_fewer_speakers_than_folds_are_refused_before_anything_is_written(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="4 training speakers are too few for 9 folds by speaker"):
        train(options=replace(OPTIONS, folds=9))
    assert not (tmp_path / "run").exists()


def test_one_recording_under_two_speakers_is_refused(
    train: Callable[..., Path], clips: list[Clip], tmp_path: Path
) -> None:
    copied = tmp_path / "copied.wav"
    copied.write_bytes(clips[0].path.read_bytes())
    assert clips[0].speaker == "s0"
    again = replace(next(clip for clip in clips if clip.speaker == "s4"), path=copied)
    with pytest.raises(UsageError, match=r"copied.wav \(s4, test\) are the same recording"):
        train(split=sides([*clips, again]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "is damaged or not a safetensors file"),
        (lambda data: b"", "is damaged or not a safetensors file"),
        (lambda data: b"\x00" * 100, "is damaged or not a safetensors file"),
    ],
)
def test_a_damaged_encoder_is_refused(
    encoder: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(change(encoder.read_bytes()))
    with pytest.raises(ModelError, match=message):
        untrained(path)


def test_an_untrained_network_has_the_encoder_of_the_file(encoder: Path) -> None:
    net = untrained(encoder)
    assert isinstance(net, PretrainedNet)
    assert (net.arch.width, net.arch.blocks) == (64, 2)
    assert not net.training
