"""Calibration of one speaker: labelled takes, or ordinary speech, to a profile."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibrate.fitting.folds import Folds
from calibrate.fitting.full_finetune import NetworkTuner
from calibrate.fitting.model_selection import Judgement, fit_and_judge
from calibrate.fitting.ordinary import OrdinaryFit, ordinary_head, require_baseline
from calibrate.fitting.session_reference import session_reference
from calibrate.fitting.speaker_consistency import find_outliers
from calibrate.takes import (
    Take,
    count_ratings,
    count_takes,
    read_ordinary,
    read_sounds,
    read_takes,
    require_enough,
)
from edge.arrays import Array
from edge.audio.downmix import AUTO, Channel
from edge.errors import ProfileError, UsageError
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle, default_bundle, load_bundle
from edge.model.profile import ADOPTED, LABELLED, ORDINARY, Profile, load_profile, profile_path, save_profile
from edge.model.profile_names import profile_name
from edge.recognition.speaker_baseline import SpeakerLevel

if TYPE_CHECKING:
    from edge.inference.engine import EngineLike


@dataclass(frozen=True)
class Calibration:
    """A speaker's profile, and how it was judged."""

    bundle: Bundle
    """The generic model that the profile belongs to."""
    takes: Sequence[Take]
    profile: Profile
    judgement: Judgement
    folds: Folds
    """Which takes were held out together."""
    outliers: Sequence[int]
    """Indices of takes that do not sound like the others and may be of another person."""
    network: Judgement | None = None
    """Of the whole network, if that was tuned too."""

    @property
    def adopted(self) -> bool:
        """Whether the profile helps on held-out takes, and may be applied."""
        return self.judgement.verdict == ADOPTED

    def save(self, path: Path | None = None, *, replace: bool = False) -> Profile | None:
        """Write the profile; a rejected one does not replace a profile that can be applied.

        Args:
            path: the file; by default the one that `--profile NAME` reads.
            replace: whether the file may exist already.

        Returns:
            The earlier profile that was kept instead; None if this one was written.

        Raises:
            ProfileError: the file cannot be written.
            UsageError: it exists, and `replace` is off.
        """
        path = path or profile_path(self.profile.name)
        require_new_profile(self.profile.name, path, replace=replace)
        earlier = None if self.adopted else _applicable(path, self.bundle)
        if earlier is None:
            save_profile(path, self.profile)
        return earlier


@dataclass(frozen=True)
class OrdinaryCalibration:
    """A speaker's profile from ordinary speech. There are no labels, so it is not judged."""

    bundle: Bundle
    """The generic model that the profile belongs to."""
    profile: Profile
    fit: OrdinaryFit

    def save(self, path: Path | None = None, *, replace: bool = False) -> None:
        """Write the profile.

        Args:
            path: the file; by default the one that `--profile NAME` reads.
            replace: whether the file may exist already.

        Raises:
            ProfileError: the file cannot be written.
            UsageError: it exists, and `replace` is off.
        """
        path = path or profile_path(self.profile.name)
        require_new_profile(self.profile.name, path, replace=replace)
        save_profile(path, self.profile)


def calibrate_speaker(
    name: str,
    takes: str | Path | Sequence[Take],
    bundle: Bundle | None = None,
    *,
    ordinary: Path | None = None,
    network: NetworkTuner | None = None,
) -> Calibration:
    """Fit the recogniser to one speaker, and judge by held-out takes whether that helps.

    Deterministic. Runs on the CPU: the rounding of another provider could change a close decision. Nothing is
    written but what `network` writes.

    Example:
        from calibrate import calibrate_speaker

        calibration = calibrate_speaker("anna", "session.csv")
        print(calibration.judgement.verdict, calibration.judgement.reason)
        calibration.save()

    Args:
        name: of the profile.
        takes: labelled recordings of one person, or the path of the manifest that lists them.
        bundle: the generic model; None: the one that ships with the program.
        ordinary: a recording of the person's ordinary speech, for a bundle whose head reads the speaker's
            baseline. One that cannot be used is left out, and the report says why.
        network: tunes the whole network too, before the profile is fitted.

    Raises:
        BundleError: the default bundle cannot be used.
        ProfileError: the name cannot name a profile.
        SourceError: a recording cannot be decoded.
        UsageError: the manifest or a take cannot be used.
    """
    name = profile_name(name)
    bundle = bundle or load_bundle(default_bundle())
    takes = read_takes(Path(takes)) if isinstance(takes, (str, Path)) else takes
    require_enough(takes)
    sounds = read_sounds(takes, bundle)
    speech = [read_ordinary(ordinary)] if ordinary else []
    tuned = network.fit(name, takes, sounds) if network else None
    return dataclasses.replace(_fit_profile(name, bundle, takes, sounds, speech), network=tuned)


def calibrate_ordinary(
    name: str,
    recordings: Sequence[Array] | Sequence[str | Path],
    bundle: Bundle | None = None,
    *,
    channel: Channel = AUTO,
) -> OrdinaryCalibration:
    """Fit the recogniser to recordings of one person who speaks normally, without labels.

    Deterministic. Nothing is written. Runs on the CPU.

    Example:
        from calibrate import calibrate_ordinary

        calibration = calibrate_ordinary("anna", ["monday.wav", "tuesday.wav"])
        calibration.save()

    Args:
        name: of the profile.
        recordings: (N,) samples at 16 kHz of each, or the path of each; together 8 s of speech or more.
        bundle: the generic model, whose head reads the speaker's baseline; None: the one that ships with the
            program.
        channel: channel of the files to use.

    Raises:
        BundleError: the default bundle cannot be used.
        ProfileError: the name cannot name a profile.
        SourceError: a recording cannot be decoded.
        UsageError: the bundle's head reads no baseline, or the recordings cannot be used.
    """
    from edge.inference.provider import open_engine

    name = profile_name(name)
    bundle = bundle or load_bundle(default_bundle())
    require_baseline(bundle)
    sounds = [
        read_ordinary(Path(item), channel) if isinstance(item, (str, Path)) else item for item in recordings
    ]
    fit = ordinary_head(bundle, open_engine(bundle, "cpu"), sounds)
    profile = Profile(
        name=name,
        bundle=bundle.fingerprint,
        head=fit.head,
        levels=bundle.manifest.levels,
        statistics=bundle.statistics,
        verdict=ADOPTED,
        report={
            "kind": ORDINARY,
            **fit.report(),
            "recordings": len(sounds),
            "sound_s": round(sum(map(len, sounds)) / bundle.manifest.front_end.sample_rate, 2),
        },
    )
    return OrdinaryCalibration(bundle, profile, fit)


def require_new_profile(name: str, path: Path, *, replace: bool) -> None:
    """Check that no profile is lost.

    Raises:
        UsageError: there is one of that name, and `replace` is off.
    """
    if os.path.lexists(path) and not replace:
        raise UsageError(
            f"there is a profile {name} already", remedy="give --replace to overwrite it, or another name"
        )


def _fit_profile(
    name: str, bundle: Bundle, takes: Sequence[Take], sounds: Sequence[Array], speech: Sequence[Array]
) -> Calibration:
    from edge.inference.provider import open_engine

    front_end = bundle.manifest.front_end
    outliers = find_outliers(sounds)
    start_s = time.perf_counter()
    engine = open_engine(bundle, "cpu")
    ordinary, used = _ordinary_level(bundle, engine, speech)
    fitted = fit_and_judge(bundle, engine, takes, sounds, ordinary=ordinary)
    report = {
        "kind": LABELLED,
        **_describe_takes(takes, outliers),
        "sound_s": round(sum(map(len, sounds)) / front_end.sample_rate, 2),
        "fit_s": round(time.perf_counter() - start_s, 2),
        **({"ordinary": used} if speech else {}),
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
    if profile.verdict == ADOPTED:
        reference = session_reference(bundle, profile, sounds, engine=engine, optimism=fitted.optimism)
        profile = dataclasses.replace(profile, reference=reference)
    return Calibration(bundle, takes, profile, fitted.judgement, fitted.folds, outliers)


def _ordinary_level(
    bundle: Bundle, engine: EngineLike, speech: Sequence[Array]
) -> tuple[SpeakerLevel | None, dict[str, Any]]:
    """Return the level of ordinary speech, None if it cannot be used, and what to report of it."""
    if not speech:
        return None, {}
    try:
        fit = ordinary_head(bundle, engine, speech)
    except UsageError as error:
        return None, {"not_used": error.problem}
    return fit.level, fit.report()


def _describe_takes(takes: Sequence[Take], outliers: Sequence[int]) -> dict[str, Any]:
    """Describe the takes as the profile's report does: no file names, no texts."""
    return {
        "takes": count_takes(takes),
        "ratings": count_ratings(takes),
        "doubtful_takes": [
            {"take": index + 1, "emotion": EMOTIONS[takes[index].emotion]} for index in outliers
        ],
    }


def _applicable(path: Path, bundle: Bundle) -> Profile | None:
    """Read the profile at a path; None if there is none that can be applied."""
    try:
        return load_profile(path, bundle)
    except ProfileError:
        return None
