"""Read labelled recordings, from a manifest or an IEMOCAP release, as a list of clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge.errors import UsageError
from edge.file_formats.manifest import (
    manifest_rows,
    missing_remedy,
    parse_emotion,
    parse_rating,
    recording_path,
)
from edge.labels import DIMENSIONS, EMOTIONS, derived_ratings
from edge.system.files import is_file
from train import iemocap

MANIFEST_NAME: Final = "manifest.csv"

REQUIRED_COLUMNS: Final = ("path", "corpus", "speaker", "emotion")

OTHER_EMOTIONS: Final = (
    "calm",
    "fearful",
    "disgust",
    "surprised",
    "boredom",
    "excited",
    "frustrated",
    "other",
)
"""Accepted in a corpus; training and evaluation leave them out."""

Ratings = tuple[float, float, float]
"""Valence, arousal and dominance, each in [1, 5]."""


@dataclass(frozen=True)
class Clip:
    """One labelled recording. An empty string or None means unknown."""

    path: Path
    corpus: str
    speaker: str
    emotion: str
    gender: str = ""
    language: str = ""
    intensity: str = ""
    text: str = ""
    valence: float | None = None
    """In [1, 5], as arousal and dominance."""
    arousal: float | None = None
    dominance: float | None = None
    derived: bool = False
    """True if a rating comes from `edge.labels.derived_ratings`, not from annotators."""

    @property
    def ratings(self) -> Ratings | None:
        """Valence, arousal and dominance; None if one is unknown."""
        if self.valence is None or self.arousal is None or self.dominance is None:
            return None
        return self.valence, self.arousal, self.dominance


def read_corpus(path: Path, *, improvised_only: bool = True, excited_as_happy: bool = False) -> list[Clip]:
    """Read a corpus in any of the known forms.

    Args:
        path: a manifest, a folder that holds manifest.csv, or an IEMOCAP release folder.
        improvised_only: leave out IEMOCAP's scripted dialogues, as Cai et al. 2020.
        excited_as_happy: count IEMOCAP's "excited" as "happy".

    Raises:
        UsageError: the path is none of these, or its content is invalid.
    """
    if path.is_file():
        return read_manifest(path)
    if (path / MANIFEST_NAME).is_file():
        return read_manifest(path / MANIFEST_NAME)
    if iemocap.is_release(path):
        turns = iemocap.read_turns(path, improvised_only=improvised_only, excited_as_happy=excited_as_happy)
        clips = [_from_turn(turn) for turn in turns]
        _require_sound(clips, path, "copy the release's sentences/wav folders, or check the disk")
        return clips
    if not path.exists():
        raise UsageError(
            f"there is no {path}", remedy=f"give a manifest .csv, or a folder with {MANIFEST_NAME}"
        )
    raise UsageError(
        f"{path} holds neither {MANIFEST_NAME} nor Session1/{iemocap.EVALUATION}",
        remedy="give a folder that does, or a manifest .csv",
    )


def read_manifest(path: Path) -> list[Clip]:
    """Read a manifest: a CSV file with a header and one recording per row (`edge.file_formats.manifest`).

    The columns path, corpus, speaker and emotion are required; gender, language, intensity, text,
    valence, arousal and dominance are optional; others are ignored. Paths are relative to the
    manifest's folder. An empty cell means unknown.

    Raises:
        UsageError: the manifest is missing, is not such a file or has no rows, or a row is invalid: an
            empty required cell, an unknown emotion, a rating outside [1, 5], or a recording that is
            repeated or missing.
    """
    clips: list[Clip] = []
    lines: dict[Path, int] = {}
    for line, row in manifest_rows(path, REQUIRED_COLUMNS):
        where = f"{path}, line {line}"
        clip = _from_row(row, path.parent, where)
        if clip.path in lines:
            raise UsageError(
                f"{where}: {row['path']} is on line {lines[clip.path]} already",
                remedy="remove one of the rows",
            )
        lines[clip.path] = line
        clips.append(clip)
    if not clips:
        raise UsageError(f"{path} has no rows", remedy="list one recording per row below the header")
    _require_sound(clips, path, lines=lines)
    return clips


def with_derived_ratings(clips: Iterable[Clip]) -> list[Clip]:
    """Fill missing ratings with those derived from the emotion.

    Ratings by annotators are kept. A clip with a filled rating is marked `derived`; a clip whose emotion has
    no norms is unchanged.
    """
    return [_derive(clip) if clip.ratings is None else clip for clip in clips]


def four_emotions(clips: Iterable[Clip]) -> list[Clip]:
    """Keep the clips whose emotion is one of `edge.labels.EMOTIONS`."""
    return [clip for clip in clips if clip.emotion in EMOTIONS]


def _derive(clip: Clip) -> Clip:
    norms = derived_ratings(clip.emotion, clip.intensity)
    if norms is None:
        return clip
    given = (clip.valence, clip.arousal, clip.dominance)
    valence, arousal, dominance = (
        norm if rating is None else rating for rating, norm in zip(given, norms, strict=True)
    )
    return replace(clip, valence=valence, arousal=arousal, dominance=dominance, derived=True)


def _from_row(row: dict[str, str], folder: Path, where: str) -> Clip:
    emotion = parse_emotion(row, EMOTIONS + OTHER_EMOTIONS, where)
    valence, arousal, dominance = (parse_rating(row, name, where) for name in DIMENSIONS)
    return Clip(
        path=recording_path(row, folder),
        corpus=row["corpus"],
        speaker=row["speaker"],
        emotion=emotion,
        gender=row.get("gender", ""),
        language=row.get("language", ""),
        intensity=row.get("intensity", ""),
        text=row.get("text", ""),
        valence=valence,
        arousal=arousal,
        dominance=dominance,
    )


def _from_turn(turn: iemocap.Turn) -> Clip:
    return Clip(
        path=turn.path,
        corpus="iemocap",
        speaker=turn.speaker,
        emotion=turn.emotion,
        gender=turn.gender,
        language="en",
        valence=turn.valence,
        arousal=turn.arousal,
        dominance=turn.dominance,
    )


def _require_sound(
    clips: list[Clip], path: Path, remedy: str = "", lines: dict[Path, int] | None = None
) -> None:
    missing = [clip.path for clip in clips if not is_file(clip.path)]
    if missing:
        where = f"{path}, line {lines[missing[0]]}" if lines else f"{path}"
        raise UsageError(
            f"{where}: no sound file {missing[0]} ({len(missing)} of {len(clips)} are missing)",
            remedy=remedy or missing_remedy(missing[0]),
        )
