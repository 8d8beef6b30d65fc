from __future__ import annotations

import math

import numpy as np
import pytest

from edge.arrays import Array
from edge.labels import EMOTIONS, UNSURE
from edge.recognition.decision import Decision, DecisionRule
from tests.tolerances import float32_tolerance

STEP_S = 0.24
PROMPT = DecisionRule(smoothing_s=0.0)
"""No smoothing: what is decided on is the window's own posterior."""


def sure(emotion: str, prob: float = 0.97) -> Array:
    """A posterior with one emotion at `prob` and the others equal."""
    rest = (1.0 - prob) / (len(EMOTIONS) - 1)
    return np.array([prob if name == emotion else rest for name in EMOTIONS], np.float32)


def split(first: str, share: float, second: str, other: float) -> Array:
    rest = (1.0 - share - other) / (len(EMOTIONS) - 2)
    given = {first: share, second: other}
    return np.array([given.get(name, rest) for name in EMOTIONS], np.float32)


def labels(decision: Decision, *posteriors: Array) -> list[str]:
    return [decision.update(probs) for probs in posteriors]


@pytest.mark.parametrize("step_s", [0.08, 0.24, 1.4])
def test_after_the_time_constant_a_change_is_63_percent_done(step_s: float) -> None:
    rule = DecisionRule(smoothing_s=7 * step_s)
    decision = Decision(rule, step_s)
    decision.update(sure("sad", 1.0))
    for _ in range(7):
        decision.update(sure("happy", 1.0))
    assert decision.smoothed is not None
    happy, tolerance = decision.smoothed[EMOTIONS.index("happy")], float32_tolerance(8, 1.0)
    assert happy == pytest.approx(1 - math.exp(-1), rel=0, abs=tolerance)
    assert decision.smoothed.sum() == pytest.approx(1.0, rel=0, abs=float32_tolerance(4 * 8, 1.0))


def test_the_first_window_counts_in_full() -> None:
    decision = Decision(DecisionRule(), STEP_S)
    assert decision.update(sure("angry")) == "angry"
    np.testing.assert_array_equal(decision.smoothed, sure("angry"))


def test_no_smoothing_can_be_asked_for() -> None:
    decision = Decision(PROMPT, STEP_S)
    labels(decision, sure("angry"), sure("sad"))
    np.testing.assert_array_equal(decision.smoothed, sure("sad"))


def test_another_emotion_takes_over_after_leading_in_two_windows() -> None:
    decision = Decision(PROMPT, STEP_S)
    said = labels(decision, split("sad", 0.5, "happy", 0.4), *[split("sad", 0.4, "happy", 0.55)] * 3)
    assert said == ["sad", "sad", "happy", "happy"]


def test_a_lead_within_the_margin_never_takes_over() -> None:
    decision = Decision(PROMPT, STEP_S)
    said = labels(decision, sure("sad"), *[split("sad", 0.43, "happy", 0.5)] * 10)
    assert said == ["sad"] * 11


def test_an_interrupted_lead_starts_again() -> None:
    decision = Decision(PROMPT, STEP_S)
    happy, sad = split("sad", 0.4, "happy", 0.55), split("sad", 0.55, "happy", 0.4)
    assert labels(decision, sad, happy, sad, happy, sad) == ["sad"] * 5


def test_two_challengers_do_not_add_up() -> None:
    decision = Decision(PROMPT, STEP_S)
    happy, angry = split("sad", 0.4, "happy", 0.55), split("sad", 0.4, "angry", 0.55)
    assert labels(decision, sure("sad"), happy, angry, happy, angry, angry) == ["sad"] * 5 + ["angry"]


@pytest.mark.parametrize(("prob", "label"), [(0.39, UNSURE), (0.41, "happy")])
def test_no_emotion_is_claimed_below_the_limit(prob: float, label: str) -> None:
    assert Decision(DecisionRule(), STEP_S).update(sure("happy", prob)) == label


def test_the_label_held_comes_back_when_it_is_sure_again() -> None:
    decision = Decision(PROMPT, STEP_S)
    assert labels(decision, sure("sad"), sure("sad", 0.3), sure("sad")) == ["sad", UNSURE, "sad"]


def test_near_the_limit_a_claim_stands_and_so_does_unsure() -> None:
    decision = Decision(PROMPT, STEP_S)
    near = [sure("sad", prob) for prob in (0.38, 0.42, 0.36, 0.44)]
    assert labels(decision, sure("sad"), *near) == ["sad"] * 5
    assert labels(decision, sure("sad", 0.34), *near) == [UNSURE] * 5
    assert labels(decision, sure("sad", 0.46), *near) == ["sad"] * 5


def test_reset_forgets_that_nothing_was_claimed() -> None:
    decision = Decision(PROMPT, STEP_S)
    assert labels(decision, sure("sad", 0.3), sure("sad", 0.42)) == [UNSURE, UNSURE]
    decision.reset()
    assert labels(decision, sure("sad", 0.42)) == ["sad"]


def test_the_average_is_over_all_windows_of_the_utterance() -> None:
    decision = Decision(DecisionRule(), STEP_S)
    posteriors = [sure("sad", 0.9), sure("happy", 0.5), sure("sad", 0.4)]
    labels(decision, *posteriors)
    average, label = decision.average()
    tolerance = float32_tolerance(len(posteriors), 1.0)
    np.testing.assert_allclose(average, np.mean(posteriors, axis=0), rtol=0, atol=tolerance)
    assert (label, decision.windows) == ("sad", 3)


def test_an_average_below_the_limit_claims_nothing() -> None:
    decision = Decision(DecisionRule(), STEP_S)
    labels(decision, sure("sad", 0.45), sure("happy", 0.45), sure("angry", 0.45))
    assert decision.average()[1] == UNSURE


def test_reset_forgets_the_utterance() -> None:
    decision = Decision(DecisionRule(), STEP_S)
    labels(decision, sure("sad"), sure("sad"), sure("happy"))
    decision.reset()
    assert decision.smoothed is None
    assert decision.windows == 0
    assert decision.update(sure("happy")) == "happy"
    np.testing.assert_array_equal(decision.average()[0], sure("happy"))


def test_the_posteriors_given_are_not_changed() -> None:
    decision, first = Decision(DecisionRule(), STEP_S), sure("sad")
    labels(decision, first, sure("happy"))
    np.testing.assert_array_equal(first, sure("sad"))
