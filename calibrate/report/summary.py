"""What came of a session, in words and as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrate.fitting.folds import Folds
from calibrate.fitting.model_selection import Judgement
from calibrate.fitting.scores import Gain, Scores
from calibrate.takes import Take
from edge.labels import EMOTIONS
from edge.output.text import printable

if TYPE_CHECKING:
    from rich.table import Table


def score_table(judgement: Judgement) -> Table:
    """Lay out the scores of the generic model and of the choice, and by how much they differ."""
    from rich.table import Table

    before, after, gains = judgement.before, judgement.after, judgement.gains
    table = Table("held-out takes", box=None)
    for column in ("before", "after", "change (95 % interval)"):
        table.add_column(column, justify="right")
    points = change_of(gains["uar"], 100.0, 0, " points")
    nats = change_of(gains["log_loss"], -1.0, 2, "")
    table.add_row("recognised (UAR)", f"{before.uar:.0%}", f"{after.uar:.0%}", points)
    table.add_row("log loss (nats)", f"{before.log_loss:.2f}", f"{after.log_loss:.2f}", nats)
    table.add_row("calibration error", f"{before.ece:.2f}", f"{after.ece:.2f}", "")
    return table


def confusions(judgement: Judgement) -> str:
    """Lay out how often each emotion was answered with which, before and after, side by side."""
    sides = [_matrix("before", judgement.before), _matrix("after", judgement.after)]
    emotions = [name for name, row in zip(EMOTIONS, judgement.before.confusion, strict=True) if any(row)]
    names = ["", "said as", *emotions]
    rows = zip(names, *sides, strict=True)
    return "\n".join(f"{name:<9}{left}    {right}".rstrip() for name, left, right in rows)


def conclusion(judgement: Judgement) -> str:
    """Say what was decided and why."""
    return f"{judgement.verdict} ({judgement.chosen.name}): {judgement.reason}"


def outlier_warning(number: int, take: Take) -> str:
    """Say that a take, counted from 1, may be another person's."""
    said = f', "{take.text}"' if take.text else ""
    return printable(
        f"Take {number} ({EMOTIONS[take.emotion]}{said}) does not sound like the other takes: "
        f"listen to {take.path}, and record it again if somebody else spoke."
    )


def how_it_was_judged(folds: Folds) -> str:
    """Say what the held-out takes were judged by, and what that does not show."""
    if folds.held_out_by == "sentence":
        return "Held out by sentence: each take was judged by what takes of other sentences taught."
    if folds.one_sentence:
        return (
            "Held out by take, and all takes are of one sentence: "
            "of others it may recognise less. Record several to know."
        )
    return "Held out by take: each was judged by what the other takes taught, of whatever sentence."


def change_of(gain: Gain, unit: float, digits: int, name: str) -> str:
    """Write a gain as the change of its figure, with the 95 % interval.

    Args:
        gain: what a figure is better by.
        unit: 1 in the unit that is shown; negative where less is better.
        digits: decimals.
        name: of the unit, with a space before it.
    """
    mean, *ends = (round(unit * value, digits) + 0.0 for value in (gain.mean, gain.low, gain.high))
    low, high = sorted(ends)
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}){name}"


def _matrix(title: str, scores: Scores) -> list[str]:
    """Lay out counts below the beginnings of the answers; only emotions that were asked for."""
    heads = " ".join(f"{name[:3]:>3}" for name in EMOTIONS)
    asked = [row for row in scores.confusion if any(row)]
    rows = [" ".join(f"{count or '.':>3}" for count in row) for row in asked]
    return [f"{f'answers {title}':^{len(heads)}}", heads, *rows]
