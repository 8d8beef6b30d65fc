"""What a fit has shown, as the page shows it: an object for JSON, and the picture."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from calibrate.report.summary import (
    SCORES,
    conclusion,
    how_it_was_judged,
    score_rows,
    unlike_the_others,
    what_it_rests_on,
)
from calibrate.speaker import Calibration, OrdinaryCalibration
from edge.errors import UsageError
from edge.labels import EMOTIONS
from edge.model.profile import Profile


def ordinary_result(calibration: OrdinaryCalibration) -> dict[str, Any]:
    """Say what a profile from ordinary speech rests on."""
    return {
        "name": calibration.profile.name,
        "usable": True,
        "verdict": what_it_rests_on(calibration.fit),
        "lines": [f"Warning: {warning}" for warning in calibration.fit.warnings],
        "table": None,
        "confusions": [],
    }


def labelled_result(calibration: Calibration, earlier: Profile | None) -> dict[str, Any]:
    """Say the verdict, the scores before and after, and which profile there is now.

    Args:
        calibration: of the session.
        earlier: the profile that was kept instead of this session's.
    """
    judgement, name = calibration.judgement, calibration.profile.name
    verdict = conclusion(judgement)
    doubts = [unlike_the_others(index + 1, calibration.takes[index]) for index in calibration.outliers]
    lines = [
        *(f"{doubt}: record it again if another person spoke." for doubt in doubts),
        how_it_was_judged(calibration.folds),
    ]
    if not calibration.adopted:
        lines.append(
            f"The earlier profile {name} stays in use: this session's fit is not kept."
            if earlier
            else "The generic model stays in use."
        )
    sides = (("Answers before", judgement.before), ("Answers after", judgement.after))
    return {
        "name": name,
        "usable": calibration.adopted or earlier is not None,
        "verdict": f"{verdict[:1].upper()}{verdict[1:]}.",
        "lines": lines,
        "table": {"columns": SCORES, "rows": score_rows(judgement)},
        "confusions": [
            {"title": title, "emotions": EMOTIONS, "rows": [list(map(int, row)) for row in scores.confusion]}
            for title, scores in sides
        ],
    }


def judgement_picture(calibration: Calibration) -> bytes | None:
    """Draw the judgement as a PNG; None without matplotlib, or if no temporary file can be written."""
    from calibrate.report.picture import draw_judgement

    with TemporaryDirectory(prefix="mmtl-") as folder:
        path = Path(folder, "judgement.png")
        try:
            draw_judgement(calibration.profile.name, calibration.judgement, calibration.folds, path)
        except UsageError:
            return None
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise
            return None
        return path.read_bytes()
