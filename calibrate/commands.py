"""`mmtl calibrate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge.cli.options import ChannelName
from edge.errors import UsageError

if TYPE_CHECKING:
    from calibrate.fitting.full_finetune import NetworkTuner
    from calibrate.session.workflow import GuidedSession
    from calibrate.speaker import Calibration, OrdinaryCalibration
    from edge.audio.downmix import Channel
    from edge.model.bundle import Bundle
    from edge.model.profile import Profile


SESSION: Final = "Guided session"
"""Heading of its options in the help."""


def calibrate(
    name: Annotated[str, typer.Argument(help="Name of the speaker's profile.", show_default=False)],
    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="With --ordinary --from: further recordings.", show_default=False
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MANIFEST.csv",
            help="Use labelled recordings instead of a guided session: a CSV file with the columns path and "
            "emotion; optional: valence, arousal, dominance, text, speaker. With --ordinary: a recording.",
            show_default=False,
        ),
    ] = None,
    ordinary: Annotated[
        bool,
        typer.Option(
            "--ordinary",
            help="Half a minute of normal speech about anything, in any language, instead of labelled "
            "sentences.",
        ),
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Model: default, small, or the folder of a bundle."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite an existing profile, picture and bundle.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.png",
            help="Draw the results before and after calibration.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Also tune the whole network; needs torch and --out."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="With --full: folder of the speaker's bundle, which is written if it helps.",
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
            help="Takes of each emotion. Default: 2; 3 to 5 are better.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            metavar="CODE",
            help="Language of the sentences: da, de, en, es, fr, ko or pl. Default: the system's, else en.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="SOURCE",
            help="mic or mic:INDEX_OR_NAME. Default: the only microphone; if there are several, you choose.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the unfinished session.", rich_help_panel=SESSION),
    ] = False,
    keep_recordings: Annotated[
        Path | None,
        typer.Option(
            "--keep-recordings",
            metavar="DIR",
            help="Keep the recordings in this folder, with a manifest that --from reads.",
            rich_help_panel=SESSION,
        ),
    ] = None,
    channel: ChannelName = "auto",
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Show the privacy notice without a question: the speaker agrees.",
            rich_help_panel=SESSION,
        ),
    ] = False,
) -> None:
    """Fit the recogniser to one person, and keep the fit only if it helps.

    Without --from, a guided session of a few minutes at the terminal: you say sentences in four manners.

    It needs at least two takes of each emotion; three to five are better, with the same sentences in each.

    With --ordinary you only talk for half a minute, as you usually do. That helps less, and is not judged.
    """
    from edge.audio.downmix import parse_channel

    parsed_channel = parse_channel(channel)
    labelled: dict[str, object] = {"--takes": takes, "--language": language, "--resume": resume}
    guided: dict[str, object] = {"--device": device, "--keep-recordings": keep_recordings, "--yes": yes}
    if ordinary:
        _refuse_beside("--ordinary", {**labelled, "--picture": picture, "--full": full, "--out": out})
    if source is not None:
        _refuse_beside("--from", labelled | guided)
    if more and not (ordinary and source):
        raise UsageError(
            f"{more[0]} is one argument too many", remedy="give recordings after --ordinary --from"
        )
    job = _prepared(name, bundle, picture, out, full=full, replace=replace)
    if source is not None:
        if ordinary:
            _calibrate_from_recordings(job, [source, *(more or [])], bundle, parsed_channel)
        else:
            _calibrate_from_manifest(job, source, bundle, parsed_channel)
        return
    from calibrate.session.session_lock import session_lock
    from calibrate.session.workflow import GuidedSession, SessionOptions

    job.require_distinct_files([bundle])
    model = _load_for(bundle, ordinary=ordinary)
    reads_baseline = model.head.baseline_weight is not None
    options = SessionOptions(
        name=job.name,
        takes=takes,
        language=language,
        ordinary="only" if ordinary else "first" if reads_baseline else "none",
        device=device,
        resume=resume,
        replace=replace,
        keep_recordings=keep_recordings,
        agreed=yes,
        bundle=bundle,
        picture=picture,
        full=out,
        channel=parsed_channel,
    )
    with session_lock(job.name):
        calibrate_in_session = _calibrate_ordinary_in_session if ordinary else _calibrate_in_session
        calibrate_in_session(job, model, GuidedSession(options))


@dataclass(frozen=True, kw_only=True)
class CalibrationJob:
    """What is written, whether the takes come from a manifest or from a guided session."""

    name: str
    path: Path
    """Of the profile."""
    network: NetworkTuner | None
    """Tunes the whole network too."""
    out: Path | None
    """Folder of the tuned network's bundle."""
    picture: Path | None
    replace: bool
    """Whether an existing profile, picture or bundle may be overwritten."""

    def require_distinct_files(self, inputs: Iterable[Path | None]) -> None:
        """Check that no output is an input too."""
        from edge.model.bundle import default_bundle
        from edge.system.outputs import require_distinct_files

        outputs = {"--picture": self.picture, "--out": self.out, "the profile": self.path}
        require_distinct_files(outputs, [default_bundle(), *inputs])

    def report(self, calibration: Calibration, earlier: Profile | None) -> None:
        """Print the scores, the verdict and the next step."""
        from calibrate.report.outcome import print_report

        print_report(calibration, earlier, self.out)

    def report_ordinary(self, calibration: OrdinaryCalibration) -> None:
        """Print what the profile rests on and the next step."""
        from calibrate.report.outcome import print_ordinary

        print_ordinary(calibration)

    def draw(self, calibration: Calibration) -> None:
        """Draw the judgement if --picture was given."""
        if self.picture is None:
            return
        from calibrate.report.picture import draw_judgement

        draw_judgement(self.name, calibration.judgement, calibration.folds, self.picture)
        typer.echo(f"Wrote {self.picture}")


def _prepared(
    name: str, bundle: Path | None, picture: Path | None, out: Path | None, *, full: bool, replace: bool
) -> CalibrationJob:
    """Check that everything can be written, before anything is read or recorded."""
    from calibrate.speaker import require_new_profile
    from edge.model.profile import profile_path, require_place
    from edge.model.profile_names import profile_name

    name = profile_name(name)
    path = profile_path(name)
    require_new_profile(name, path, replace=replace)
    require_place(path)
    if picture is not None:
        from calibrate.report.picture import require_picture

        require_picture(picture, overwrite=replace)
    network = _network_tuner(bundle, out, full=full, replace=replace)
    return CalibrationJob(name=name, path=path, network=network, out=out, picture=picture, replace=replace)


def _network_tuner(
    bundle: Path | None, out: Path | None, *, full: bool, replace: bool
) -> NetworkTuner | None:
    if full != (out is not None):
        raise UsageError("--full and --out FOLDER go together", remedy="give both, or neither")
    if out is None:
        return None
    from calibrate.fitting.full_finetune import load_network_tuner

    return load_network_tuner(_load(bundle), out, replace=replace)


def _calibrate_from_manifest(
    job: CalibrationJob, manifest: Path, bundle: Path | None, channel: Channel
) -> None:
    from calibrate.speaker import calibrate_speaker
    from calibrate.takes import read_takes

    takes = read_takes(manifest, channel)
    job.require_distinct_files([bundle, manifest, *(take.path for take in takes)])
    calibration = calibrate_speaker(job.name, takes, _load(bundle), network=job.network)
    job.report(calibration, calibration.save(job.path, replace=job.replace))
    job.draw(calibration)


def _calibrate_in_session(job: CalibrationJob, model: Bundle, guided: GuidedSession) -> None:
    from calibrate.speaker import calibrate_speaker

    takes = guided.record_takes()
    if not takes:
        return
    with guided.takes_kept_on_error():
        calibration = calibrate_speaker(
            job.name, takes, model, ordinary=guided.ordinary_recording, network=job.network
        )
        earlier = calibration.save(job.path, replace=job.replace)
    job.report(calibration, earlier)
    guided.finish(adopted=calibration.adopted, outliers=bool(calibration.outliers))
    job.draw(calibration)


def _calibrate_from_recordings(
    job: CalibrationJob, recordings: Sequence[Path], bundle: Path | None, channel: Channel
) -> None:
    from calibrate.speaker import calibrate_ordinary

    model = _load_for(bundle, ordinary=True)
    job.require_distinct_files([bundle, *recordings])
    calibration = calibrate_ordinary(job.name, recordings, model, channel=channel)
    calibration.save(job.path, replace=job.replace)
    job.report_ordinary(calibration)


def _calibrate_ordinary_in_session(job: CalibrationJob, model: Bundle, guided: GuidedSession) -> None:
    from calibrate.speaker import calibrate_ordinary

    recording = guided.record_ordinary()
    if recording is None:
        return
    with guided.takes_kept_on_error():
        calibration = calibrate_ordinary(job.name, [recording], model)
        calibration.save(job.path, replace=job.replace)
    job.report_ordinary(calibration)
    guided.finish(adopted=True)


def _refuse_beside(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that would have no effect beside another."""
    given = [name for name, value in others.items() if value]
    if given:
        raise UsageError(
            f"{', '.join(given)} and {option} do not go together", remedy="leave one of them out"
        )


def _load_for(bundle: Path | None, *, ordinary: bool) -> Bundle:
    """Load the model; refuse it before anything is recorded if it has no use for ordinary speech."""
    from calibrate.fitting.ordinary import require_baseline

    model = _load(bundle)
    if ordinary:
        require_baseline(model)
    return model


def _load(bundle: Path | None) -> Bundle:
    from edge.model.bundle import find_bundle, load_bundle

    return load_bundle(find_bundle(bundle))
