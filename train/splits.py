"""Splits into training, validation and test side, always by speaker."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, TypedDict
from unicodedata import normalize

from edge.errors import UsageError
from edge.system.files import read_text
from train.corpora import Clip

HELD_OUT_SHARE: Final = 0.2
"""Share of a corpus's speakers on the test side, and on the validation side."""

FEWEST_SPEAKERS: Final = 3
"""One for each side."""

SESSION_SPEAKERS: Final = 2
"""In a dialogue of IEMOCAP."""


@dataclass(frozen=True)
class Split:
    """Clips of the three sides.

    Raises:
        UsageError: a speaker is on two sides.
    """

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]

    def __post_init__(self) -> None:
        sides = {name: speakers_of(getattr(self, name)) for name in ("train", "validation", "test")}
        for (first, speakers), (second, others) in combinations(sides.items(), 2):
            shared = sorted(set(speakers) & set(others))
            if shared:
                raise UsageError(
                    f"speaker {shared[0]} is on two sides of the split, {first} and {second}",
                    remedy="put each speaker on one side",
                )


class SplitFile(TypedDict):
    """Content of a split file: speakers by side, and corpora to leave out."""

    validation: list[str]
    test: list[str]
    exclude_corpora: list[str]


def speakers_of(clips: Iterable[Clip]) -> list[str]:
    """Return the distinct speakers, sorted."""
    return sorted({clip.speaker for clip in clips})


def unheard_clips(clips: Iterable[Clip], training: dict[str, Any]) -> list[Clip]:
    """Keep the clips by speakers of whom a model has heard nothing.

    Args:
        clips: of any speakers.
        training: the manifest's account of the model's training. Its validation speakers chose the model.
    """
    speakers = training.get("speakers", {})
    heard = {*speakers.get("train", []), *speakers.get("validation", [])}
    return [clip for clip in clips if clip.speaker not in heard]


def split_by_speaker(clips: Sequence[Clip], *, validation: Collection[str], test: Collection[str]) -> Split:
    """Put the named speakers on their sides and all others in training.

    Raises:
        UsageError: a name is unknown or on two sides, there is only one speaker, or no training speaker
            is left.
    """
    speakers = speakers_of(clips)
    _require_speakers(speakers, 2)
    unknown = sorted({*validation, *test} - set(speakers))
    if unknown:
        raise UsageError(f"unknown speaker {', '.join(unknown)}", remedy=f"choose from {_listed(speakers)}")
    both = sorted(set(validation) & set(test))
    if both:
        raise UsageError(
            f"speaker {both[0]} is in both validation and test", remedy="put each speaker on one side"
        )
    if len({*validation, *test}) == len(speakers):
        raise UsageError(
            f"all {len(speakers)} speakers are on the validation or test side",
            remedy="leave some for training",
        )
    return Split(
        train=tuple(clip for clip in clips if clip.speaker not in {*validation, *test}),
        validation=tuple(clip for clip in clips if clip.speaker in validation),
        test=tuple(clip for clip in clips if clip.speaker in test),
    )


def read_split(path: Path) -> SplitFile:
    """Read a split file: JSON, {"validation": [...], "test": [...], "exclude_corpora": [...]}.

    `exclude_corpora` is optional. Names are composed (NFC), as in clips, and are not compared with any clips
    here.

    Raises:
        UsageError: the file is missing or has another form.
    """
    form = '{"validation": [speakers], "test": [speakers], "exclude_corpora": [corpora]}'
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise UsageError(f"there is no split file {path}", remedy=f"write {form}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} as JSON ({error})", remedy=f"write {form}") from error
    lists = {"exclude_corpora": [], **content} if isinstance(content, dict) else {}
    if set(lists) != set(SplitFile.__annotations__) or not all(map(_is_names, lists.values())):
        raise UsageError(f"{path} is not a split", remedy=f"write {form} and nothing else")
    named = {side: [normalize("NFC", name) for name in names] for side, names in lists.items()}
    return SplitFile(
        validation=named["validation"], test=named["test"], exclude_corpora=named["exclude_corpora"]
    )


def default_split(clips: Sequence[Clip]) -> Split:
    """Split each corpus by a fixed rule.

    The speakers of a corpus, sorted, are taken from the end, alternating between genders: the first fifth is
    the test side, the second the validation side, each at least one speaker; the others are training
    speakers. A corpus of fewer than three speakers is for training only.

    Raises:
        UsageError: there are fewer than three speakers, no corpus has three, or two corpora share a
            speaker's name.
    """
    _require_speakers(speakers_of(clips), FEWEST_SPEAKERS)
    refuse_shared_names(clips)
    validation: list[str] = []
    test: list[str] = []
    for corpus in sorted({clip.corpus for clip in clips}):
        order = _from_the_end([clip for clip in clips if clip.corpus == corpus])
        if len(order) >= FEWEST_SPEAKERS:
            share = max(1, round(HELD_OUT_SHARE * len(order)))
            test += order[:share]
            validation += order[share : 2 * share]
    if not test:
        raise UsageError(
            "no corpus has three or more speakers",
            remedy="name the validation and test speakers with --split",
        )
    return split_by_speaker(clips, validation=validation, test=test)


def leave_one_speaker_out(clips: Sequence[Clip]) -> Iterator[tuple[str, Split]]:
    """Yield each speaker, sorted, with the split that tests on that speaker alone.

    The validation speaker has another gender where possible, and they take turns; all others are training
    speakers.

    Raises:
        UsageError: there are fewer than three speakers.
    """
    genders = _genders(clips)
    speakers = sorted(genders)
    _require_speakers(speakers, FEWEST_SPEAKERS)
    places = _places(speakers, genders)
    for index, speaker in enumerate(speakers):
        others = [name for name in speakers if genders[name] != genders[speaker]]
        following = speakers[(index + 1) % len(speakers)]
        validation = others[places[speaker] % len(others)] if others else following
        yield speaker, split_by_speaker(clips, validation=[validation], test=[speaker])


def leave_one_session_out(clips: Sequence[Clip], *, both: bool = False) -> Iterator[tuple[str, Split]]:
    """Yield each test speaker with the split of Cai et al. 2020, section 3.1.2: five folds on IEMOCAP.

    A session is a dialogue of two speakers, named as in IEMOCAP, `Ses01_F`. One of them is tested, the other
    is the validation speaker, and all other sessions are for training. The paper does not say which of the
    two is tested: here the last by name (IEMOCAP's male speaker), or with `both` each in turn.

    Raises:
        UsageError: a session does not have two speakers, or there is only one session.
    """
    for session, pair in _sessions(clips).items():
        if len(pair) != SESSION_SPEAKERS:
            raise UsageError(
                f"session {session} has {len(pair)} speakers, but one is to be tested and one to validate",
                remedy="add the other speaker, or leave one speaker out (--scheme speaker)",
            )
        for tested in pair if both else pair[-1:]:
            (other,) = [name for name in pair if name != tested]
            yield tested, split_by_speaker(clips, validation=[other], test=[tested])


def refuse_shared_recordings(clips: Iterable[Clip]) -> None:
    """Refuse identical recordings of two speakers: some fold would test on what it trained with.

    Raises:
        UsageError: two files of different speakers have the same content.
    """
    seen: dict[str, Clip] = {}
    for clip in clips:
        digest = hashlib.sha256(clip.path.read_bytes()).hexdigest()
        first = seen.setdefault(digest, clip)
        if first.speaker != clip.speaker:
            raise UsageError(
                f"{first.path} of speaker {first.speaker} and {clip.path} of speaker {clip.speaker} are the "
                "same recording",
                remedy="correct the manifest",
            )


def _sessions(clips: Iterable[Clip]) -> dict[str, list[str]]:
    """Return the speakers of each session, both sorted."""
    sessions: dict[str, list[str]] = {}
    for speaker in speakers_of(clips):
        sessions.setdefault(speaker.rpartition("_")[0], []).append(speaker)
    return sessions


def _from_the_end(clips: Sequence[Clip]) -> list[str]:
    """Order the speakers from last to first, alternating between genders."""
    genders = _genders(clips)
    backwards = sorted(genders, reverse=True)
    places = _places(backwards, genders)
    return sorted(backwards, key=lambda speaker: places[speaker])


def _places(speakers: Sequence[str], genders: dict[str, str]) -> dict[str, int]:
    """Count the speakers of the same gender before each speaker."""
    seen: Counter[str] = Counter()
    places = {}
    for speaker in speakers:
        places[speaker] = seen[genders[speaker]]
        seen[genders[speaker]] += 1
    return places


def _genders(clips: Iterable[Clip]) -> dict[str, str]:
    return {clip.speaker: clip.gender for clip in clips}


def _require_speakers(speakers: Sequence[str], fewest: int) -> None:
    if not speakers:
        raise UsageError("there are no clips to split", remedy="check the corpora and --exclude")
    if len(speakers) < fewest:
        found = (
            f"one speaker only ({speakers[0]})" if len(speakers) == 1 else f"{len(speakers)} speakers only"
        )
        raise UsageError(
            f"{found}, but a split by speaker needs at least {fewest}",
            remedy="add recordings of other speakers",
        )


def refuse_shared_names(clips: Iterable[Clip]) -> None:
    """Refuse a speaker's name that two corpora share: it may be two people.

    Raises:
        UsageError: there is such a name.
    """
    corpora: dict[str, str] = {}
    for clip in clips:
        first = corpora.setdefault(clip.speaker, clip.corpus)
        if first != clip.corpus:
            raise UsageError(
                f"speaker {clip.speaker} is in the corpora {first} and {clip.corpus}",
                remedy=(
                    "rename one if they are two people, or name the validation and test speakers with --split"
                ),
            )


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _listed(names: Sequence[str], most: int = 30) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
