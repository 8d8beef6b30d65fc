"""The state of a guided session as an immutable value: the prompts, the takes so far and the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from calibrate.session.sentences import sentences
from calibrate.takes import FEWEST_TAKES, Ratings
from edge.labels import EMOTIONS

TYPICAL_TAKE_S: Final = 25.0
"""Time from one prompt to the next, until the speaker's own pace is known."""

TYPICAL_WEIGHT: Final = 2
"""Weight of `TYPICAL_TAKE_S`, in takes."""

ORDINARY_S: Final = 40.0
"""Time that recording ordinary speech takes."""

OrdinaryState = Literal["none", "open", "done", "skipped"]
"""Of the recording of ordinary speech; "none": the model does not use it."""

FEWEST_EMOTIONS: Final = 2
"""With enough takes; a fit needs several emotions."""


@dataclass(frozen=True)
class Prompt:
    """One sentence to say in one manner."""

    index: int
    """Position in the plan, from 0; part of the take's file name."""
    emotion: int
    """Index in `edge.labels.EMOTIONS`."""
    sentence: str


@dataclass(frozen=True)
class RecordedTake:
    """Text and ratings of a take that was kept."""

    text: str
    ratings: Ratings
    """None: the speaker skipped the question, and the rating is derived from the emotion."""


@dataclass(frozen=True)
class Session:
    """The progress of one speaker.

    The plan goes sentence by sentence, each said in every emotion before the next one. So a session that
    ends early has all emotions, takes can be held out by sentence, and a longer plan begins with the
    shorter one.
    """

    name: str
    language: str
    takes: int
    """Of each emotion; 0 for ordinary speech alone."""
    done: Mapping[int, RecordedTake] = field(default_factory=dict)
    """By the prompt's index."""
    skipped: frozenset[int] = frozenset()
    """Indices of the prompts that the speaker skipped."""
    ordinary: OrdinaryState = "none"

    @property
    def prompts(self) -> list[Prompt]:
        """The plan."""
        said = sentences(self.language)[: self.takes]
        pairs = [(sentence, emotion) for sentence in said for emotion in range(len(EMOTIONS))]
        return [Prompt(index, emotion, sentence) for index, (sentence, emotion) in enumerate(pairs)]

    @property
    def open(self) -> list[Prompt]:
        """The prompts that are neither done nor skipped."""
        return [prompt for prompt in self.prompts if prompt.index not in {*self.done, *self.skipped}]

    @property
    def next(self) -> Prompt | None:
        """The next open prompt; None if there is none."""
        return next(iter(self.open), None)

    @property
    def counts(self) -> dict[int, int]:
        """Takes of each emotion so far, by its index."""
        return dict(Counter(emotion_of(index) for index in self.done))

    @property
    def usable(self) -> list[int]:
        """Indices of the takes whose emotion has enough takes to fit on, in the order of the plan."""
        return [index for index in sorted(self.done) if self.counts[emotion_of(index)] >= FEWEST_TAKES]

    @property
    def enough(self) -> bool:
        """Whether there are enough takes to fit and judge by; if none are planned, ordinary speech."""
        if not self.takes:
            return self.ordinary == "done"
        return len({emotion_of(index) for index in self.usable}) >= FEWEST_EMOTIONS

    @property
    def steps(self) -> tuple[int, int]:
        """The number of recordings done, and of all: the takes of the plan, and ordinary speech."""
        done = sum(prompt.index in self.done for prompt in self.prompts)
        return done + (self.ordinary == "done"), len(self.prompts) + (self.ordinary in ("open", "done"))

    def with_take(self, prompt: Prompt, ratings: Ratings) -> Session:
        """Return the session with a take added."""
        return replace(self, done={**self.done, prompt.index: RecordedTake(prompt.sentence, ratings)})

    def without(self, prompt: Prompt) -> Session:
        """Return the session with a prompt skipped."""
        return replace(self, skipped=self.skipped | {prompt.index})

    def with_ordinary(self, state: OrdinaryState) -> Session:
        """Return the session with another state of ordinary speech."""
        return replace(self, ordinary=state)

    def with_skipped_again(self) -> Session:
        """Return the session with the skipped prompts open again."""
        return replace(self, skipped=frozenset())

    def seconds_left(self, spent_s: Sequence[float]) -> float:
        """Estimate the time that the open recordings will take.

        Args:
            spent_s: seconds spent on each take so far.
        """
        typical = [TYPICAL_TAKE_S] * TYPICAL_WEIGHT
        pace_s = sum([*typical, *spent_s]) / (TYPICAL_WEIGHT + len(spent_s))
        return len(self.open) * pace_s + ORDINARY_S * (self.ordinary == "open")


def emotion_of(index: int) -> int:
    """Return the emotion of the prompt with an index."""
    return index % len(EMOTIONS)
