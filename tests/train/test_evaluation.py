from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edge.model.bundle import Bundle
from edge.model.head import softmax
from edge.model.manifest import read_manifest
from tests.cnn_lstm import CNN_LSTM
from tests.tolerances import float32_tolerance
from tests.train.synthetic import SAMPLE_RATE, tiny_checkpoint, voice, write_corpus
from train.corpora import Clip, read_corpus
from train.evaluation import THRESHOLDS, answers_by_threshold, described, recognise_clips, score_by_corpus
from train.segments import normalised, read_spectra

DATA = Path(os.environ.get("MMTL_DATA", "../shared/data"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("corpus"), speakers=3, takes=1, seconds=0.9))


def test_the_runtime_gives_a_clip_what_the_trained_network_gives_it(
    bundle: Bundle, clips: list[Clip]
) -> None:
    model = tiny_checkpoint()
    probs = recognise_clips(bundle, clips)
    for item, found in zip(read_spectra(clips, model.front_end, 49), probs, strict=True):
        frames = normalised(item, model.normalisation)
        whole = frames[: (len(frames) - 49) // 8 * 8 + 49]  # what its features are made of
        with torch.no_grad():
            logits = model.net(torch.from_numpy(whole)[None])[0].numpy()
        np.testing.assert_allclose(found, softmax(logits / model.temperature), atol=1e-3)


def test_every_clip_is_a_new_stream(bundle: Bundle, clips: list[Clip]) -> None:
    together = recognise_clips(bundle, clips[:4])
    singly = np.concatenate([recognise_clips(bundle, [clip]) for clip in clips[:4]])
    np.testing.assert_array_equal(together, singly)


@pytest.mark.parametrize("seconds", [0.005, 0.1, 0.5])
def test_a_clip_too_short_for_a_window_has_an_answer_too(
    bundle: Bundle, tmp_path: Path, seconds: float
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(1, "sad", 0, seconds), SAMPLE_RATE)
    clip = Clip(path=tmp_path / "a.wav", corpus="made", speaker="s1", emotion="sad")
    probs = recognise_clips(bundle, [clip])
    assert probs.shape == (1, 4)
    assert probs.sum() == pytest.approx(1.0, rel=0, abs=float32_tolerance(2 * 4, 1.0))


def answers(clips: list[Clip], *, right: bool = True) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    order = ["neutral", "happy", "sad", "angry"]
    places = [(order.index(clip.emotion) + (not right)) % 4 for clip in clips]
    return np.eye(4, dtype=np.float32)[places]


def test_scores_are_percentages_by_corpus_and_speaker(clips: list[Clip]) -> None:
    scores = score_by_corpus(clips, answers(clips))["synthetic"]
    assert (scores.speakers, scores.clips) == (3, 12)
    assert [scores.uar, scores.accuracy, scores.macro_f1, scores.worst] == [100.0] * 4
    assert scores.ece == 0.0
    assert scores.per_speaker == {"s0": 100.0, "s1": 100.0, "s2": 100.0}
    assert scores.confusion == tuple(tuple(3 if i == j else 0 for j in range(4)) for i in range(4))


def test_the_worst_speaker_and_the_interval_tell_speakers_apart(clips: list[Clip]) -> None:
    probs = answers(clips)
    wrong = [clip.speaker == "s1" for clip in clips]
    probs[wrong] = answers([clip for clip in clips if clip.speaker == "s1"], right=False)
    scores = score_by_corpus(clips, probs)["synthetic"]
    assert scores.worst == 0.0
    assert scores.uar == pytest.approx(200 / 3)
    assert scores.low < scores.uar < scores.high


def test_answers_are_weighed_by_threshold_together_and_by_corpus(clips: list[Clip]) -> None:
    sure, doubtful = answers(clips), answers(clips, right=False)
    probs = np.where(np.arange(len(clips))[:, None] < 3, 0.85 * sure + 0.0375, 0.4 * doubtful + 0.15)
    found = answers_by_threshold(clips, probs)
    assert [item.threshold for item in found] == list(THRESHOLDS)
    assert [item.coverage for item in found] == pytest.approx([100.0] * 3 + [25.0] * 3)
    assert [item.accuracy for item in found] == pytest.approx([25.0] * 3 + [100.0] * 3)
    assert score_by_corpus(clips, probs)["synthetic"].answers == found


def test_corpora_are_scored_apart(clips: list[Clip]) -> None:
    other = [Clip(path=clip.path, corpus="b", speaker="x", emotion=clip.emotion) for clip in clips[:4]]
    probs = np.concatenate([answers(clips), answers(other, right=False)])
    scores = score_by_corpus([*clips, *other], probs)
    assert {name: item.uar for name, item in scores.items()} == {"b": 0.0, "synthetic": 100.0}


def test_described_scores_are_json(clips: list[Clip]) -> None:
    scores = described(score_by_corpus(clips, answers(clips)))
    assert json.loads(json.dumps(scores))["synthetic"]["uar"] == 100.0


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "manifest.csv").is_file(), reason="no recordings in MMTL_DATA or ../shared/data"
)
def test_the_shipped_model_has_no_speaker_on_two_sides_and_none_of_emotale() -> None:
    training = read_manifest(CNN_LSTM).training
    with (DATA / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    of_emotale = {row["speaker"] for row in rows if row["corpus"] == "emotale"}
    sides = [set(training["speakers"][side]) for side in ("train", "validation", "test")]
    assert all(sides)
    assert of_emotale
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert set.union(*sides) <= {row["speaker"] for row in rows} - of_emotale
    assert "emotale" not in {corpus["name"] for corpus in training["corpora"]}
