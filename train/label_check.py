"""Do the labels of each corpus mean what they mean in the others? Finds classes that were exchanged.

Every clip is measured relative to its speaker, so that channels and voices drop out. A linear
discriminant fitted on all other corpora then classifies the corpus in question: where it takes most of
one class for another and the other for the first, the two look exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.audio.ingest import read_clip
from edge.labels import EMOTIONS
from train.acoustics import NAMES, measures
from train.corpora import Clip

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CLIPS_OF_CLASS: Final = 10
"""Clips of each emotion of a speaker that are measured, at most ..."""

SPEAKERS: Final = 20
"""... of so many speakers of a corpus."""

FEWEST_CLIPS: Final = 8
"""Of a class in a corpus, below which nothing is claimed of it."""

MARGIN: Final = 10.0
"""Points by which the exchanged labels must fit better than the given ones. Among the five corpora of the
shipped model, each of the 30 exchanges of two classes gains 17 or more, and no right pair more than -17."""

ENOUGH_OTHERS: Final = 3
"""Corpora to compare with, below which acting styles weigh as much as labels: right ones gain up to 23 ..."""

WIDE_MARGIN: Final = 25.0
"""... and this margin holds. It also holds for what a bundle confuses."""

SHRINKAGE: Final = 0.3
"""Share of the discriminant's covariance that is replaced by a multiple of the identity."""


@dataclass(frozen=True)
class Profile:
    """Mean loudness, pitch and rate of a class, in standard deviations from the speaker's mean."""

    loudness: float
    pitch: float
    rate: float

    def __str__(self) -> str:
        return f"loudness {self.loudness:+.1f}, pitch {self.pitch:+.1f}, rate {self.rate:+.1f}"


@dataclass(frozen=True)
class Exchange:
    """Two classes of a corpus that look exchanged."""

    corpus: str
    first: str
    second: str
    first_as_second: float
    """Percent of the clips labelled `first` that the other corpora's classifier takes for `second` ..."""
    second_as_first: float
    gain: float
    """Points of recall, mean of the two classes, that exchanging the labels would gain."""
    here: tuple[Profile, Profile]
    elsewhere: tuple[Profile, Profile]
    others: tuple[str, ...]
    """The corpora it was compared with; where it is one only, that one may be the wrong one."""

    def __str__(self) -> str:
        doubt = f" (or those of {self.others[0]})" if len(self.others) == 1 else ""
        return (
            f"the labels {self.first} and {self.second} of {self.corpus}{doubt} look exchanged: "
            f"a classifier of the other corpora takes {self.first_as_second:.0f} % of its {self.first} for "
            f"{self.second} and {self.second_as_first:.0f} % of its {self.second} for {self.first}. "
            f"Relative to the speaker, in standard deviations: {self.first} {self.here[0]} "
            f"(elsewhere {self.elsewhere[0]}); {self.second} {self.here[1]} (elsewhere {self.elsewhere[1]}). "
            "Listen to some clips of both"
        )


@dataclass(frozen=True)
class LabelCheck:
    """What the labels of each corpus sound like."""

    profiles: dict[str, dict[str, Profile]]
    """By corpus and emotion."""
    confusion: dict[str, list[list[float]]]
    """By corpus: percent of each class (row) that the other corpora's classifier takes for each class."""
    exchanges: tuple[Exchange, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def check_labels(
    clips: Sequence[Clip], progress: Callable[[Sequence[Clip]], Iterable[Clip]]
) -> LabelCheck | None:
    """Compare each corpus with the others; None where fewer than two can be compared.

    Args:
        clips: in the four emotions, of any number of corpora.
        progress: wraps the clips to show how far the measuring is.
    """
    chosen = _comparable(clips)
    if len({clip.corpus for clip in chosen}) < 2:
        return None
    return compare_labels(chosen, np.array([measures(read_clip(clip.path)) for clip in progress(chosen)]))


def compare_labels(clips: Sequence[Clip], values: ArrayLike) -> LabelCheck:
    """Compare each corpus with the others.

    Args:
        clips: of two corpora or more, in the four emotions.
        values: (N, M) measures of each.
    """
    emotion = np.array([EMOTIONS.index(clip.emotion) for clip in clips])
    speakers = np.array([clip.speaker for clip in clips])
    relative = _relative(np.asarray(values, np.float64), emotion, speakers)
    return _compare(relative, emotion, np.array([clip.corpus for clip in clips]))


def exchanged_pair(confusion: ArrayLike) -> tuple[float, tuple[int, int]]:
    """Find the pair of classes whose exchange would gain most.

    Args:
        confusion: (C, C), percent of each labelled class (row) that is taken for each class; a class that is
            missing has a row of zeros.

    Returns:
        Points gained by exchanging the two, mean of their recalls, and the pair. A pair with a missing class
        gains nothing.
    """
    table = np.asarray(confusion, np.float64)
    present = table.sum(axis=1) > 0
    pairs = [pair for pair in combinations(range(len(table)), 2) if present[list(pair)].all()]
    gains = [(table[a, b] + table[b, a] - table[a, a] - table[b, b]) / 2 for a, b in pairs]
    return max(zip(map(float, gains), pairs, strict=True), default=(-np.inf, (0, 0)))


def _comparable(clips: Sequence[Clip]) -> list[Clip]:
    """Take some clips of each emotion of some speakers, of those who show two emotions or more."""
    by_speaker: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        by_speaker.setdefault((clip.corpus, clip.speaker), []).append(clip)
    chosen: list[Clip] = []
    for corpus in sorted({corpus for corpus, _ in by_speaker}):
        varied = [
            own
            for (name, _), own in sorted(by_speaker.items())
            if name == corpus and len({clip.emotion for clip in own}) > 1
        ]
        for own in _spread(varied, SPEAKERS):
            for emotion in EMOTIONS:
                chosen += _spread([clip for clip in own if clip.emotion == emotion], CLIPS_OF_CLASS)
    return chosen


def _spread(items: list[Any], most: int) -> list[Any]:
    """Take at most so many, evenly spread."""
    count = min(most, len(items))
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)] if count else []


def _relative(values: Floats, emotion: Labels, speakers: NDArray[np.str_]) -> Floats:
    """Standardise (N, M) measures by each speaker's mean and deviation, every emotion counting alike."""
    relative = np.zeros_like(values)
    for speaker in set(speakers.tolist()):
        own = speakers == speaker
        filled = _filled(values[own])
        counts = np.bincount(emotion[own], minlength=len(EMOTIONS))
        weights = 1.0 / counts[emotion[own]]
        mean = np.average(filled, axis=0, weights=weights)
        deviation = np.sqrt(np.average((filled - mean) ** 2, axis=0, weights=weights))
        relative[own] = (filled - mean) / np.maximum(deviation, 1e-6)
    return relative


def _filled(values: Floats) -> Floats:
    """Put the mean of the known values in place of NaN, and 0 where a column has no other."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known, values, total / np.maximum(known.sum(axis=0), 1))


def _compare(relative: Floats, emotion: Labels, corpora: NDArray[np.str_]) -> LabelCheck:
    """Find the exchanged pairs, the clearest first.

    Each is put right before the next is looked for: otherwise a corpus with exchanged labels makes those
    that are compared with it look wrong.
    """
    names = sorted(set(corpora.tolist()))
    margin = MARGIN if len(names) > ENOUGH_OTHERS else WIDE_MARGIN
    confusion = {name: _left_out(relative, emotion, corpora == name) for name in names}
    exchanges: list[Exchange] = []
    labels, found = emotion, confusion
    for _ in names:
        (gain, pair), name = max((exchanged_pair(table), name) for name, table in found.items())
        if gain < margin:
            break
        own = corpora == name
        first, second = pair
        sides = [_profiles(relative, labels, side) for side in (own, ~own)]
        here, elsewhere = ((side[EMOTIONS[first]], side[EMOTIONS[second]]) for side in sides)
        exchanges.append(
            Exchange(
                corpus=name,
                first=EMOTIONS[first],
                second=EMOTIONS[second],
                first_as_second=float(found[name][first, second]),
                second_as_first=float(found[name][second, first]),
                gain=gain,
                here=here,
                elsewhere=elsewhere,
                others=tuple(other for other in names if other != name),
            )
        )
        labels = _exchanged(labels, own, pair)
        found = {other: _left_out(relative, labels, corpora == other) for other in names}
    return LabelCheck(
        {name: _profiles(relative, emotion, corpora == name) for name in names},
        {name: table.round(1).tolist() for name, table in confusion.items()},
        tuple(exchanges),
    )


def _left_out(relative: Floats, emotion: Labels, own: NDArray[np.bool_]) -> Floats:
    """Classify a corpus by the others: (C, C) percent; rows of zeros where a class is too rare to tell."""
    classes = range(len(EMOTIONS))
    here, elsewhere = (np.bincount(emotion[side], minlength=len(EMOTIONS)) for side in (own, ~own))
    known = np.flatnonzero((here >= FEWEST_CLIPS) & (elsewhere >= FEWEST_CLIPS))
    table = np.zeros((len(EMOTIONS), len(EMOTIONS)))
    if len(known) < 2:
        return table
    taught = ~own & np.isin(emotion, known)
    scores = _discriminant(relative[taught], emotion[taught], known)(relative[own])
    predicted = known[scores.argmax(axis=1)]
    for label in known:
        table[label] = [100.0 * (predicted[emotion[own] == label] == answer).mean() for answer in classes]
    return table


def _discriminant(values: Floats, labels: Labels, classes: Labels) -> Callable[[Floats], Floats]:
    """Fit a linear discriminant, the classes counting alike: Friedman 1989, with `SHRINKAGE`.

    Returns:
        What maps (N, M) measures to (N, classes) scores.
    """
    means = np.array([values[labels == label].mean(axis=0) for label in classes])
    scatter = [np.cov(values[labels == label].T, bias=True) for label in classes]
    covariance = np.mean(scatter, axis=0)
    size = len(covariance)
    even = np.eye(size) * np.trace(covariance) / size
    weights = np.linalg.solve((1 - SHRINKAGE) * covariance + SHRINKAGE * even, means.T)  # (M, classes)
    bias = -0.5 * (means.T * weights).sum(axis=0)
    return lambda rows: rows @ weights + bias


def _profiles(relative: Floats, emotion: Labels, own: NDArray[np.bool_]) -> dict[str, Profile]:
    present = sorted(set(emotion[own].tolist()))
    return {
        EMOTIONS[label]: Profile(*map(float, relative[own & (emotion == label), : len(NAMES)].mean(axis=0)))
        for label in present
    }


def _exchanged(emotion: Labels, own: NDArray[np.bool_], pair: tuple[int, int]) -> Labels:
    """Exchange two labels of one corpus."""
    order = np.arange(len(EMOTIONS))
    order[list(pair)] = order[list(pair)[::-1]]
    return np.where(own, order[emotion], emotion)
