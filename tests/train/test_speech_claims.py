"""Claims in ordinary speech are the labels of the recogniser's windows with speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.events import Window
from edge.inference.engine import Engine
from edge.inference.provider import open_engine
from edge.model.bundle import Bundle, load_bundle
from edge.recognition.recognizer import Recognizer
from tests.cnn_lstm import CNN_LSTM
from tests.train.synthetic import SAMPLE_RATE
from train.speech_claims import SpeechLabels, read_speech, speech_claims, speech_labels


@pytest.fixture(scope="module")
def relative() -> Bundle:
    """A bundle whose head reads the baseline."""
    bundle = load_bundle(CNN_LSTM)
    shape = bundle.head.fc1_weight.shape
    weight = 60.0 * np.random.default_rng(3).standard_normal(shape).astype(np.float32) / shape[1] ** 0.5
    return replace(bundle, head=replace(bundle.head, baseline_weight=weight))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with speech, and one of silence."""
    made = tmp_path_factory.mktemp("speech")
    soundfile.write(made / "talk.wav", read_clip(Path("edge/demo.flac"))[: 11 * SAMPLE_RATE], SAMPLE_RATE)
    soundfile.write(made / "still.wav", np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE)
    (made / "manifest.csv").write_text("path,corpus\ntalk.wav,reading\nstill.wav,still\n")
    return made


def labels(bundle: Bundle, sound: Array) -> Counter[str]:
    recognizer = Recognizer(bundle, provider="cpu")
    events = recognizer.feed(sound) + recognizer.flush()
    return Counter(event.label for event in events if isinstance(event, Window) and event.speech)


def test_the_labels_are_those_of_a_recogniser_with_and_without_the_baseline(
    relative: Bundle, folder: Path
) -> None:
    found = list(speech_labels(relative, open_engine(relative, "cpu"), read_speech(folder)))
    assert [(item.corpus, item.baseline) for item in found] == [
        ("reading", "none"),
        ("reading", "running"),
        ("still", "none"),
        ("still", "running"),
    ]
    without, running, *still = (item.labels for item in found)
    sound = read_clip(folder / "talk.wav")
    plain = replace(relative, head=replace(relative.head, baseline_weight=None))
    assert without.total() == running.total() > 20
    assert without == labels(plain, sound)
    assert running == labels(relative, sound)
    assert running != without
    assert not any(item.total() for item in still)


def test_the_network_runs_once_for_both(
    relative: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    classify: Callable[[Engine, Array], Array] = Engine.classify

    def spy(self: Engine, windows: Array) -> Array:
        calls.append(len(windows))
        return classify(self, windows)

    monkeypatch.setattr(Engine, "classify", spy)
    recordings = read_speech(folder)[:1]
    both = list(speech_labels(relative, open_engine(relative, "cpu"), recordings))
    twice = list(calls)
    calls.clear()
    plain = replace(relative, head=replace(relative.head, baseline_weight=None))
    (alone,) = speech_labels(plain, open_engine(plain, "cpu"), recordings)
    assert twice == calls
    assert alone.labels == both[0].labels
    assert alone.baseline == "none"


def test_shares_are_of_all_windows_with_speech() -> None:
    found = [
        SpeechLabels("a", "running", Counter(neutral=5, angry=3)),
        SpeechLabels("a", "running", Counter(unsure=2)),
        SpeechLabels("b", "running", Counter(sad=10)),
        SpeechLabels("a", "none", Counter(happy=1)),
    ]
    claims = {(item.corpus, item.baseline): item for item in speech_claims(found)}
    one = claims["a", "running"]
    assert (one.recordings, one.windows, one.claimed) == (2, 10, 30.0)
    assert one.shares == {"neutral": 50.0, "happy": 0.0, "sad": 0.0, "angry": 30.0, "unsure": 20.0}
    assert claims["together", "running"].claimed == 65.0
    assert claims["a", "none"].claimed == 100.0


def test_speech_needs_recordings_that_exist(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path\n")
    with pytest.raises(UsageError, match="has no rows"):
        read_speech(tmp_path)
    (tmp_path / "manifest.csv").write_text("path\nmissing.wav\n")
    with pytest.raises(UsageError, match=r"line 2: no sound file .*missing\.wav"):
        read_speech(tmp_path)
