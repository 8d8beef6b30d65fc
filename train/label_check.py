"""Find classes whose labels were exchanged in a corpus, by comparison with the other corpora.

The measures of a clip are standardised by speaker, which removes channel and voice. A linear discriminant
fitted on all other corpora classifies each corpus. Two classes look exchanged if it recognises most of each
as the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.arrays import Array
from edge.audio.sound_file import read_clip
from edge.labels import EMOTIONS
from train.acoustics import NAMES, measures
from train.corpora import Clip

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CLIPS_OF_CLASS: Final = 10
"""Largest number of clips measured for each emotion of a speaker ..."""

SPEAKERS: Final = 20
"""... and of speakers of a corpus."""

FEWEST_CLIPS: Final = 8
"""Smallest number of clips of a class in a corpus; smaller classes are not compared."""

MARGIN: Final = 10.0
"""Gain in points at which two classes count as exchanged. Among the five corpora of the shipped model, each
of the 30 possible exchanges gains 17 or more, and no correct pair gains more than -17."""

ENOUGH_OTHERS: Final = 3
"""Number of corpora above which `MARGIN` holds. With fewer, acting styles differ as much as labels: correct
pairs gain up to 23 ..."""

WIDE_MARGIN: Final = 25.0
"""... and this margin holds. It holds for the confusion matrix of a bundle too."""

SHRINKAGE: Final = 0.3
"""Weight of a multiple of the identity in the discriminant's covariance."""


@dataclass(frozen=True)
class AcousticProfile:
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
    """Percent of the clips labelled `first` that the other corpora's classifier recognises as `second` ..."""
    second_as_first: float
    gain: float
    """Gain in the mean recall of the two classes from exchanging the labels, in points."""
    here: tuple[AcousticProfile, AcousticProfile]
    elsewhere: tuple[AcousticProfile, AcousticProfile]
    others: tuple[str, ...]
    """The corpora of the comparison; if there is only one, the exchange may be in that one."""

    def __str__(self) -> str:
        doubt = f" (or those of {self.others[0]})" if len(self.others) == 1 else ""
        return (
            f"the labels {self.first} and {self.second} of {self.corpus}{doubt} look exchanged: "
            f"a classifier of the other corpora recognises {self.first_as_second:.0f} % of its {self.first} "
            f"as {self.second} and {self.second_as_first:.0f} % of its {self.second} as {self.first}. "
            f"Relative to the speaker, in standard deviations: {self.first} {self.here[0]} "
            f"(elsewhere {self.elsewhere[0]}); {self.second} {self.here[1]} (elsewhere {self.elsewhere[1]}). "
            "Listen to some clips of both"
        )


@dataclass(frozen=True)
class LabelCheck:
    """Acoustic profile and confusion of the labels of each corpus."""

    profiles: dict[str, dict[str, AcousticProfile]]
    """By corpus and emotion."""
    confusion: dict[str, list[list[float]]]
    """By corpus: percent of each class (row) that the others' classifier recognises as each class."""
    exchanges: tuple[Exchange, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)


def check_labels(
    clips: Sequence[Clip], progress: Callable[[Sequence[Clip]], Iterable[Clip]]
) -> LabelCheck | None:
    """Compare each corpus with the others; return None if fewer than two can be compared.

    Args:
        clips: in the four emotions, of any number of corpora.
        progress: wraps the clips to show the progress.
    """
    chosen = _comparable(clips)
    if len({clip.corpus for clip in chosen}) < 2:
        return None
    return compare_labels(chosen, np.array([_measured(clip.path) for clip in progress(chosen)]))


def compare_labels(clips: Sequence[Clip], values: ArrayLike) -> LabelCheck:
    """Compare each corpus with the others.

    Args:
        clips: of two corpora or more, in the four emotions.
        values: (N, M) measures of each clip.
    """
    emotion = np.array([EMOTIONS.index(clip.emotion) for clip in clips])
    speakers = np.array([clip.speaker for clip in clips])
    relative = _relative(np.asarray(values, np.float64), emotion, speakers)
    return _compare(relative, emotion, np.array([clip.corpus for clip in clips]))


def exchanged_pair(confusion: ArrayLike) -> tuple[float, tuple[int, int]]:
    """Find the pair of classes with the largest gain from exchanging their labels.

    Args:
        confusion: (C, C), percent of each labelled class (row) that is recognised as each class; a missing
            class has a row of zeros.

    Returns:
        The gain in points of the mean of the two recalls, and the pair. Pairs with a missing class are left
        out.
    """
    table = np.asarray(confusion, np.float64)
    present = table.sum(axis=1) > 0
    pairs = [pair for pair in combinations(range(len(table)), 2) if present[list(pair)].all()]
    gains = [(table[a, b] + table[b, a] - table[a, a] - table[b, b]) / 2 for a, b in pairs]
    return max(zip(map(float, gains), pairs, strict=True), default=(-np.inf, (0, 0)))


def _measured(path: Path) -> Array:
    return measures(read_clip(path))


def _comparable(clips: Sequence[Clip]) -> list[Clip]:
    """Select clips of each emotion from speakers with two or more emotions."""
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
    """Select at most `most` items, evenly spread."""
    count = min(most, len(items))
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)] if count else []


def _relative(values: Floats, emotion: Labels, speakers: NDArray[np.str_]) -> Floats:
    """Standardise (N, M) measures by each speaker's mean and deviation, weighted equally over emotions."""
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
    """Replace NaN by the column's mean, or by 0 if the column has only NaN."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known, values, total / np.maximum(known.sum(axis=0), 1))


def _compare(relative: Floats, emotion: Labels, corpora: NDArray[np.str_]) -> LabelCheck:
    """Find the exchanged pairs, the largest gain first.

    Each pair is corrected before the search for the next: otherwise a corpus with exchanged labels makes the
    corpora that are compared with it look wrong.
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
    """Classify a corpus by the others: (C, C) percent; a class with too few clips has a row of zeros."""
    classes = range(len(EMOTIONS))
    here, elsewhere = (np.bincount(emotion[side], minlength=len(EMOTIONS)) for side in (own, ~own))
    known = np.flatnonzero((here >= FEWEST_CLIPS) & (elsewhere >= FEWEST_CLIPS))
    table = np.zeros((len(EMOTIONS), len(EMOTIONS)))
    if len(known) < 2:
        return table
    training = ~own & np.isin(emotion, known)
    scores = _discriminant(relative[training], emotion[training], known)(relative[own])
    predicted = known[scores.argmax(axis=1)]
    for label in known:
        table[label] = [100.0 * (predicted[emotion[own] == label] == answer).mean() for answer in classes]
    return table


def _discriminant(values: Floats, labels: Labels, classes: Labels) -> Callable[[Floats], Floats]:
    """Fit a linear discriminant with equal priors: Friedman 1989, with `SHRINKAGE`.

    Returns:
        A function that maps (N, M) measures to (N, classes) scores.
    """
    means = np.array([values[labels == label].mean(axis=0) for label in classes])
    scatter = [np.cov(values[labels == label].T, bias=True) for label in classes]
    covariance = np.mean(scatter, axis=0)
    size = len(covariance)
    even = np.eye(size) * np.trace(covariance) / size
    weights = np.linalg.solve((1 - SHRINKAGE) * covariance + SHRINKAGE * even, means.T)  # (M, classes)
    bias = -0.5 * (means.T * weights).sum(axis=0)
    return lambda rows: rows @ weights + bias


def _profiles(relative: Floats, emotion: Labels, own: NDArray[np.bool_]) -> dict[str, AcousticProfile]:
    present = sorted(set(emotion[own].tolist()))
    return {
        EMOTIONS[label]: AcousticProfile(
            *map(float, relative[own & (emotion == label), : len(NAMES)].mean(axis=0))
        )
        for label in present
    }


def _exchanged(emotion: Labels, own: NDArray[np.bool_], pair: tuple[int, int]) -> Labels:
    """Exchange two labels of one corpus."""
    order = np.arange(len(EMOTIONS))
    order[list(pair)] = order[list(pair)[::-1]]
    return np.where(own, order[emotion], emotion)
