"""`mmtl calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from calibrate.judge import Judgement


def calibrate(
    name: Annotated[str, typer.Argument(help="Name of the speaker's profile.", show_default=False)],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MANIFEST.csv",
            help="Labelled takes of the speaker: columns path and emotion; where known valence, arousal, "
            "dominance, text and speaker too.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder of a model; the one that ships, if not given.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite the profile if there is one of that name.")
    ] = False,
) -> None:
    """Fit the recogniser to one person from labelled clips, and keep the fit only if it helps.

    At least two takes of each emotion; three to five are better, and the same sentences in each.
    """
    from edge.profile import profile_path

    path = profile_path(name)
    if manifest is None:
        raise UsageError(
            "the guided session is not part of this version: record the takes yourself and give "
            "--from MANIFEST.csv with the columns path and emotion"
        )
    if path.exists() and not replace:
        raise UsageError(
            f"there is a profile {name} already: give --replace to overwrite it, or another name"
        )
    judgement = _calibrate(name, path, manifest, bundle)
    _show(name, judgement)


def _calibrate(name: str, path: Path, manifest: Path, folder: Path | None) -> Judgement:
    """Fit, judge and write the profile."""
    import time

    from calibrate.judge import fit_and_judge
    from calibrate.takes import count_takes, read_sounds, read_takes
    from edge.bundle import default_bundle, load_bundle
    from edge.engine import Engine
    from edge.profile import Profile, save_profile

    takes = read_takes(manifest)
    bundle = load_bundle(folder or default_bundle())
    sounds = read_sounds(takes, bundle)
    began = time.perf_counter()
    # Always the CPU: another provider's rounding could turn a close decision.
    fitted = fit_and_judge(bundle, Engine(bundle, "cpu"), takes, sounds)
    report = {
        "takes": count_takes(takes),
        "sound_s": round(sum(map(len, sounds)) / bundle.manifest.front_end.sample_rate, 2),
        "fit_s": round(time.perf_counter() - began, 2),
        **fitted.report(),
    }
    normalisation = fitted.normalisation
    verdict = fitted.judgement.verdict
    profile = Profile(
        name=name,
        bundle=bundle.fingerprint,
        head=fitted.head,
        levels=normalisation.levels,
        statistics=normalisation.statistics,
        verdict=verdict,
        report=report,
    )
    save_profile(path, profile)
    return fitted.judgement


def _show(name: str, judgement: Judgement) -> None:
    """Print the scores before and after, the verdict and what to do with it."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(_table(judgement))
    console.print(f"{judgement.verdict} ({judgement.chosen.name}): {judgement.reason}")
    if judgement.verdict == "adopted":
        console.print(f"Apply it: mmtl monitor --profile {name}", soft_wrap=True)
    else:
        console.print(
            f"The generic model stays. The profile {name} is kept to be looked at: mmtl profile show {name}",
            soft_wrap=True,
        )


def _table(judgement: Judgement) -> Table:
    """Lay out the scores of the generic model and of the choice, on held-out takes."""
    from rich.table import Table

    before, after = judgement.before, judgement.after
    table = Table("held-out takes", box=None)
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    table.add_row("recognised (UAR)", f"{before.uar:.0%}", f"{after.uar:.0%}")
    table.add_row("log loss (nats)", f"{before.log_loss:.2f}", f"{after.log_loss:.2f}")
    table.add_row("calibration error", f"{before.ece:.2f}", f"{after.ece:.2f}")
    return table
