"""The rows of `benchmarks/accuracy/ablation.py`: what they read, and how their answers are counted."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import ablation
from benchmarks.accuracy.ablation import (
    REFERENCE,
    ROWS,
    EveryBlock,
    EveryBlockArchitecture,
    columns,
    compute,
    compute_excluded,
    excluded_table,
    harmed,
    mean_uars,
    table,
)
from edge.labels import EMOTIONS
from tests.train.synthetic import write_corpus, write_encoder
from train.baseline_protocols import ClipLogits
from train.corpora import Clip, read_corpus, with_derived_ratings
from train.head_training import HeadOptions
from train.last_block import BlockTuning
from train.pretrained_net import PretrainedArchitecture, PretrainedNet

WIDTH = 64


def test_the_reference_reads_what_the_shipped_network_pools() -> None:
    torch.manual_seed(0)
    every = EveryBlock(EveryBlockArchitecture(width=WIDTH)).eval()
    usual = PretrainedNet(PretrainedArchitecture(width=WIDTH, blocks=2)).eval()
    usual.encoder.load_state_dict(every.encoder.state_dict(), strict=False)
    frames = torch.randn(2, 120, 80)
    lengths = torch.tensor([120, 90])
    with torch.inference_mode():
        chosen = every.pooled(frames, lengths)[:, columns(ROWS[REFERENCE], WIDTH)]
        torch.testing.assert_close(chosen, usual.pooled(frames, lengths))


def test_the_mean_is_over_corpora_and_the_samples_are_of_speakers() -> None:
    right, wrong = np.eye(4, dtype=int) * 5, np.roll(np.eye(4, dtype=int) * 5, 1, axis=1)
    alike = mean_uars({"a": {"s": right.tolist(), "t": right.tolist()}, "b": {"u": wrong.tolist()}})
    assert set(alike) == {50.0}
    mixed = mean_uars({"a": {"s": right.tolist(), "t": wrong.tolist()}})
    assert mixed[0] == 50.0
    assert set(mixed[1:]) == {0.0, 50.0, 100.0}


def test_the_table_has_the_difference_to_the_reference_for_the_same_speakers(tmp_path: Path) -> None:
    right, half = (np.eye(4, dtype=int) * 4).tolist(), np.full((4, 4), 1).tolist()
    for name, matrix in ((REFERENCE, right), ("erm", half)):
        parts = {part: {"none": {"a": {"s": matrix, "t": matrix}}} for part in ("speakers", "corpora")}
        (tmp_path / f"{name}.json").write_text(json.dumps({"parts": parts}), "utf-8")
    lines = table(tmp_path).splitlines()
    assert lines[2].startswith(
        "| `reference` | block 2 as published, baseline of the mean | 100.0 (100.0 to 100.0) |  |  | 100.0"
    )
    assert lines[-1].startswith("| `erm` | plain supervised training | -75.0 (-75.0 to -75.0) |  |  | -75.0")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Four speakers in two corpora."""
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), speakers=4, takes=1, seconds=0.6)
    every = with_derived_ratings(read_corpus(folder))
    return [replace(clip, corpus="one" if clip.speaker in ("s0", "s1") else "two") for clip in every]


def prepared(clips: list[Clip], folder: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Write an encoder and a list of speech without labels, and make the training short."""
    write_encoder(folder / "whisper_tiny_encoder_3_blocks.safetensors", blocks=3)
    monkeypatch.setattr(ablation, "HeadOptions", partial(HeadOptions, steps=2))
    monkeypatch.setattr(ablation, "BlockTuning", partial(BlockTuning, steps=2))
    lines = [f"{clip.path},reading,{clip.speaker}" for clip in clips]
    unlabelled = folder / "speech.csv"
    unlabelled.write_text("\n".join(["path,corpus,speaker", *lines]), "utf-8")
    return argparse.Namespace(pretrained=folder, noise=None, unlabelled=unlabelled, cache=folder)


@pytest.mark.parametrize(
    "name", ["reference", "deviation", "no-baseline", "all-labelled", "prosody", "tuned-deviation"]
)
def test_a_row_answers_for_every_speaker_by_heads_of_others(
    name: str, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = compute(ROWS[name], clips, prepared(clips, tmp_path, monkeypatch))
    for by_protocol in parts.values():
        if name == "no-baseline":
            assert list(by_protocol) == ["none"]
        answered = {name for speakers in by_protocol["none"].values() for name in speakers}
        assert answered == {clip.speaker for clip in clips}


@pytest.mark.parametrize("name", ["reference", "no-baseline", "tuned-deviation"])
def test_the_excluded_corpus_is_scored_by_a_head_of_the_others(
    name: str, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = prepared(clips, tmp_path, monkeypatch)
    one, two = ([clip for clip in clips if clip.corpus == corpus] for corpus in ("one", "two"))
    found = compute_excluded(ROWS[name], one, two, options)
    assert {speaker for speakers in found["confusions"]["none"].values() for speaker in speakers} == {
        "s2",
        "s3",
    }
    folder = tmp_path / "excluded"
    folder.mkdir()
    (folder / f"{name}.json").write_text(json.dumps({"excluded": found}), "utf-8")
    row = excluded_table(folder).splitlines()[-1]
    assert row.startswith(f"| `{name}` | {ROWS[name].what} | ")
    assert excluded_table(tmp_path / "nothing") == ""


def test_a_speaker_is_harmed_by_a_baseline_if_more_than_two_points_are_lost_on_the_same_clips(
    clips: list[Clip],
) -> None:
    def answered(clip: Clip, *, right: bool) -> ClipLogits:
        place = EMOTIONS.index(clip.emotion)
        return ClipLogits(clip, np.eye(4, dtype=np.float32)[[place if right else (place + 1) % 4]])

    none = [answered(clip, right=clip.speaker != "s1") for clip in clips]
    running = [answered(clip, right=clip.speaker != "s0") for clip in clips]
    assert harmed({"none": none, "running": running, "ordinary": []}) == {"running": 25.0}
    some = [item for item in running if item.clip.emotion == "sad"]
    assert harmed({"none": none, "running": some, "ordinary": none}) == {"running": 25.0, "ordinary": 0.0}
