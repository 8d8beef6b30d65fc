"""The takes of one speaker: read from a manifest, decoded and checked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from calibrate.take_limits import LONGEST_CLIP_S, LONGEST_ORDINARY_S, SILENT_DBFS, loudest_dbfs
from edge.arrays import Array
from edge.audio.downmix import AUTO, Channel
from edge.audio.sound_file import read_clip
from edge.errors import UsageError
from edge.features.frontend import filtered
from edge.features.normaliser import BinStatistics, GainConfig
from edge.file_formats.manifest import (
    manifest_rows,
    missing_remedy,
    parse_emotion,
    parse_rating,
    recording_path,
)
from edge.labels import DIMENSIONS, EMOTIONS
from edge.model.bundle import Bundle
from edge.system.files import is_file

REQUIRED_COLUMNS: Final = ("path", "emotion")

FEWEST_TAKES: Final = 2
"""Of each emotion: one is held out while the other is fitted on."""

READ_S: Final = 2 * LONGEST_CLIP_S
"""Read at most of a file, so that a recording of hours is refused quickly."""

Ratings = tuple[float | None, float | None, float | None]
"""Valence, arousal and dominance in [1, 5]; None where not given."""


@dataclass(frozen=True)
class Take:
    """One recording of the speaker in one emotion."""

    path: Path
    emotion: int
    """Index in `edge.labels.EMOTIONS`."""
    text: str = ""
    """The sentence; empty: unknown."""
    ratings: Ratings = (None, None, None)
    """By the speaker."""
    channel: Channel = AUTO
    """Channel of the file to use, as in `edge.audio.downmix`."""


@dataclass(frozen=True)
class InputNormalisation:
    """Gain control and bin statistics before the network: the bundle's or a speaker's."""

    levels: GainConfig
    statistics: BinStatistics


def read_takes(manifest: Path, channel: Channel = AUTO) -> list[Take]:
    """Read a session's manifest: a CSV file with a header and one take per row.

    The columns path and emotion are required; valence, arousal, dominance, text and speaker are
    optional; others are ignored. Paths are relative to the manifest's folder. The format is that of
    `edge.file_formats.manifest`.

    Args:
        manifest: path of the CSV file.
        channel: channel of the recordings to use.

    Raises:
        UsageError: the manifest is missing or malformed, a row cannot be used, it names more than one
            speaker, or there are too few takes to fit and judge by.
    """
    takes: list[Take] = []
    lines: dict[Path, int] = {}
    speakers: dict[str, int] = {}
    for line, row in manifest_rows(manifest, REQUIRED_COLUMNS):
        where = f"{manifest}, line {line}"
        take = replace(_from_row(row, manifest.parent, where), channel=channel)
        if take.path in lines:
            raise UsageError(
                f"{where}: {row['path']} is on line {lines[take.path]} already",
                remedy="remove one of the rows",
            )
        lines[take.path] = line
        speakers.setdefault(row.get("speaker", ""), line)
        takes.append(take)
    _require_one_speaker(speakers, manifest)
    if not takes:
        raise UsageError(f"{manifest} has no rows", remedy="list one take a row below the header")
    require_enough(takes, str(manifest))
    return takes


def count_takes(takes: Sequence[Take]) -> dict[str, int]:
    """Count the takes of each emotion, by its name."""
    counts = Counter(take.emotion for take in takes)
    return {name: counts[index] for index, name in enumerate(EMOTIONS)}


def count_ratings(takes: Sequence[Take]) -> dict[str, int]:
    """Count the ratings that the speaker gave, and those that are derived from the emotion."""
    given = sum(rating is not None for take in takes for rating in take.ratings)
    return {"given": given, "derived": len(DIMENSIONS) * len(takes) - given}


def require_enough(takes: Sequence[Take], source: str = "the session") -> None:
    """Check that there are takes to fit on and others to judge by.

    Args:
        takes: of one speaker.
        source: where they are from, for the message.

    Raises:
        UsageError: there are takes of fewer than two emotions, or a single take of one.
    """
    counts = Counter(take.emotion for take in takes)
    missing = [name for index, name in enumerate(EMOTIONS) if not counts[index]]
    if not counts:
        raise UsageError(
            f"{source} has no takes", remedy=f"add {FEWEST_TAKES} or more of {', '.join(missing)}"
        )
    if len(counts) == 1:
        raise UsageError(
            f"{source} has only {EMOTIONS[takes[0].emotion]} takes, and a fit needs several emotions",
            remedy=f"add takes of {', '.join(missing)}",
        )
    few = [EMOTIONS[emotion] for emotion in sorted(counts) if counts[emotion] < FEWEST_TAKES]
    if few:
        raise UsageError(
            f"{source} has a single take of {' and of '.join(few)}",
            remedy="add another, so that one can be held out and judged by the other",
        )


def read_sounds(takes: Sequence[Take], bundle: Bundle) -> list[Array]:
    """Read each take as (N,) float32 samples at 16 kHz.

    Raises:
        SourceError: a file cannot be read as sound.
        UsageError: a take is too short for one feature, too long, silent, or the same sound as another.
    """
    sounds = []
    for take in takes:
        sounds.append(read_clip(take.path, take.channel, longest_s=READ_S))
        _check_sound(take, sounds[-1], bundle)
    _require_different(takes, sounds)
    return sounds


def read_ordinary(path: Path, channel: Channel = AUTO) -> Array:
    """Read a recording of ordinary speech as (N,) float32 samples at 16 kHz.

    Raises:
        SourceError: the file cannot be read as sound.
        UsageError: there is no such file.
    """
    if not is_file(path):
        raise UsageError(f"no sound file {path}", remedy=missing_remedy(path))
    return read_clip(path, channel, longest_s=LONGEST_ORDINARY_S + 1.0)


def _from_row(row: dict[str, str], folder: Path, where: str) -> Take:
    emotion, path = parse_emotion(row, EMOTIONS, where), recording_path(row, folder)
    if not is_file(path):
        raise UsageError(f"{where}: no sound file {path}", remedy=missing_remedy(path))
    valence, arousal, dominance = (parse_rating(row, name, where) for name in DIMENSIONS)
    return Take(path, EMOTIONS.index(emotion), row.get("text", ""), (valence, arousal, dominance))


def _require_one_speaker(speakers: dict[str, int], path: Path) -> None:
    """Refuse more than one name; `speakers` maps each to its first line, "" meaning no name."""
    named = [(speaker, line) for speaker, line in speakers.items() if speaker]
    if len(named) > 1:
        (first, _), (second, line) = named[:2]
        raise UsageError(
            f"{path}, line {line}: the speaker is {second}, but {first} on earlier lines",
            remedy="a profile is for one person, so write a manifest for each",
        )


def _check_sound(take: Take, sound: Array, bundle: Bundle) -> None:
    front_end = bundle.manifest.front_end
    least = front_end.samples_in(bundle.manifest.graphs.frames_for_first)
    duration_s = len(sound) / front_end.sample_rate
    if len(sound) < least:
        raise UsageError(
            f"{take.path} lasts {duration_s:.2f} s, but a take needs at least "
            f"{least / front_end.sample_rate:.2f} s",
            remedy="record it again, or remove its row",
        )
    if duration_s > LONGEST_CLIP_S:
        more = "more than " if duration_s > READ_S - 1.0 else ""
        raise UsageError(
            f"{take.path} lasts {more}{duration_s:.0f} s, but a take may last {LONGEST_CLIP_S:.0f} s",
            remedy="cut it into takes of one or two sentences",
        )
    if loudest_dbfs(filtered(sound, front_end)) < SILENT_DBFS:
        raise UsageError(
            f"{take.path} is silent (never above {SILENT_DBFS:.0f} dBFS)",
            remedy="record it again, or remove its row",
        )


def _require_different(takes: Sequence[Take], sounds: Sequence[Array]) -> None:
    """Refuse a sound that occurs twice: it would be judged by itself, or has contradictory labels."""
    first: dict[bytes, Take] = {}
    for take, sound in zip(takes, sounds, strict=True):
        same = first.setdefault(hashlib.sha256(sound.tobytes()).digest(), take)
        if same is take:
            continue
        labels = " and ".join(dict.fromkeys((EMOTIONS[same.emotion], EMOTIONS[take.emotion])))
        raise UsageError(
            f"{same.path} and {take.path} are the same recording, labelled {labels}",
            remedy="remove one of the rows",
        )
