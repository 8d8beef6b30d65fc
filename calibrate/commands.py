"""`mmtl calibrate`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge.cli.options import ChannelName
from edge.errors import UsageError

if TYPE_CHECKING:
    from calibrate.fitting.full_finetune import FullTuning
    from calibrate.fitting.model_selection import Fitted, Judgement
    from calibrate.report.outcome import Outcome
    from calibrate.session.workflow import GuidedSession
    from calibrate.takes import Take
    from edge.arrays import Array
    from edge.audio.downmix import Channel
    from edge.inference.engine import Engine
    from edge.model.bundle import Bundle
    from edge.model.profile import Profile


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
        bool, typer.Option("--replace", help="Overwrite the profile of that name, picture and bundle.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.png",
            help="Draw what is recognised before and after.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Tune the whole network too, with torch; needs --out."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="With --full: of the speaker's bundle, written if it helps.",
            show_default=False,
        ),
    ] = None,
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
    channel: ChannelName = "auto",
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
    from edge.audio.downmix import parse_channel
    from edge.model.profile import profile_path, require_place
    from edge.model.profile_names import profile_name

    heard = parse_channel(channel)
    name = profile_name(name)
    path = profile_path(name)
    _require_free(name, path, replace=replace)
    require_place(path)
    if picture is not None:
        from calibrate.report.picture import require_picture

        require_picture(picture, overwrite=replace)
    tuning = _full_tuning(bundle, out, full=full, replace=replace)
    order = CalibrationJob(name, path, tuning, out, picture, replace)
    if manifest is None:
        from calibrate.session.session_lock import session_lock
        from calibrate.session.workflow import GuidedSession, SessionOptions

        order.require_apart([bundle])
        model = _bundle(bundle)
        wish = SessionOptions(
            name, takes, language, device, resume, replace, keep_recordings, yes, bundle, picture, out, heard
        )
        with session_lock(name):
            _hold(order, model, GuidedSession(wish))
        return
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
    _read(order, manifest, bundle, heard)


@dataclasses.dataclass(frozen=True)
class CalibrationJob:
    """What is to come of a speaker's takes, wherever they come from."""

    name: str
    path: Path
    """Of the profile."""
    tuning: FullTuning | None
    """Tunes the whole network too."""
    out: Path | None
    """Where its bundle goes."""
    picture: Path | None
    replace: bool
    """Whether there may be a profile of that name already."""

    def require_apart(self, inputs: Iterable[Path | None]) -> None:
        """Check that nothing that is written is read too."""
        from edge.model.bundle import default_bundle
        from edge.system.outputs import require_apart

        outputs = {"--picture": self.picture, "--out": self.out, "the profile": self.path}
        require_apart(outputs, [default_bundle(), *inputs])

    def fit(self, takes: Sequence[Take], model: Bundle) -> Outcome:
        """Tune and fit; write the bundle if it helps, and the profile unless it would cost one in use."""
        from calibrate.report.outcome import Outcome
        from edge.model.profile import ADOPTED, save_profile

        tuned = _tune(self.tuning, self.name, takes, model)
        fitted, profile, doubtful = _calibrate(self.name, takes, model)
        _require_free(self.name, self.path, replace=self.replace)  # a session takes minutes
        stays = _in_use(self.path, model) if profile.verdict != ADOPTED else None
        if stays is None:
            save_profile(self.path, profile)
        return Outcome(fitted, tuned, [(index + 1, takes[index]) for index in doubtful], stays)

    def show(self, outcome: Outcome) -> None:
        """Print what came of it."""
        from calibrate.report.outcome import show

        show(self.name, outcome, self.out)


def _read(order: CalibrationJob, manifest: Path, bundle: Path | None, channel: Channel) -> None:
    """Calibrate on the takes that a manifest lists."""
    from calibrate.takes import read_takes

    takes = read_takes(manifest, channel)
    order.require_apart([bundle, manifest, *(take.path for take in takes)])
    outcome = order.fit(takes, _bundle(bundle))
    order.show(outcome)
    _draw(order.name, outcome.fitted, order.picture)


def _hold(order: CalibrationJob, model: Bundle, guided: GuidedSession) -> None:
    """Calibrate on the takes of a guided session."""
    recorded = guided.hold()
    if not recorded:
        return
    with guided.kept_if_it_fails():
        outcome = order.fit(recorded, model)
    order.show(outcome)
    guided.finish(adopted=outcome.adopted, doubtful=bool(outcome.doubtful))
    _draw(order.name, outcome.fitted, order.picture)


def _require_free(name: str, path: Path, *, replace: bool) -> None:
    """Refuse to write over a profile, unless told to."""
    if os.path.lexists(path) and not replace:
        raise UsageError(
            f"there is a profile {name} already: give --replace to overwrite it, or another name"
        )


def _in_use(path: Path, model: Bundle) -> Profile | None:
    """Read the profile in place, if it is one that can be applied."""
    from edge.errors import ProfileError
    from edge.model.profile import load_profile

    try:
        return load_profile(path, model)
    except ProfileError:
        return None


def _refuse_with_manifest(options: Mapping[str, object]) -> None:
    """Refuse what only a session can do, rather than leave it undone unsaid."""
    given = [option for option, value in options.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)} and --from do not go together: leave one of them out")


def _bundle(folder: Path | None) -> Bundle:
    from edge.model.bundle import default_bundle, load_bundle

    return load_bundle(folder or default_bundle())


def _full_tuning(bundle: Path | None, out: Path | None, *, full: bool, replace: bool) -> FullTuning | None:
    """Prepare to tune the whole network where that was asked for."""
    if full != (out is not None):
        raise UsageError("--full and --out FOLDER go together: give both, or neither")
    if out is None:
        return None
    from calibrate.fitting.full_finetune import full_tuning

    return full_tuning(_bundle(bundle), out, replace=replace)


def _tune(tuning: FullTuning | None, name: str, takes: Sequence[Take], bundle: Bundle) -> Judgement | None:
    """Tune the whole network, first of all: who stops it has written nothing."""
    from calibrate.takes import read_sounds

    return tuning.fit(name, takes, read_sounds(takes, bundle)) if tuning else None


def _calibrate(name: str, takes: Sequence[Take], bundle: Bundle) -> tuple[Fitted, Profile, list[int]]:
    """Fit and judge; return the profile too, and which takes do not sound like the others."""
    import time

    from calibrate.fitting.model_selection import fit_and_judge
    from calibrate.fitting.speaker_consistency import unlike_the_others
    from calibrate.takes import count_ratings, count_takes, read_sounds
    from edge.inference.engine import Engine
    from edge.labels import EMOTIONS
    from edge.model.profile import Profile

    sounds = read_sounds(takes, bundle)
    doubtful = unlike_the_others(sounds, bundle.manifest.front_end)
    began = time.perf_counter()
    # Always the CPU: another provider's rounding could turn a close decision.
    engine = Engine(bundle, "cpu")
    fitted = fit_and_judge(bundle, engine, takes, sounds)
    report = {
        "takes": count_takes(takes),
        "ratings": count_ratings(takes),
        "doubtful_takes": [
            {"take": index + 1, "emotion": EMOTIONS[takes[index].emotion]} for index in doubtful
        ],
        "sound_s": round(sum(map(len, sounds)) / bundle.manifest.front_end.sample_rate, 2),
        "fit_s": round(time.perf_counter() - began, 2),
        **fitted.report(),
    }
    profile = Profile(
        name=name,
        bundle=bundle.fingerprint,
        head=fitted.head,
        levels=fitted.normalisation.levels,
        statistics=fitted.normalisation.statistics,
        verdict=fitted.judgement.verdict,
        report=report,
    )
    return fitted, _watched(profile, bundle, engine, sounds), doubtful


def _watched(profile: Profile, bundle: Bundle, engine: Engine, sounds: Sequence[Array]) -> Profile:
    """Let a profile that will be applied say how the session sounded, for the watch for drift."""
    from calibrate.fitting.session_reference import session_reference
    from edge.model.profile import ADOPTED
    from edge.recognition.recognizer import Recognizer

    if profile.verdict != ADOPTED:
        return profile
    recognizer = Recognizer(bundle, profile=profile, engine=engine)
    return dataclasses.replace(profile, reference=session_reference(recognizer, sounds))


def _draw(name: str, fitted: Fitted, picture: Path | None) -> None:
    """Draw the judgement where that was asked for."""
    if picture is not None:
        from calibrate.report.picture import draw_judgement

        draw_judgement(name, fitted.judgement, fitted.folds, picture)
        typer.echo(f"Wrote {picture}")
