"""`mmtl calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from calibrate.judge import Judgement
    from calibrate.takes import Take
    from edge.bundle import Bundle


SESSION: Final = "Guided session"
"""The heading of its options in the help."""


def calibrate(
    name: Annotated[str, typer.Argument(help="Name of the speaker's profile.", show_default=False)],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MANIFEST.csv",
            help="Labelled takes instead of a session: columns path and emotion; where known valence, "
            "arousal, dominance, text and speaker too.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder of a model; the one that ships, if not given.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite the profile if there is one of that name.")
    ] = False,
    takes: Annotated[
        int | None,
        typer.Option(
            "--takes",
            metavar="K",
            min=2,
            max=10,
            help="Of each emotion: 2 if not given, 3 to 5 are better.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            metavar="CODE",
            help="Of the sentences: da, de, en, es, fr, ko or pl. If not given, the system's, else en.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="SOURCE",
            help="mic or mic:INDEX_OR_NAME. If not given and there are several, you are asked.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the unfinished session.", rich_help_panel=SESSION),
    ] = False,
    keep_recordings: Annotated[
        Path | None,
        typer.Option(
            "--keep-recordings",
            metavar="DIR",
            help="Keep the recordings there, with a manifest that --from reads.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="The speaker agrees to the privacy notice: show it only.", rich_help_panel=SESSION
        ),
    ] = False,
) -> None:
    """Fit the recogniser to one person, and keep the fit only if it helps.

    Without --from, a guided session at the terminal: sentences to say in four manners, a few minutes.

    At least two takes of each emotion; three to five are better, and the same sentences in each.
    """
    from edge.profile import profile_path

    path = profile_path(name)
    if path.exists() and not replace:
        raise UsageError(
            f"there is a profile {name} already: give --replace to overwrite it, or another name"
        )
    if manifest is not None:
        from calibrate.takes import read_takes

        _refuse_with_manifest(
            {
                "--takes": takes,
                "--language": language,
                "--device": device,
                "--resume": resume,
                "--keep-recordings": keep_recordings,
                "--yes": yes,
            }
        )
        _show(name, _calibrate(name, path, read_takes(manifest), _bundle(bundle)))
        return
    from calibrate.guided import GuidedSession, Wish

    model = _bundle(bundle)
    guided = GuidedSession(Wish(name, takes, language, device, resume, replace, keep_recordings, yes, bundle))
    if recorded := guided.hold():
        with guided.kept_if_it_fails():
            judgement = _calibrate(name, path, recorded, model)
        _show(name, judgement)
        guided.finish(adopted=judgement.verdict == "adopted")


def _refuse_with_manifest(options: Mapping[str, object]) -> None:
    """Refuse what only a session can do, rather than leave it undone unsaid."""
    given = [option for option, value in options.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)} and --from do not go together: leave one of them out")


def _bundle(folder: Path | None) -> Bundle:
    from edge.bundle import default_bundle, load_bundle

    return load_bundle(folder or default_bundle())


def _calibrate(name: str, path: Path, takes: Sequence[Take], bundle: Bundle) -> Judgement:
    """Fit, judge and write the profile."""
    import time

    from calibrate.judge import fit_and_judge
    from calibrate.takes import count_ratings, count_takes, read_sounds
    from edge.engine import Engine
    from edge.profile import Profile, save_profile

    sounds = read_sounds(takes, bundle)
    began = time.perf_counter()
    # Always the CPU: another provider's rounding could turn a close decision.
    fitted = fit_and_judge(bundle, Engine(bundle, "cpu"), takes, sounds)
    report = {
        "takes": count_takes(takes),
        "ratings": count_ratings(takes),
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
