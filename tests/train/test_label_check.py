"""Labels that were exchanged in one corpus are found by comparing it with the others."""

from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.labels import EMOTIONS
from tests.train.synthetic import SAMPLE_RATE
from train import label_check
from train.acoustics import measures
from train.console import ConsoleProgress
from train.corpora import Clip, four_emotions, read_corpus
from train.evaluation import score_by_corpus
from train.evaluation_run import check_confusion
from train.label_check import LabelCheck, check_labels, compare_labels, exchanged_pair

STYLE = {
    "neutral": (1.0, 1.0, 3.0),
    "happy": (1.6, 1.35, 5.0),
    "sad": (0.5, 0.9, 2.0),
    "angry": (2.5, 1.2, 4.0),
}
"""Level and pitch relative to the speaker, and syllables a second."""

Measured = dict[Path, Array]

RECORDINGS = Path(os.environ.get("MMTL_DATA", "../shared/data"))


def acted(speaker: int, emotion: str, take: int) -> Array:
    """Make half a second in which the level, pitch and beat tell the emotion relative to the speaker."""
    rng = np.random.default_rng((speaker, EMOTIONS.index(emotion), take))
    level, pitch, rate = np.array(STYLE[emotion]) * rng.normal(1.0, 0.05, 3)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    hz = pitch * (100 + 25 * speaker % 120)
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 8))
    beat = 0.55 - 0.45 * np.cos(2 * np.pi * rate * time)
    samples: Array = (0.02 * (1 + speaker % 3) * level * beat * tone).astype(np.float32)
    return samples


def write_corpora(folder: Path, names: Sequence[str]) -> Path:
    """Write a manifest of corpora of two speakers, five takes of each emotion."""
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "corpus", "speaker", "emotion"])
        for place, name in enumerate(names):
            for speaker, emotion, take in (
                (speaker, emotion, take) for speaker in range(2) for emotion in EMOTIONS for take in range(5)
            ):
                path = f"{name}-{speaker}-{emotion}-{take}.wav"
                soundfile.write(folder / path, acted(2 * place + speaker, emotion, take), SAMPLE_RATE)
                table.writerow([path, name, f"{name}{speaker}", emotion])
    return folder


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpora(tmp_path_factory.mktemp("labels") / "corpora", ["red", "green", "blue"])


@pytest.fixture(scope="module")
def clips(corpora: Path) -> list[Clip]:
    return read_corpus(corpora)


@pytest.fixture(scope="module")
def values(clips: list[Clip]) -> Measured:
    """The measures of each recording, taken once."""
    return {clip.path: measures(read_clip(clip.path)) for clip in clips}


def checked(clips: Sequence[Clip], values: Measured) -> LabelCheck:
    return compare_labels(clips, [values[clip.path] for clip in clips])


def silently(clips: Sequence[Clip]) -> Iterable[Clip]:
    return clips


def exchanged(clips: Iterable[Clip], corpus: str, first: str, second: str) -> list[Clip]:
    """Exchange two labels of one corpus."""
    other = {first: second, second: first}
    return [
        replace(clip, emotion=other.get(clip.emotion, clip.emotion)) if clip.corpus == corpus else clip
        for clip in clips
    ]


def found_in(check: LabelCheck) -> list[tuple[str, set[str]]]:
    return [(item.corpus, {item.first, item.second}) for item in check.exchanges]


def test_right_labels_raise_no_warning(clips: list[Clip], values: Measured) -> None:
    assert checked(clips, values).exchanges == ()


@pytest.mark.parametrize(("first", "second"), [*combinations(EMOTIONS, 2)])
def test_any_two_exchanged_classes_are_found_in_their_corpus_and_nowhere_else(
    clips: list[Clip], values: Measured, first: str, second: str
) -> None:
    assert found_in(checked(exchanged(clips, "green", first, second), values)) == [("green", {first, second})]


def test_exchanges_in_two_corpora_are_both_found(clips: list[Clip], values: Measured) -> None:
    wrong = exchanged(exchanged(clips, "green", "sad", "angry"), "blue", "neutral", "happy")
    found = found_in(checked(wrong, values))
    assert sorted(found) == [("blue", {"neutral", "happy"}), ("green", {"sad", "angry"})]


def test_the_warning_names_corpus_classes_and_figures(clips: list[Clip], values: Measured) -> None:
    (exchange,) = checked(exchanged(clips, "red", "sad", "angry"), values).exchanges
    text = str(exchange)
    assert "sad and angry of red look exchanged" in text
    assert "100 % of its sad as angry" in text
    assert exchange.here[0].loudness > 0.5 > -0.5 > exchange.elsewhere[0].loudness
    assert f"loudness {exchange.here[0].loudness:+.1f}" in text


def test_of_two_corpora_either_may_be_the_wrong_one_and_the_warning_says_so(
    clips: list[Clip], values: Measured
) -> None:
    two = [clip for clip in clips if clip.corpus != "blue"]
    (exchange,) = checked(exchanged(two, "red", "sad", "angry"), values).exchanges
    assert f"of {exchange.corpus} (or those of {exchange.others[0]})" in str(exchange)


def test_the_profile_is_relative_to_the_speaker(clips: list[Clip], values: Measured) -> None:
    for profile in checked(clips, values).profiles.values():
        assert profile["angry"].loudness > profile["happy"].loudness > profile["sad"].loudness
        assert profile["happy"].pitch > profile["sad"].pitch
        assert profile["happy"].rate > profile["sad"].rate


def test_one_corpus_alone_or_speakers_of_one_emotion_are_not_compared(clips: list[Clip]) -> None:
    assert check_labels([clip for clip in clips if clip.corpus == "red"], silently) is None
    angry = [clip for clip in clips if clip.corpus == "red" or clip.emotion == "angry"]
    assert check_labels(angry, silently) is None


def test_a_class_that_is_too_rare_is_not_judged(clips: list[Clip], values: Measured) -> None:
    wrong = exchanged(clips, "green", "sad", "angry")
    few = [
        clip
        for clip in wrong
        if clip.corpus != "green" or clip.emotion != "sad" or "-0.wav" in clip.path.name
    ]
    assert checked(few, values).exchanges == ()
    assert checked(few, values).confusion["green"][EMOTIONS.index("sad")] == [0.0] * 4


def test_the_pair_that_gains_most_by_an_exchange_is_found_in_a_confusion() -> None:
    table = [[90, 10, 0, 0], [0, 70, 20, 10], [0, 10, 20, 70], [0, 10, 80, 10]]
    gain, pair = exchanged_pair(table)
    assert (gain, pair) == (60.0, (2, 3))
    assert exchanged_pair([[100, 0], [0, 0]])[0] == -np.inf


def test_training_warns_of_an_exchange_and_keeps_the_figures(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.train.test_commands import SMALL, mmtl

    wrong = corpora / "wrong.csv"
    other = {"sad": "angry", "angry": "sad"}
    with (corpora / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with wrong.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        for row in rows:
            emotion = other.get(row["emotion"], row["emotion"]) if row["corpus"] == "blue" else row["emotion"]
            table.writerow({**row, "emotion": emotion})
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"validation": ["red1"], "test": ["green1"]}), "utf-8")
    assert mmtl("train", wrong, "--out", tmp_path / "run", "--split", split, *SMALL) == 0
    warned = " ".join(capsys.readouterr().err.split())
    assert "warning: the labels sad and angry of blue look exchanged" in warned
    kept = json.loads((tmp_path / "run" / "label_check.json").read_text("utf-8"))
    assert [item["corpus"] for item in kept["exchanges"]] == ["blue"]


@pytest.mark.parametrize(("wrong", "warned"), [(0.8, True), (0.4, False)])
def test_a_bundle_that_takes_two_classes_for_each_other_is_reported(
    clips: list[Clip], capsys: pytest.CaptureFixture[str], wrong: float, warned: bool
) -> None:
    red = [clip for clip in clips if clip.corpus == "red"]
    own = np.eye(len(EMOTIONS), dtype=np.float32)[[EMOTIONS.index(clip.emotion) for clip in red]]
    exchange = np.arange(len(red)) % 5 < 5 * wrong
    probs = np.where(exchange[:, None], own[:, [0, 1, 3, 2]], own)
    check_confusion(score_by_corpus(red, probs), ConsoleProgress())
    said = " ".join(capsys.readouterr().err.split())
    assert ("in red the bundle recognises 80 % of sad as angry and 80 % of angry as sad" in said) is warned


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings in {RECORDINGS}")
def test_an_exchange_is_found_in_real_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_check, "_measured", functools.cache(label_check._measured))
    real = four_emotions(read_corpus(RECORDINGS))
    right = check_labels(real, silently)
    wrong = check_labels(exchanged(real, "emotiontts", "angry", "sad"), silently)
    assert right is not None
    assert right.exchanges == ()
    assert wrong is not None
    assert found_in(wrong) == [("emotiontts", {"angry", "sad"})]
