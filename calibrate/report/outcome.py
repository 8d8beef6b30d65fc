"""The printed report of a calibration: suspected takes, scores, verdict, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from calibrate.fitting.model_selection import Judgement
from calibrate.speaker import Calibration, OrdinaryCalibration
from edge.model.profile import Profile
from edge.system.shell import quoted

if TYPE_CHECKING:
    from rich.console import Console


def print_report(calibration: Calibration, earlier: Profile | None, out: Path | None) -> None:
    """Print suspected takes, the scores before and after, the verdict and what to do with it.

    Args:
        calibration: of the session.
        earlier: the profile that was kept instead of this session's.
        out: the folder of the tuned network's bundle.
    """
    from calibrate.report.summary import (
        conclusion,
        confusions,
        how_it_was_judged,
        outlier_warning,
        score_table,
    )
    from edge.output.console import plain_console

    judgement = calibration.judgement
    console = plain_console()
    for index in calibration.outliers:
        console.print(f"{outlier_warning(index + 1, calibration.takes[index])}\n", soft_wrap=True)
    console.print(score_table(judgement))
    console.print(f"\n{confusions(judgement)}\n", soft_wrap=True)
    console.print(how_it_was_judged(calibration.folds), soft_wrap=True)
    console.print(conclusion(judgement), soft_wrap=True)
    console.print(_next_step(calibration, earlier), soft_wrap=True)
    if calibration.network and out:
        _print_network(console, judgement, calibration.network, out)


def print_ordinary(calibration: OrdinaryCalibration) -> None:
    """Print how much speech a profile from ordinary speech rests on, what may be wrong, and the next step."""
    from calibrate.report.summary import what_it_rests_on
    from edge.output.console import plain_console

    console, fit, name = plain_console(), calibration.fit, calibration.profile.name
    for warning in fit.warnings:
        console.print(f"Warning: {warning}\n", soft_wrap=True)
    console.print(what_it_rests_on(fit), soft_wrap=True)
    console.print(f"Apply it: mmtl monitor --profile {quoted(name)}", soft_wrap=True)


def _next_step(calibration: Calibration, earlier: Profile | None) -> str:
    """Say which profile there is now, and how to apply or inspect it."""
    name = calibration.profile.name
    if calibration.adopted:
        return f"Apply it: mmtl monitor --profile {quoted(name)}"
    if earlier:
        made = f" of {earlier.made:%Y-%m-%d %H:%M} UTC" if earlier.made else ""
        return f"The earlier profile {name}{made} stays in use: this session's fit is not kept."
    command = f"mmtl profile show {quoted(name)}"
    return f"The generic model stays in use. The rejected profile {name} can be inspected: {command}"


def _print_network(console: Console, profile: Judgement, network: Judgement, out: Path) -> None:
    """Print the scores of the tuned network beside the profile's, and the verdict on it."""
    from calibrate.fitting.full_finetune import network_conclusion, network_table

    console.print()
    console.print(network_table(profile, network))
    console.print(network_conclusion(profile, network, out), soft_wrap=True)
