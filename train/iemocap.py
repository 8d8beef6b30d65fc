"""Read an IEMOCAP release: the labels in its EmoEvaluation files, and the path of each turn's recording.

IEMOCAP: Busso et al. 2008; its authors give out the release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import UsageError
from edge.labels import SCALE

EVALUATION: Final = "dialog/EmoEvaluation"
"""Folder of a session's labels."""

EMOTION_CODES: Final = {
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
    "fea": "fearful",
    "dis": "disgust",
    "sur": "surprised",
    "oth": "other",
    "xxx": "other",
}
"""The release's codes; "xxx": the annotators did not agree."""

RATING_SLACK: Final = 0.5
"""Distance from the scale up to which an average rating is clipped to the scale."""

_TURN: Final = re.compile(
    r"\[\d+\.\d+ - \d+\.\d+\]\s+"
    r"(?P<name>(?P<dialog>(?P<session>Ses\d\d)[FM]_\w+)_(?P<letter>[FM])\w+)\s+"
    r"(?P<code>\w+)\s+"
    r"\[(?P<valence>[\d.]+), (?P<arousal>[\d.]+), (?P<dominance>[\d.]+)\]"
)
"""Times in seconds, turn, emotion, ratings. The first F or M wears the markers; the last one speaks."""

_GENDERS: Final = {"F": "female", "M": "male"}


@dataclass(frozen=True)
class Turn:
    """One rated turn of a dialogue."""

    path: Path
    speaker: str
    """Session and gender, as Ses01_F."""
    gender: str
    emotion: str
    valence: float
    """In [1, 5], as arousal and dominance."""
    arousal: float
    dominance: float
    improvised: bool
    """False if the dialogue follows a script."""


def is_release(root: Path) -> bool:
    """Return whether a folder has the form of the release, complete or not."""
    return bool(_evaluations(root))


def read_turns(root: Path, *, improvised_only: bool = True, excited_as_happy: bool = False) -> list[Turn]:
    """Read the rated turns of all sessions, in the order of their names.

    Differs: an average rating up to 0.5 outside [1, 5] is clipped to the scale; one further out is refused.

    Args:
        root: the folder with Session1 to Session5, or some of them.
        improvised_only: leave out the scripted dialogues, as Cai et al. 2020.
        excited_as_happy: count "excited" as "happy", as is common in the literature.

    Raises:
        UsageError: a line cannot be read, an emotion is unknown, a rating is outside the scale,
            or there are no turns.
    """
    turns = [turn for path in _evaluations(root) for turn in _read_evaluation(path, excited_as_happy)]
    if not turns:
        raise UsageError(
            f"{root} has no rated turns in Session1/{EVALUATION}/*.txt", remedy="copy the release again"
        )
    if not improvised_only:
        return turns
    improvised = [turn for turn in turns if turn.improvised]
    if not improvised:
        raise UsageError(
            f"{root} has only scripted dialogues", remedy="copy the whole release, or train with --scripted"
        )
    return improvised


def _evaluations(root: Path) -> list[Path]:
    """List the label files. Subfolders hold single annotators' labels; "._" files are not text."""
    paths = root.glob(f"Session[1-5]/{EVALUATION}/*.txt")
    return sorted(path for path in paths if not path.name.startswith("."))


def _read_evaluation(path: Path, excited_as_happy: bool) -> Iterator[Turn]:
    # Annotators' comments hold stray bytes; the label lines are ASCII.
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("["):
            yield _read_turn(line, path, f"{path}, line {number}", excited_as_happy)


def _read_turn(line: str, path: Path, where: str, excited_as_happy: bool) -> Turn:
    match = _TURN.match(line)
    if match is None:
        raise UsageError(
            f"{where}: cannot read {line.strip()!r}, expected [start - end] turn emotion [V, A, D]",
            remedy="copy the file from the release again",
        )
    session_folder = path.parents[2]
    return Turn(
        path=session_folder / "sentences" / "wav" / match["dialog"] / f"{match['name']}.wav",
        speaker=f"{match['session']}_{match['letter']}",
        gender=_GENDERS[match["letter"]],
        emotion=_emotion(match["code"], where, excited_as_happy),
        valence=_rating(match["valence"], "valence", where),
        arousal=_rating(match["arousal"], "arousal", where),
        dominance=_rating(match["dominance"], "dominance", where),
        improvised="_impro" in match["dialog"],
    )


def _emotion(code: str, where: str, excited_as_happy: bool) -> str:
    emotion = EMOTION_CODES.get(code)
    if emotion is None:
        raise UsageError(
            f"{where}: unknown emotion {code!r}", remedy=f"use one of {', '.join(EMOTION_CODES)}"
        )
    return "happy" if emotion == "excited" and excited_as_happy else emotion


def _rating(cell: str, name: str, where: str) -> float:
    low, high = SCALE
    try:
        rating = float(cell)
    except ValueError:
        rating = float("nan")
    if not low - RATING_SLACK <= rating <= high + RATING_SLACK:
        raise UsageError(
            f"{where}: {name} is {cell}, expected {low:g} to {high:g}", remedy="copy the release's file again"
        )
    return min(max(rating, low), high)
