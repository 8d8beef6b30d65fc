from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge import Recognizer, demo_clip, recognize_file
from edge.audio.sources import FileSource
from edge.errors import ModelError, UsageError
from edge.events import Utterance
from edge.labels import EMOTIONS
from edge.recognition.settings import Settings
from edge.recognition.stream_session import StreamSession
from edge.reports.file_recognition import RecognitionJob, recognized
from edge.reports.results import COLUMNS, FileResult, expected_ratings

SMALL = RecognitionJob(bundle="small")


def test_a_row_has_the_utterance_that_a_run_reports() -> None:
    session = StreamSession(Recognizer.load("small", provider="cpu"), "demo", live=False)
    events = []
    with FileSource(demo_clip()) as source:
        for block in source:
            events += session.feed(block)
    events += session.finish()[0]
    (utterance,) = [event for event in events if isinstance(event, Utterance)]
    (row,) = recognize_file(demo_clip(), "small", speaker="anna")
    assert (row.label, row.windows, row.speaker) == (utterance.label, utterance.windows, "anna")
    assert row.probs == pytest.approx(utterance.probs, abs=1e-4)
    assert (row.start_s, row.end_s) == pytest.approx((utterance.start_s, utterance.end_s), abs=1e-3)
    assert 0.5 < row.speech_share <= 1.0


def test_a_call_leaves_nothing_behind_for_the_next(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.2, 64_000), 16_000)
    first = recognize_file(demo_clip(), "small")
    recognize_file(tmp_path / "noise.wav", "small")
    assert recognize_file(str(demo_clip()), "small") == first
    assert recognize_file(demo_clip(), "small", settings=Settings(step_ms=480)) != first


def test_a_file_that_cannot_be_read_is_a_row_with_the_problem(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (row,) = recognize_file(tmp_path / "text.wav", "small")
    assert row.label == ""
    assert "cannot be read as sound" in row.problem
    (missing,) = recognize_file(tmp_path / "missing.wav", "small")
    assert "does not exist" in missing.problem


def test_a_file_that_is_cut_off_keeps_what_could_be_read(tmp_path: Path) -> None:
    whole, cut = demo_clip().read_bytes(), tmp_path / "cut.flac"
    cut.write_bytes(whole[: len(whole) // 2])
    *rows, last = recognize_file(cut, "small")
    assert [row.label for row in rows] != []
    assert all(row.problem == "" for row in rows)
    assert (last.label, last.start_s) == ("", last.duration_s)
    assert "damaged or cut off" in last.problem


def test_silence_has_one_row_without_a_label(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(48_000), 16_000)
    (row,) = recognize_file(tmp_path / "silence.wav", "small")
    cells = row.cells()
    assert (row.label, row.problem, row.speech_share, row.duration_s) == ("", "", 0.0, 3.0)
    assert cells["happy"] is None
    assert tuple(cells) == COLUMNS


def test_a_model_or_step_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        recognize_file(demo_clip(), tmp_path)
    with pytest.raises(UsageError, match="step"):
        recognize_file(demo_clip(), "small", settings=Settings(step_ms=70))


def test_a_result_comes_back_from_json_as_it_was() -> None:
    result = recognized(demo_clip(), SMALL)
    assert len(result.curve.end_s) > 40
    assert FileResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_ratings_of_one_emotion_are_its_norms(emotion: str) -> None:
    certain = {name: float(name == emotion) for name in EMOTIONS}
    ratings = expected_ratings(certain)
    assert (ratings["valence"] > 3.0) == (emotion == "happy")
    assert (ratings["arousal"] > 3.0) == (emotion in {"happy", "angry"})
    assert expected_ratings({}) == {}
