"""Cross-validation folds of a session's takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from calibrate.fitting.examples import Integers
from calibrate.takes import Take

MOST_FOLDS: Final = 5

SHIFTS: Final = ((0, 0, 0, 0), (0, 1, 0, 1), (0, 0, 1, 1), (0, 1, 1, 0))
"""Rotation of each emotion's folds in each round: takes of two emotions that share a fold in one round are
in different folds in another."""


@dataclass(frozen=True)
class Folds:
    """Rounds of cross-validation; in each round every take is held out once."""

    held_out_by: Literal["sentence", "take"]
    """"sentence": a held-out sentence occurs in no take that is fitted on."""
    rounds: tuple[Integers, ...]
    """(N,) fold of each take."""
    one_sentence: bool = False
    """Whether all takes are of one sentence: the judgement then says nothing about other sentences."""

    def first_round(self) -> Folds:
        """Return the first round alone, for candidates that take long."""
        return replace(self, rounds=self.rounds[:1])

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield the round and (N,) booleans for each fold: which takes are held out."""
        for index, fold_of_take in enumerate(self.rounds):
            yield from ((index, fold_of_take == fold) for fold in range(int(fold_of_take.max()) + 1))


def hold_out(takes: Sequence[Take]) -> Folds:
    """Divide takes into folds, deterministically.

    By sentence if each is said in every emotion, so that the emotions stay balanced when it is held out;
    otherwise by take, with the same number of each emotion in a fold: without that balance, the fit is
    biased against the emotion of the held-out take.

    Args:
        takes: of each emotion none, or two or more.
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
    """Return the emotions a sentence is said in; none for the empty text, which is an unknown sentence."""
    return {emotion for said, emotion in zip(texts, emotions.tolist(), strict=True) if text and said == text}


def _deal(texts: Sequence[str]) -> Integers:
    """Put the takes of a sentence in one fold, and keep the folds about equally large: (N,)."""
    count = min(MOST_FOLDS, len(set(texts)))
    sizes, fold_of = [0] * count, dict[str, int]()
    for text in dict.fromkeys(texts):
        fold_of[text] = sizes.index(min(sizes))
        sizes[fold_of[text]] += texts.count(text)
    return np.array([fold_of[text] for text in texts])
