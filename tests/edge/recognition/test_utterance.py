from __future__ import annotations

import numpy as np
import pytest

from edge.arrays import Array
from edge.events import Speech, Utterance
from edge.features.vad import VadConfig
from edge.labels import EMOTIONS, UNSURE
from edge.recognition.decision import DecisionRule
from edge.recognition.utterance import UtteranceTracker

HAPPY = np.array([0.1, 0.7, 0.1, 0.1], np.float32)
SAD = np.array([0.1, 0.1, 0.7, 0.1], np.float32)


@pytest.fixture
def tracker() -> UtteranceTracker:
    return UtteranceTracker(DecisionRule(), VadConfig(memory_ms=500, leave_ms=800), 0.24)


def test_an_utterance_lasts_from_the_first_voice_to_the_last(tracker: UtteranceTracker) -> None:
    assert tracker.begin(2.0) == [Speech(2.0, True)]
    tracker.decide(HAPPY, speech=True)
    ended, utterance = tracker.end(5.0)
    assert ended == Speech(5.0, False)
    assert isinstance(utterance, Utterance)
    assert (utterance.start_s, utterance.end_s, utterance.windows) == (1.5, 4.2, 1)
    assert (utterance.label, list(utterance.probs)) == ("happy", list(EMOTIONS))
    assert not tracker.active


def test_an_utterance_begins_with_the_stream_at_the_earliest(tracker: UtteranceTracker) -> None:
    tracker.begin(0.3)
    tracker.decide(HAPPY, speech=True)
    utterance = tracker.flush(0.4)[-1]
    assert isinstance(utterance, Utterance)
    assert (utterance.start_s, utterance.end_s) == (0.0, 0.4)


def test_speech_without_a_window_is_no_utterance(tracker: UtteranceTracker) -> None:
    tracker.begin(1.0)
    assert not tracker.judged
    assert tracker.end(2.0) == [Speech(2.0, False)]


def test_the_end_of_a_stream_without_speech_has_no_events(tracker: UtteranceTracker) -> None:
    assert tracker.flush(3.0) == []


def test_a_window_without_speech_does_not_count(tracker: UtteranceTracker) -> None:
    tracker.begin(1.0)
    probs, label = tracker.decide(SAD, speech=False)
    assert (probs == SAD).all()
    assert label == UNSURE
    assert not tracker.judged


def test_the_next_utterance_starts_from_nothing(tracker: UtteranceTracker) -> None:
    tracker.begin(1.0)
    tracker.decide(HAPPY, speech=True)
    tracker.end(3.0)
    tracker.begin(5.0)
    assert not tracker.judged
    smoothed, label = tracker.decide(SAD, speech=True)
    assert (smoothed == SAD).all()
    assert label == "sad"


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("cut", range(6))
def test_changes_of_the_flag_do_not_depend_on_the_blocks(
    tracker: UtteranceTracker, active: bool, cut: int
) -> None:
    flags = np.array([active, True, True, False, True])
    if active:
        tracker.begin(1.0)
    whole = tracker.changes(flags)
    assert whole == ([4, 5] if active else [2, 4, 5])
    found: list[int] = []
    for first, part in ((0, flags[:cut]), (cut, flags[cut:])):
        for change in tracker.changes(part):
            found.append(first + change)
            (tracker.end if tracker.active else tracker.begin)(0.0)
    assert found == whole


def test_reset_forgets_the_utterance(tracker: UtteranceTracker) -> None:
    tracker.begin(1.0)
    tracker.decide(HAPPY, speech=True)
    tracker.reset()
    assert not tracker.active
    assert not tracker.judged


def spread(probs: Array) -> float:
    return float(np.ptp(probs))


def test_the_smoothed_posterior_lies_between_those_of_the_windows(tracker: UtteranceTracker) -> None:
    tracker.begin(1.0)
    tracker.decide(HAPPY, speech=True)
    smoothed, label = tracker.decide(SAD, speech=True)
    assert label == "happy"
    assert 0.0 < spread(smoothed) < spread(HAPPY)
