"""What came of a session as a whole: the fit, what was doubted, and what became of the profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calibrate.fitting.model_selection import Fitted, Judgement
from calibrate.takes import Take
from edge.model.profile import ADOPTED, Profile
from edge.system.shell import quoted

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Outcome:
    """What came of a session."""

    fitted: Fitted
    tuned: Judgement | None
    """Of the whole network, where that was tuned."""
    doubtful: Sequence[tuple[int, Take]]
    """Takes that do not sound like the others, by their number from 1."""
    stays: Profile | None
    """The profile that was there before and still is, for this session was rejected."""

    @property
    def adopted(self) -> bool:
        """Whether the session helps."""
        return self.fitted.judgement.verdict == ADOPTED


def show(name: str, outcome: Outcome, out: Path | None) -> None:
    """Print what is doubted, the scores before and after, the verdict and what to do with it.

    Args:
        name: of the profile.
        outcome: of the session.
        out: where the bundle of the tuned network goes.
    """
    from calibrate.report.summary import conclusion, confusions, doubt, how_it_was_judged, score_table
    from edge.output.terminal import plain_console

    judgement = outcome.fitted.judgement
    console = plain_console()
    for number, take in outcome.doubtful:
        console.print(f"{doubt(number, take)}\n", soft_wrap=True)
    console.print(score_table(judgement))
    console.print(f"\n{confusions(judgement)}\n", soft_wrap=True)
    console.print(how_it_was_judged(outcome.fitted.folds), soft_wrap=True)
    console.print(conclusion(judgement), soft_wrap=True)
    console.print(_what_now(name, outcome), soft_wrap=True)
    if outcome.tuned and out:
        _show_tuned(console, outcome.fitted.judgement, outcome.tuned, out)


def _what_now(name: str, outcome: Outcome) -> str:
    """Say which profile there is now, and how to apply or see it."""
    if outcome.adopted:
        return f"Apply it: mmtl monitor --profile {quoted(name)}"
    if outcome.stays:
        made = f" of {outcome.stays.made:%Y-%m-%d %H:%M} UTC" if outcome.stays.made else ""
        return f"The earlier profile {name}{made} stays in use: this session's fit is not kept."
    command = f"mmtl profile show {quoted(name)}"
    return f"The generic model stays. The profile {name} is kept to be looked at: {command}"


def _show_tuned(console: Console, fitted: Judgement, tuned: Judgement, out: Path) -> None:
    """Print what the tuned network gives beside the profile, and what became of it."""
    from calibrate.fitting.full_finetune import full_conclusion, full_table

    console.print()
    console.print(full_table(fitted, tuned))
    console.print(full_conclusion(fitted, tuned, out), soft_wrap=True)
