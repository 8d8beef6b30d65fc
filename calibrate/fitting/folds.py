"""Which takes are held out together, to be judged by what the others teach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.examples import Integers
from calibrate.takes import Take

MOST_FOLDS: Final = 5

SHIFTS: Final = ((0, 0, 0, 0), (0, 1, 0, 1), (0, 0, 1, 1), (0, 1, 1, 0))
"""By how much the folds of each emotion are moved on in each round, so that takes of two emotions that
are held out together in one round are apart in another."""


@dataclass(frozen=True)
class Folds:
    """In each round every take is held out once."""

    held_out_by: str
    """"sentence": what is judged on was not said in what is fitted on; else "take"."""
    rounds: tuple[Integers, ...]
    """(N,) fold of each take."""
    one_sentence: bool = False
    """Whether all takes are known to be of one sentence: nothing is then known of any other."""

    def first_round(self) -> Folds:
        """Return the first round alone: for what takes long."""
        return replace(self, rounds=self.rounds[:1])

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield the round and (N,) booleans for each fold: which takes are held out."""
        for index, of_take in enumerate(self.rounds):
            yield from ((index, of_take == fold) for fold in range(int(of_take.max()) + 1))


def hold_out(takes: Sequence[Take]) -> Folds:
    """Divide takes into folds, without chance.

    By sentence where each is said in every emotion, so that its loss leaves the session even; else by
    take. As many of each emotion are then held out at a time, for a session that lacks one take of an
    emotion leans away from that very emotion.

    Args:
        takes: two or more of each emotion there is.
    """
    emotions = np.array([take.emotion for take in takes])
    texts = [" ".join(take.text.casefold().split()) for take in takes]
    if len(set(texts)) > 1 and all(_said_in(texts, emotions, text) == set(emotions) for text in texts):
        return Folds("sentence", (_deal(texts),))
    fewest = int(np.bincount(emotions)[np.unique(emotions)].min())
    places = np.array([int((emotions[:index] == emotion).sum()) for index, emotion in enumerate(emotions)])
    folds = min(MOST_FOLDS, fewest)
    rounds = tuple((places + np.array(shift)[emotions]) % folds for shift in SHIFTS)
    return Folds("take", rounds, one_sentence=len(set(texts)) == 1 and texts[0] != "")


def _said_in(texts: Sequence[str], emotions: Integers, text: str) -> set[int]:
    """Return the emotions a sentence is said in; none for takes of which the sentence is not known."""
    return {emotion for said, emotion in zip(texts, emotions.tolist(), strict=True) if text and said == text}


def _deal(texts: Sequence[str]) -> Integers:
    """Put takes of one sentence in one fold, the folds as even as the sentences allow: (N,)."""
    count = min(MOST_FOLDS, len(set(texts)))
    sizes, fold_of = [0] * count, dict[str, int]()
    for text in dict.fromkeys(texts):
        fold_of[text] = sizes.index(min(sizes))
        sizes[fold_of[text]] += texts.count(text)
    return np.array([fold_of[text] for text in texts])
