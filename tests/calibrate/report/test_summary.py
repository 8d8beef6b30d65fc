"""The printed sentences and tables of a judgement."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.scores import Improvement
from calibrate.report.summary import (
    change_of,
    conclusion,
    confusions,
    how_it_was_judged,
    outlier_warning,
    score_table,
)
from tests.calibrate.fitting.toys import take
from tests.calibrate.report.judgements import HELPED, UNCHANGED

ROUNDS = (np.array([0, 1]),)


def printed(judgement: Judgement) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(score_table(judgement))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_scores_stand_beside_one_another_with_the_change_and_its_interval() -> None:
    assert printed(HELPED) == [
        "held-out takes before after change (95 % interval)",
        "recognised (UAR) 44% 88% +44 (+19 to +69) points",
        "log loss (nats) 1.12 0.50 -0.62 (-0.88 to -0.25)",
        "calibration error 0.25 0.06",
    ]


def test_an_unchanged_score_has_no_negative_zero() -> None:
    assert printed(UNCHANGED)[1:3] == [
        "recognised (UAR) 50% 50% +0 (+0 to +0) points",
        "log loss (nats) 0.75 0.75 +0.00 (+0.00 to +0.00)",
    ]


@pytest.mark.parametrize(
    ("improvement", "unit", "shown"),
    [
        (Improvement(0.1, -0.05, 0.3), 100.0, "+10 (-5 to +30) x"),
        (Improvement(0.001, -0.004, 0.004), 100.0, "+0 (+0 to +0) x"),
        (Improvement(2.0, 1.0, 4.0), -1.0, "-2 (-4 to -1) x"),
    ],
)
def test_a_change_reads_from_low_to_high_whichever_way_is_better(
    improvement: Improvement, unit: float, shown: str
) -> None:
    assert change_of(improvement, unit, 0, " x") == shown


def test_confusions_stand_side_by_side() -> None:
    assert confusions(HELPED).splitlines() == [
        "         answers before      answers after",
        "said as  neu hap sad ang    neu hap sad ang",
        "neutral    3   1   .   .      4   .   .   .",
        "happy      .   .   4   .      .   3   1   .",
        "sad        1   .   3   .      .   .   3   1",
        "angry      .   2   1   1      .   .   .   4",
    ]


def test_emotions_that_were_not_recorded_have_no_row() -> None:
    assert confusions(UNCHANGED).splitlines()[2:] == [
        "neutral    2   .   .   .      2   .   .   .",
        "happy      .   .   2   .      .   .   2   .",
    ]


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        (Folds("sentence", ROUNDS), "by sentence: each take was judged by a fit to takes of other sentences"),
        (Folds("take", ROUNDS), "of any sentence"),
        (
            Folds("take", ROUNDS, one_sentence=True),
            "of one sentence: other sentences may be recognised less well",
        ),
    ],
)
def test_the_report_says_how_takes_were_held_out(folds: Folds, said: str) -> None:
    assert said in how_it_was_judged(folds)


def test_the_verdict_comes_with_its_reason() -> None:
    assert conclusion(HELPED) == "adopted (bias): it lowers the log loss of held-out takes by 0.62"
    assert conclusion(UNCHANGED).startswith("rejected (generic): nothing can be fitted without")


def test_a_suspected_take_is_named_by_number_emotion_and_sentence() -> None:
    asked = "listen to take.wav, and record it again if another person spoke."
    assert outlier_warning(5, take(3, "The lid.")) == (
        f'Take 5 (angry, "The lid.") does not sound like the other takes: {asked}'
    )
    assert outlier_warning(1, take(0)) == f"Take 1 (neutral) does not sound like the other takes: {asked}"
    assert "\x1b" not in outlier_warning(2, take(1, "\x1b[2J"))
