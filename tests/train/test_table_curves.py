"""Adaptation curves of the rows of the tables."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edge.labels import DIMENSIONS
from tests.command_line import exit_code_of
from tests.train.synthetic import TINY, make_spectra, write_corpus, write_encoder
from train.adaptation_curve import PAPER_TUNING, SHOTS
from train.head_training import HeadOptions
from train.mmtl import Samples
from train.model import EmotionNet
from train.segments import fit_normalisation
from train.speaker_protocols import speaker_clips
from train.systems.self_attention import SelfAttention
from train.table_curves import emotion_curve, network_curves


@pytest.fixture(scope="module")
def clips() -> list[Samples]:
    spectra = make_spectra(speakers=1, takes=6, frames=(56,))
    return speaker_clips(spectra, fit_normalisation(spectra), 297, DIMENSIONS)


def test_a_curve_scores_the_same_clips_at_every_k_and_k_0_is_without_adaptation(clips: list[Samples]) -> None:
    net = EmotionNet(TINY).eval()
    points = emotion_curve(net, clips, seed=1)
    assert [point.shots for point in points] == list(SHOTS)
    assert {point.clips for point in points} == {len(clips) - 20}
    assert points == emotion_curve(net, clips, seed=1)


def test_ratings_are_tuned_on_only_with_auxiliary_tasks(
    clips: list[Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.table_curves.PAPER_TUNING", replace(PAPER_TUNING, inner_steps=1))
    assert list(network_curves(EmotionNet(TINY).eval(), clips, auxiliary=False)) == ["emotions"]
    both = network_curves(EmotionNet(TINY).eval(), clips, auxiliary=True)
    assert {labels: len(draws) for labels, draws in both.items()} == {"emotions": 5, "ratings": 1}
    assert [point.shots for point in both["ratings"][0]] == list(SHOTS)


def test_a_speaker_with_too_few_clips_and_another_network_have_no_curve(clips: list[Samples]) -> None:
    assert not network_curves(EmotionNet(TINY), clips[:20], auxiliary=True)
    assert not network_curves(SelfAttention(), clips, auxiliary=False)


def test_the_command_writes_table_figures_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", speakers=3, takes=6, seconds=0.6)
    encoder = write_encoder(tmp_path / "encoder.safetensors")
    monkeypatch.setattr("train.encoder_cells.HeadOptions", partial(HeadOptions, steps=5))
    for module in ("train.table_curves", "train.speaker_protocols"):
        monkeypatch.setattr(f"{module}.PAPER_TUNING", replace(PAPER_TUNING, inner_steps=1))
    out = tmp_path / "out"
    asked = ("tables", corpus, "--out", out, "--encoder", encoder, "--rows", "ear-erm,ear-mmtl")
    assert exit_code_of(*asked, "--folds", "s0", "--curve") == 0
    shown = capsys.readouterr().out
    assert "| system | cells | K = 0 | K = 1 | K = 2 | K = 4 | K = 8 | K = 12 | K = 16 | K = 20 |" in shown
    with (out / "curve.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(row["system"], row["labels"]) for row in lines[:: len(SHOTS)]] == [
        ("ear-erm", "emotions"),
        ("ear-mmtl", "emotions"),
        ("ear-mmtl", "ratings"),
    ]
    assert {row["gain"] for row in lines if row["k"] == "0"} == {"0.000"}
    assert (out / "curve.png").stat().st_size > 0

    first = (out / "curve.csv").read_text()
    monkeypatch.setattr("train.table_curves.network_curves", None)
    assert exit_code_of(*asked, "--folds", "s0", "--curve") == 0
    assert (out / "curve.csv").read_text() == first


def test_a_curve_that_no_row_can_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "corpus", speakers=3, takes=1, seconds=0.6)
    asked = ("--rows", "self-attention", "--folds", "s0", "--epochs", "1", "--augment", "0", "--curve")
    assert exit_code_of("tables", corpus, "--out", tmp_path / "out", *asked) == 2
    assert "no cell has a curve" in capsys.readouterr().err
    assert (tmp_path / "out" / "tables.md").exists()
