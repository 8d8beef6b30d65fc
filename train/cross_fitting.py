"""Scores of every training speaker by a head that was trained on the other speakers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.labels import EMOTIONS
from train.baseline_protocols import (
    Answers,
    BaselineProtocol,
    FittedHead,
    ProtocolConfig,
    answers_by_protocol,
    merged,
)
from train.corpora import Clip
from train.feature_cache import Features
from train.splits import speakers_of
from train.temperature import fit_temperature

FEWEST_FOLDS: Final = 2

SPEAKER_SEED: Final = 7
"""Seed of the order in which a corpus's speakers are dealt to the folds."""

FITTED_ON: Final[tuple[BaselineProtocol, ...]] = ("none", "running")
"""Protocols whose answers the temperature is fitted on: what a listener without a profile meets."""

HeadFit = Callable[[Sequence[Clip], Sequence[Features], str], FittedHead]
"""Train a head on some clips and the copies of their features; the text names it in the progress."""


def speaker_folds(clips: Sequence[Clip], count: int) -> list[list[str]]:
    """Deal the speakers of each corpus to folds of nearly equal size.

    Raises:
        UsageError: there are fewer folds than two, or fewer speakers than folds.
    """
    corpora: dict[str, str] = {}
    for clip in clips:
        corpora.setdefault(clip.speaker, clip.corpus)
    if count < FEWEST_FOLDS:
        raise UsageError(
            f"{count} fold leaves nothing to train on", remedy="give --folds 2 or more, or 0 for no scores"
        )
    if len(corpora) < count:
        raise UsageError(
            f"{len(corpora)} training speakers are too few for {count} folds by speaker",
            remedy=f"give --folds 2 to {len(corpora)}" if len(corpora) >= FEWEST_FOLDS else "give --folds 0",
        )
    folds: list[list[str]] = [[] for _ in range(count)]
    dealt = 0
    for corpus in sorted(set(corpora.values())):
        names = sorted(name for name, of in corpora.items() if of == corpus)
        np.random.default_rng(SPEAKER_SEED).shuffle(names)
        for name in names:
            folds[dealt % count].append(name)
            dealt += 1
    return [sorted(fold) for fold in folds]


def held_out_answers(
    clips: Sequence[Clip],
    copies: Sequence[Features],
    held_out: Mapping[str, Collection[str]],
    fit: HeadFit,
    config: ProtocolConfig,
) -> Answers:
    """Answer for each group of speakers with a head that was trained on all others.

    Args:
        clips: of all training speakers.
        copies: their features; the first copy is as recorded.
        held_out: speakers of each group, by its name.
        fit: trains a head.
        config: how the speech for a baseline is drawn.
    """
    parts = []
    for name, speakers in held_out.items():
        own = np.array([clip.speaker in speakers for clip in clips])
        inside, outside = np.flatnonzero(own), np.flatnonzero(~own)
        fitted = fit(_chosen(clips, outside), [copy.of(outside) for copy in copies], name)
        parts.append(answers_by_protocol(fitted, _chosen(clips, inside), copies[0].of(inside), config))
    return merged(parts)


def _chosen(clips: Sequence[Clip], numbers: NDArray[np.int64]) -> list[Clip]:
    return [clips[number] for number in numbers.tolist()]


def temperature_of(answers: Answers) -> float:
    """Fit the temperature to the posteriors of each clip, under the protocols `FITTED_ON`."""
    items = [item for protocol in FITTED_ON for item in answers[protocol]]
    return fit_temperature(
        [item.logits for item in items], [EMOTIONS.index(item.clip.emotion) for item in items]
    )


def require_disjoint(
    groups: Mapping[str, Iterable[str]], clips: Sequence[Clip], digests: Sequence[str]
) -> None:
    """Refuse a speaker or a recording that is in two groups: what is trained on would be scored.

    Args:
        groups: speakers of each side or fold, by its name.
        clips: of all speakers.
        digests: hash of each clip's samples.

    Raises:
        UsageError: there is one.
    """
    group_of: dict[str, str] = {}
    for group, speakers in groups.items():
        for speaker in speakers:
            if group_of.setdefault(speaker, group) != group:
                raise UsageError(
                    f"speaker {speaker} is in {group_of[speaker]} and in {group}",
                    remedy="put each speaker on one side",
                )
    first: dict[str, Clip] = {}
    for clip, digest in zip(clips, digests, strict=True):
        other = first.setdefault(digest, clip)
        sides = group_of[other.speaker], group_of[clip.speaker]
        if sides[0] != sides[1]:
            raise UsageError(
                f"{other.path} ({other.speaker}, {sides[0]}) and {clip.path} ({clip.speaker}, {sides[1]}) "
                "are the same recording, so a score would be of what was trained on",
                remedy="remove one of the two, or correct its speaker",
            )


def without_speakers_of(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """Return the speakers of each corpus, by its name, to leave out together.

    Raises:
        UsageError: there is only one corpus.
    """
    names = sorted({clip.corpus for clip in clips})
    if len(names) < 2:
        raise UsageError(
            f"--leave-corpus-out needs two corpora or more, and there is only {names[0]}",
            remedy="leave the option out, or add a corpus",
        )
    return {name: speakers_of(clip for clip in clips if clip.corpus == name) for name in names}
