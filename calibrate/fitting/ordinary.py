"""Ordinary speech, without labels: how a person usually speaks, and the head for it.

Only for a bundle whose head reads the speaker's baseline. Everything is measured before a head is returned:
a baseline of shouting, of music or of two persons would make every later answer worse, and no held-out
take would show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from calibrate.fitting.embeddings import extract_embeddings, speech_windows, windows_worth
from calibrate.fitting.examples import take_shares
from calibrate.fitting.speaker_consistency import (
    PIECE_S,
    REFUSED_SEPARATION,
    WARNED_SEPARATION,
    voice_separation,
)
from calibrate.quality import Quality, measure, setup_advice, voiced_blocks
from calibrate.take_limits import (
    BLOCK_S,
    LEAST_ORDINARY_S,
    LONGEST_ORDINARY_S,
    MOST_CLIPPED,
    SILENT_DBFS,
    SOME_VOICE_S,
)
from calibrate.takes import InputNormalisation
from edge.arrays import SAMPLE_RATE, Array
from edge.errors import UsageError
from edge.features.silero_vad import PIECE
from edge.labels import EMOTIONS
from edge.model.bundle import Bundle
from edge.model.head import Head
from edge.model.manifest import BaselineConfig
from edge.recognition.speaker_baseline import SpeakerLevel, recorded_level, window_weights

if TYPE_CHECKING:
    from edge.inference.engine import EngineLike

CONFIDENT: Final = 0.8
"""Posterior from which a window claims its emotion."""

WARNED_SHARE: Final = 0.5
"""Share of the windows of speech that claim one and the same emotion, from which a warning is given."""

REFUSED_SHARE: Final = 0.9
"""Share from which the speech is refused. Error rates are in `docs/calibration.md`."""

NEUTRAL: Final = EMOTIONS.index("neutral")


@dataclass(frozen=True)
class OrdinaryFit:
    """A head for one speaker, fitted without labels."""

    head: Head
    """With the baseline in its first layer; it reads none."""
    level: SpeakerLevel
    """Of the speaker's embeddings."""
    windows: float
    """Weight of the speech, in windows without overlap; the training speakers' mean has that of
    `BaselineConfig.prior_windows`."""
    speech_s: float
    """Duration of voice in the recordings."""
    warnings: tuple[str, ...]
    """What may be wrong with them, in sentences."""

    def report(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {
            "speech_s": round(self.speech_s, 1),
            "windows": round(self.windows, 1),
            "warnings": list(self.warnings),
        }


def ordinary_head(bundle: Bundle, engine: EngineLike, sounds: Sequence[Array]) -> OrdinaryFit:
    """Fit the head to recordings of one person who speaks normally.

    The speaker's level is that of the windows of speech (`SpeakerLevel`). A recording weighs as much as the
    windows without overlap that cover them, at least 1, and its windows share that evenly. Deterministic.

    Args:
        bundle: the generic model; its head reads a baseline.
        engine: runs its graphs.
        sounds: (N,) samples at 16 kHz of each recording.

    Raises:
        UsageError: the head reads no baseline; a recording is silent, clipped, too short or too long, or has
            no speech; there is too little speech in all; two people speak; or it is clearly not ordinary
            speech.
    """
    require_baseline(bundle)
    front_end, graphs = bundle.manifest.front_end, engine.graphs
    least_s = front_end.samples_in(graphs.frames_for_first) / SAMPLE_RATE
    names = _names(len(sounds))
    qualities = [_checked(sound, name, least_s) for sound, name in zip(sounds, names, strict=True)]
    speech_s = sum(quality.voice_s for quality in qualities)
    if speech_s < LEAST_ORDINARY_S:
        raise UsageError(
            f"only {speech_s:.0f} s of speech was heard, and at least {LEAST_ORDINARY_S:.0f} s are needed",
            remedy="record 20 to 30 s of normal speech",
        )
    people = _people(sounds)
    windows = ordinary_windows(bundle, engine, sounds)
    claim = _claimed(bundle.head, windows)
    weights = [windows_worth(len(own), graphs, front_end) for own in windows]
    level = recorded_level(
        np.concatenate(windows), window_weights(weights, list(map(len, windows))), bundle.manifest.baseline
    )
    advice = [setup_advice(quality) for quality in qualities]
    warnings = tuple(dict.fromkeys(text for text in (*advice, people, claim) if text))
    head = bundle.head.for_baseline(level.mean, level.deviation)
    return OrdinaryFit(head, level, sum(weights), speech_s, warnings)


def require_baseline(bundle: Bundle) -> None:
    """Check that a bundle's head reads the speaker's baseline.

    Raises:
        UsageError: it reads none.
    """
    if bundle.head.baseline_weight is None:
        raise UsageError(
            f"the model {bundle.manifest.name} does not read a speaker's baseline",
            remedy="leave --ordinary out, for a session with labelled sentences, or give --bundle default",
        )


def ordinary_windows(bundle: Bundle, engine: EngineLike, sounds: Sequence[Array]) -> list[Array]:
    """Return the (W, D) embeddings of the windows of speech of each recording, W > 0.

    Where no window has enough speech, all are taken.
    """
    front_end, size = bundle.manifest.front_end, bundle.head.input_size
    normalisation = InputNormalisation(bundle.manifest.levels, bundle.statistics)
    chosen = []
    for sound, inputs in zip(
        sounds, extract_embeddings(engine, front_end, normalisation, sounds), strict=True
    ):
        speech = speech_windows(engine.graphs, front_end, sound)
        chosen.append(inputs[speech if speech.any() else slice(None), :size])
    return chosen


@dataclass(frozen=True)
class StartingHeads:
    """The heads that fits to labelled takes start from: the generic one, for the speaker's baseline.

    The baseline is that of ordinary speech where there is some. Otherwise it is that of the takes that are
    fitted on, with the same weight for each emotion, so that a held-out take does not enter it.
    """

    generic: Head
    windows: Sequence[Array]
    """(W, D) embeddings of each take."""
    emotions: Sequence[int]
    weights: Sequence[float]
    """Of each take, in windows without overlap."""
    config: BaselineConfig
    ordinary: SpeakerLevel | None = None
    """Of ordinary speech."""

    def fitted_on(self, takes: Sequence[int]) -> Head:
        """Return the head to start from where these takes, given by index, are fitted on."""
        if self.generic.baseline_weight is None:
            return self.generic
        level = self.ordinary or self._level(takes)
        return self.generic.for_baseline(level.mean, level.deviation)

    def _level(self, takes: Sequence[int]) -> SpeakerLevel:
        heard = sum(self.weights[take] for take in takes)
        weights = heard * take_shares([self.emotions[take] for take in takes])
        windows = [self.windows[take] for take in takes]
        shares = window_weights(weights.tolist(), list(map(len, windows)))
        return recorded_level(np.concatenate(windows), shares, self.config)


def starting_heads(
    bundle: Bundle,
    engine: EngineLike,
    inputs: Sequence[Array],
    emotions: Sequence[int],
    ordinary: SpeakerLevel | None,
) -> StartingHeads:
    """Prepare the heads that fits start from.

    Args:
        bundle: the generic model.
        engine: runs its graphs.
        inputs: (W, X) of the head, of each take.
        emotions: of each take.
        ordinary: level of ordinary speech; None: there is none.
    """
    front_end, size = bundle.manifest.front_end, bundle.head.input_size
    return StartingHeads(
        generic=bundle.head,
        windows=[windows[:, :size] for windows in inputs],
        emotions=emotions,
        weights=[windows_worth(len(windows), engine.graphs, front_end) for windows in inputs],
        config=bundle.manifest.baseline,
        ordinary=ordinary,
    )


def _names(count: int) -> list[str]:
    """Name the recordings for a message."""
    return (
        ["the recording"] if count == 1 else [f"recording {index + 1} of {count}" for index in range(count)]
    )


def _checked(sound: Array, name: str, least_s: float) -> Quality:
    """Measure a recording, and refuse one that no baseline can be made of."""
    duration_s = len(sound) / SAMPLE_RATE
    if duration_s < least_s:
        raise UsageError(
            f"{name} lasts {duration_s:.2f} s, but needs at least {least_s:.2f} s", remedy="leave it out"
        )
    if duration_s > LONGEST_ORDINARY_S:
        raise UsageError(
            f"{name} lasts {duration_s:.0f} s, but may last {LONGEST_ORDINARY_S:.0f} s",
            remedy="cut out half a minute of normal speech",
        )
    quality = measure(sound)
    if quality.loudest_dbfs < SILENT_DBFS:
        raise UsageError(
            f"{name} is silent (never above {SILENT_DBFS:.0f} dBFS)",
            remedy="check that the microphone is switched on and not muted, and record it again",
        )
    if quality.voice_s < SOME_VOICE_S:
        raise UsageError(
            f"no speech is heard in {name}, only other sound",
            remedy="record speech, without music or noise",
        )
    if quality.clipped > MOST_CLIPPED:
        raise UsageError(
            f"{name} is clipped: {quality.clipped:.1%} of its samples are at full scale",
            remedy="turn the input level down or move back a little, and record it again",
        )
    return quality


def _people(sounds: Sequence[Array]) -> str:
    """Warn if the voices fall into two groups; refuse if these are far apart.

    Raises:
        UsageError: they are.
    """
    apart = voice_separation([piece for sound in sounds for piece in speech_pieces(sound)])
    if apart >= REFUSED_SEPARATION:
        raise UsageError(
            "more than one person seems to speak",
            remedy="record one person alone, who does not change the voice",
        )
    return "More than one person may be speaking: listen to it." if apart >= WARNED_SEPARATION else ""


def speech_pieces(sound: Array) -> list[Array]:
    """Cut a recording into consecutive pieces with the same duration of voice, `PIECE_S` or more."""
    voiced = np.cumsum(voiced_blocks(sound))
    count = max(1, int(voiced[-1] * BLOCK_S / PIECE_S))
    cuts = np.searchsorted(voiced, voiced[-1] * np.arange(1, count) / count) * PIECE
    return np.split(sound[: len(voiced) * PIECE], cuts)


def claimed_share(head: Head, windows: Sequence[Array]) -> tuple[str, float]:
    """Return the emotion but neutral that most windows claim with `CONFIDENT`, and their share in [0, 1].

    Args:
        head: the generic one, which knows nothing of the speaker.
        windows: (W, D) embeddings of each recording.
    """
    claims = np.mean(head.probs(np.concatenate(windows)) >= CONFIDENT, axis=0)
    claims[NEUTRAL] = 0.0
    return EMOTIONS[int(claims.argmax())], float(claims.max())


def _claimed(head: Head, windows: Sequence[Array]) -> str:
    """Warn if the generic model is sure of one emotion in most of the speech; refuse if nearly everywhere.

    Raises:
        UsageError: it is.
    """
    emotion, share = claimed_share(head, windows)
    found = f"this does not sound like ordinary speech ({emotion} in {share:.0%} of it)"
    if share >= REFUSED_SHARE:
        raise UsageError(
            found,
            remedy="speak as on a usual day; if this is the usual voice, record a session with labelled "
            "sentences, without --ordinary",
        )
    return f"{found[:1].upper()}{found[1:]}." if share >= WARNED_SHARE else ""
