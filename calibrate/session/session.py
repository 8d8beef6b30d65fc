"""A guided session as a value: what is to be said, what is done, what comes next, how long it will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from calibrate.session.sentences import sentences
from calibrate.takes import FEWEST_TAKES, Ratings
from edge.labels import EMOTIONS

TYPICAL_TAKE_S: Final = 25.0
"""From one prompt to the next, until this person's own pace is known."""

TYPICAL_WEIGHT: Final = 2
"""Takes that `TYPICAL_TAKE_S` counts for against those measured."""

FEWEST_EMOTIONS: Final = 2
"""With takes enough: with one alone nothing can be told apart."""


@dataclass(frozen=True)
class Prompt:
    """One sentence to be said in one manner."""

    index: int
    """Place in the plan, from 0; it names the take's file."""
    emotion: int
    """Index in `edge.labels.EMOTIONS`."""
    sentence: str


@dataclass(frozen=True)
class Recorded:
    """What is known of a take that was kept."""

    text: str
    ratings: Ratings
    """None: the speaker left the question out, and the answer is derived from the emotion."""


@dataclass(frozen=True)
class Session:
    """How far one person has come.

    The plan goes sentence by sentence, each said in every emotion before the next: a session that
    is cut short has all emotions, what is judged on was not said in what is fitted on, and a longer
    plan begins with the shorter one.
    """

    name: str
    language: str
    takes: int
    """Of each emotion."""
    done: Mapping[int, Recorded] = field(default_factory=dict)
    """By the prompt's index."""
    skipped: frozenset[int] = frozenset()
    """Indices of prompts the speaker left out."""

    @property
    def prompts(self) -> list[Prompt]:
        """The plan."""
        said = sentences(self.language)[: self.takes]
        orders = [(sentence, emotion) for sentence in said for emotion in range(len(EMOTIONS))]
        return [Prompt(index, emotion, sentence) for index, (sentence, emotion) in enumerate(orders)]

    @property
    def open(self) -> list[Prompt]:
        """What is neither done nor skipped."""
        return [prompt for prompt in self.prompts if prompt.index not in {*self.done, *self.skipped}]

    @property
    def next(self) -> Prompt | None:
        """What is to be said now; None when the plan is through."""
        return next(iter(self.open), None)

    @property
    def counts(self) -> dict[int, int]:
        """Takes of each emotion so far, by its index."""
        return dict(Counter(emotion_of(index) for index in self.done))

    @property
    def usable(self) -> list[int]:
        """Indices of the takes whose emotion has enough of them to fit on, in the plan's order."""
        return [index for index in sorted(self.done) if self.counts[emotion_of(index)] >= FEWEST_TAKES]

    @property
    def enough(self) -> bool:
        """Whether there is enough to fit and judge by."""
        return len({emotion_of(index) for index in self.usable}) >= FEWEST_EMOTIONS

    def with_take(self, prompt: Prompt, ratings: Ratings) -> Session:
        """Return the session after a take was kept."""
        return replace(self, done={**self.done, prompt.index: Recorded(prompt.sentence, ratings)})

    def without(self, prompt: Prompt) -> Session:
        """Return the session after a prompt was skipped."""
        return replace(self, skipped=self.skipped | {prompt.index})

    def with_skipped_again(self) -> Session:
        """Return the session with the skipped prompts to be said after all."""
        return replace(self, skipped=frozenset())

    def seconds_left(self, spent_s: Sequence[float]) -> float:
        """Estimate how long the rest will take.

        Args:
            spent_s: on each take so far.
        """
        typical = [TYPICAL_TAKE_S] * TYPICAL_WEIGHT
        pace_s = sum([*typical, *spent_s]) / (TYPICAL_WEIGHT + len(spent_s))
        return len(self.open) * pace_s


def emotion_of(index: int) -> int:
    """Return the emotion of the prompt with an index."""
    return index % len(EMOTIONS)
