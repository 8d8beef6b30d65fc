"""The judgement of a session as sentences and tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.ordinary import OrdinaryFit
from calibrate.fitting.scores import HeldOutScores, Improvement
from calibrate.takes import Take
from edge.labels import EMOTIONS
from edge.output.text import printable

if TYPE_CHECKING:
    from rich.table import Table


SCORES: Final = ("held-out takes", "before", "after", "change (95 % interval)")
"""Headings of `score_rows`."""


def score_rows(judgement: Judgement) -> list[tuple[str, str, str, str]]:
    """Return the scores of the generic model and of the chosen candidate, with their difference, as texts."""
    before, after, improvements = judgement.before, judgement.after, judgement.improvements
    points = change_of(improvements["uar"], 100.0, 0, " points")
    nats = change_of(improvements["log_loss"], -1.0, 2, "")
    return [
        ("recognised (UAR)", f"{before.uar:.0%}", f"{after.uar:.0%}", points),
        ("log loss (nats)", f"{before.log_loss:.2f}", f"{after.log_loss:.2f}", nats),
        ("calibration error", f"{before.ece:.2f}", f"{after.ece:.2f}", ""),
    ]


def score_table(judgement: Judgement) -> Table:
    """Lay out the scores of the generic model and of the chosen candidate, with their difference."""
    from rich.table import Table

    first, *others = SCORES
    table = Table(first, box=None)
    for column in others:
        table.add_column(column, justify="right")
    for row in score_rows(judgement):
        table.add_row(*row)
    return table


def confusions(judgement: Judgement) -> str:
    """Lay out the confusion matrices before and after, side by side."""
    sides = [_matrix("before", judgement.before), _matrix("after", judgement.after)]
    emotions = [name for name, row in zip(EMOTIONS, judgement.before.confusion, strict=True) if any(row)]
    names = ["", "said as", *emotions]
    rows = zip(names, *sides, strict=True)
    return "\n".join(f"{name:<9}{left}    {right}".rstrip() for name, left, right in rows)


def conclusion(judgement: Judgement) -> str:
    """Say the verdict and its reason."""
    return f"{judgement.verdict} ({judgement.chosen.name}): {judgement.reason}"


def unlike_the_others(number: int, take: Take) -> str:
    """Say that a take, counted from 1, may be of another person."""
    said = f', "{take.text}"' if take.text else ""
    return printable(f"Take {number} ({EMOTIONS[take.emotion]}{said}) does not sound like the other takes")


def outlier_warning(number: int, take: Take) -> str:
    """Say that a take may be of another person, and what to do."""
    listen = f"listen to {take.path}, and record it again if another person spoke."
    return f"{unlike_the_others(number, take)}: {printable(listen)}"


def what_it_rests_on(fit: OrdinaryFit) -> str:
    """Say how much ordinary speech a profile was fitted to."""
    return (
        f"Fitted to {fit.speech_s:.0f} s of ordinary speech. It has no labels, so the gain is not measured."
    )


def how_it_was_judged(folds: Folds) -> str:
    """Say how the takes were held out, and what that does not show."""
    if folds.held_out_by == "sentence":
        return "Held out by sentence: each take was judged by a fit to takes of other sentences."
    if folds.one_sentence:
        return (
            "Held out by take, and all takes are of one sentence: "
            "other sentences may be recognised less well. Record several to find out."
        )
    return "Held out by take: each take was judged by a fit to the other takes, of any sentence."


def change_of(improvement: Improvement, unit: float, digits: int, name: str) -> str:
    """Write an improvement as the change of its score, with the 95 % interval.

    Args:
        improvement: of a score.
        unit: factor to the displayed unit; negative for a score whose lower values are better.
        digits: decimals.
        name: of the unit, with a space before it.
    """
    mean, *ends = (
        round(unit * value, digits) + 0.0 for value in (improvement.mean, improvement.low, improvement.high)
    )
    low, high = sorted(ends)
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}){name}"


def _matrix(title: str, scores: HeldOutScores) -> list[str]:
    """Lay out the counts of the emotions that were recorded, below abbreviated headings."""
    heads = " ".join(f"{name[:3]:>3}" for name in EMOTIONS)
    asked = [row for row in scores.confusion if any(row)]
    rows = [" ".join(f"{count or '.':>3}" for count in row) for row in asked]
    return [f"{f'answers {title}':^{len(heads)}}", heads, *rows]
