"""`--full` without the package that tunes: the judgement and its report."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from calibrate.fitting import full_finetune as full
from calibrate.fitting.candidates import CANDIDATES, Candidate
from calibrate.fitting.full_finetune import judge_tuned, load_network_tuner, network_conclusion, network_table
from calibrate.fitting.model_selection import Judgement, judge
from calibrate.fitting.scores import HeldOutPredictions
from edge.errors import UsageError
from edge.model.bundle import load_bundle
from edge.model.profile import ADOPTED, REJECTED
from tests.cnn_lstm import CNN_LSTM

TRUTH = np.array([0, 1, 2, 3] * 2)


def answers(right: float, truth: np.ndarray = TRUTH) -> HeldOutPredictions:
    """Predict each take with the probability `right` for its emotion."""
    posteriors = np.full((1, len(truth), 4), (1.0 - right) / 3.0)
    posteriors[0, np.arange(len(truth)), truth] = right
    return HeldOutPredictions(posteriors, truth)


def profile(before: float, after: float) -> Judgement:
    fitted = Candidate("adapter", own_statistics=False, fit=None)
    return judge([CANDIDATES[0], fitted], {"generic": answers(before), "adapter": answers(after)})


def text(table: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_network_that_answers_better_is_adopted() -> None:
    judgement = judge_tuned(answers(0.4), answers(0.6))
    assert (judgement.verdict, judgement.chosen.name) == (ADOPTED, "whole network")
    assert judgement.improvements["log_loss"].mean == pytest.approx(np.log(0.6 / 0.4))


@pytest.mark.parametrize("after", [0.2, 0.4, 0.405])
def test_a_network_that_hardly_answers_better_is_rejected_and_still_shown(after: float) -> None:
    judgement = judge_tuned(answers(0.4), answers(after))
    assert judgement.verdict == REJECTED
    assert judgement.scores["whole network"].log_loss == pytest.approx(-np.log(after))
    said = network_conclusion(profile(0.4, 0.6), judgement, Path("anna"))
    assert said.startswith("whole network rejected: no fit helped")
    assert said.endswith("No bundle was written.")


def test_the_table_has_the_generic_model_the_profile_and_the_network() -> None:
    shown = text(network_table(profile(0.4, 0.6), judge_tuned(answers(0.4), answers(0.5)))).splitlines()
    assert shown[0].split() == ["held-out", "takes", "generic", "profile", "(adapter)", "whole", "network"]
    assert shown[2].split()[-3:] == ["0.92", "0.51", "0.69"]


def test_a_session_that_supports_no_tuning_is_told_what_it_lacks() -> None:
    judgement = judge_tuned(answers(0.4, np.array([0, 1, 2] * 2)), None)
    assert judgement.verdict == REJECTED
    assert "without takes of angry" in network_conclusion(profile(0.4, 0.6), judgement, Path("anna"))
    assert "whole network" not in text(network_table(profile(0.4, 0.6), judgement))


@pytest.mark.parametrize(("of_profile", "preferred"), [(0.6, True), (0.45, False), (0.4, False)])
def test_the_profile_is_preferred_where_it_does_better(of_profile: float, *, preferred: bool) -> None:
    judgement = judge_tuned(answers(0.4), answers(0.5))
    said = network_conclusion(profile(0.4, of_profile), judgement, Path("anna"))
    assert "Use it: mmtl monitor --bundle anna" in said
    assert ("prefer it" in said) == preferred


def entries(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    found = [EntryPoint("speaker", value, full.GROUP) for value in values]
    monkeypatch.setattr(full, "entry_points", lambda **_: found)


def test_a_copy_that_was_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    entries(monkeypatch)
    with pytest.raises(UsageError, match=r"pip install 'mmtl\[export\]'"):
        load_network_tuner(load_bundle(CNN_LSTM), Path("anna"), replace=False)


def test_only_what_the_extra_brings_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    entries(monkeypatch, "a_module_that_nobody_has:SpeakerBundle")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        load_network_tuner(load_bundle(CNN_LSTM), Path("anna"), replace=False)
