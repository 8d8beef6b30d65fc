"""The conversation of a guided session: what each key and each block of sound leads to.

No terminal and no device here: keys and sound come in, takes go to a folder, and
`calibrate.session.views` draws what there is. Time is the stream's own, counted in samples.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np

from calibrate.session.quality import Quality, measure, refusal
from calibrate.session.recording import Progress, Recorder
from calibrate.session.sam_scale import SCALES, rating_of
from calibrate.session.session import Prompt, Session
from calibrate.takes import Ratings
from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import Block, DeviceChange
from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.features.silero_vad import SileroVad, VoiceActivityModel

RECENT_S: Final = 4.0
"""What the advice before the first take is about."""

ADVISE_S: Final = 0.5
"""From one look at it to the next."""

METER_S: Final = 0.1
"""What the level meter shows."""


class Stage(Enum):
    """Where the conversation is."""

    LEVEL = auto()
    """Before the first take: is the microphone right?"""
    READY = auto()
    """The prompt is shown."""
    RECORDING = auto()
    REVIEW = auto()
    """The take is there: good, or refused."""
    RATING = auto()
    REST = auto()
    """The plan is through, but prompts were skipped."""


class Ending(Enum):
    """Why the conversation is over."""

    COMPLETE = auto()
    OTHER_DEVICE = auto()


@dataclass(frozen=True)
class Action:
    """What a key does now."""

    key: str
    shown: str
    """What is written on the key."""
    does: str
    run: Callable[[], None]


class Keeper(Protocol):
    """Where takes go."""

    def keep(self, session: Session, prompt: Prompt, sound: Array, ratings: Ratings) -> Session:
        """Write a take and return the session after it; a UsageError says why it cannot be written."""

    def save(self, session: Session) -> None:
        """Write how far the session has come; a UsageError says why it cannot be written."""


class Player(Protocol):
    """What plays takes back."""

    def play(self, sound: Array) -> str:
        """Begin to play; return why it cannot be done."""

    def stop(self) -> None:
        """Stop what is playing."""


class Guide:
    """One conversation. Remembers `RECENT_S` of sound, and the take under way.

    Public attributes are for `calibrate.session.views` to read.
    """

    def __init__(
        self,
        session: Session,
        keeper: Keeper,
        player: Player,
        voice: Callable[[], VoiceActivityModel] = SileroVad,
    ) -> None:
        """Begin with the level.

        Args:
            session: how far the speaker has come.
            keeper: where takes go.
            player: what plays them back.
            voice: makes what judges sound; one for each use.
        """
        self.session = session
        self.stage = Stage.LEVEL
        self.ending: Ending | None = None
        self.recorder: Recorder | None = None
        self.quality: Quality | None = None
        """Of the newest take; before the first, of what was just heard."""
        self.refusal = ""
        """Why the newest take cannot be used."""
        self.ratings: list[float | None] = []
        """Answers so far about the newest take."""
        self.notice = ""
        """What happened last, if it needs to be said."""
        self.level_dbfs = -math.inf
        self.spent_s: list[float] = []
        """On each take."""
        self._keeper, self._player, self._voice = keeper, player, voice
        self._sound: Array = np.zeros(0, np.float32)
        self._recent: deque[Array] = deque()
        self._filter, self._metered = FrontEnd().input_filter(), np.zeros(0, np.float32)
        self._heard = self._advised = self._prompted = 0

    @property
    def prompt(self) -> Prompt:
        """What is to be said."""
        prompt = self.session.next
        assert prompt is not None
        return prompt

    @property
    def actions(self) -> list[Action]:
        """What the keys do now, in the order they are shown."""
        again = Action("r", "r", "record again", self._record)
        retry = Action("space", "Space", "record again", self._record)
        play = Action("p", "p", "play", self._play)
        skip = Action("s", "s", "skip this one", self._skip)
        keep = Action("enter", "Enter", "keep it", self._ask)
        finish = Action("enter", "Enter", "finish", self._finish)
        return {
            Stage.LEVEL: [
                Action("enter", "Enter", "go on", self._next),
                Action("d", "d", "another microphone", self._change_device),
            ],
            Stage.READY: [Action("space", "Space", "record", self._record), skip],
            Stage.RECORDING: [Action("space", "Space", "I am done", self._stop), again],
            Stage.REVIEW: [retry, play, skip] if self.refusal else [keep, again, play, skip],
            Stage.RATING: [
                Action("s", "s", "skip the question", lambda: self._rate(None)),
                play,
                Action("backspace", "Backspace", "go back", self._go_back),
            ],
            Stage.REST: [
                *([finish] if self.session.enough else []),
                Action("r", "r", "record the skipped ones", self._record_skipped),
            ],
        }[self.stage]

    def press(self, key: str) -> None:
        """Take a key; one that means nothing now is ignored."""
        rating = rating_of(key) if self.stage is Stage.RATING else None
        if rating is not None:
            self._rate(rating)
        for action in self.actions if rating is None else []:
            if action.key == key:
                self.notice = ""
                action.run()
                return

    def hear(self, block: Block) -> None:
        """Take the next block of sound."""
        self._heard += block.lost + len(block.samples)
        if block.device_change:
            self._report_device(block.device_change)
        if block.lost and self.stage is Stage.RECORDING:
            self._drop("Some sound was lost on the way: please say it again.")
        self._remember(block.samples)
        if self.stage is Stage.LEVEL:
            self._advise()
        elif self.stage is Stage.RECORDING:
            self._listen(block.samples)

    def _report_device(self, change: DeviceChange) -> None:
        self.notice = {
            "lost": f"{change.name} is gone: plug it in again, or press Ctrl-C.",
            "silent": f"{change.name} is silent, {change.reason}.",
        }.get(change.state, "")
        if self.stage is Stage.RECORDING and change.state in ("lost", "back"):
            self._drop(self.notice)

    def _drop(self, reason: str) -> None:
        """Give up the take under way."""
        self.stage, self.notice = Stage.READY, reason

    def _remember(self, samples: Array) -> None:
        self._recent.append(samples)
        while sum(map(len, self._recent)) - len(self._recent[0]) > RECENT_S * SAMPLE_RATE:
            self._recent.popleft()
        metered = np.concatenate([self._metered, self._filter.feed(samples)])
        self._metered = metered[-round(METER_S * SAMPLE_RATE) :]
        power = float(np.square(self._metered, dtype=np.float64).mean()) if len(metered) else 0.0
        self.level_dbfs = 10.0 * math.log10(power) if power > 0.0 else -math.inf

    def _advise(self) -> None:
        if self._heard - self._advised >= ADVISE_S * SAMPLE_RATE:
            self._advised = self._heard
            self.quality = measure(np.concatenate(self._recent), self._voice())

    def _next(self) -> None:
        """Show the next prompt, or end."""
        self._prompted = self._heard
        if self.session.next:
            self.stage = Stage.READY
        elif self.session.skipped or not self.session.enough:
            self.stage = Stage.REST
        else:
            self._finish()

    def _record(self) -> None:
        self._player.stop()
        self.stage, self.recorder = Stage.RECORDING, Recorder(self._voice())

    def _listen(self, samples: Array) -> None:
        assert self.recorder
        if self.recorder.feed(samples) is Progress.DONE:
            self._review(self.recorder.sound)

    def _stop(self) -> None:
        assert self.recorder
        self.recorder.stop()
        self._review(self.recorder.sound)

    def _review(self, sound: Array) -> None:
        self._sound, self.quality = sound, measure(sound, self._voice())
        self.refusal = refusal(self.quality)
        self.stage = Stage.REVIEW

    def _play(self) -> None:
        self.notice = self._player.play(self._sound) or "Playing ..."

    def _skip(self) -> None:
        self._player.stop()
        self.session = self.session.without(self.prompt)
        self._save()
        self._next()

    def _ask(self) -> None:
        self._player.stop()
        self.stage, self.ratings = Stage.RATING, []

    def _rate(self, rating: float | None) -> None:
        self.notice = ""
        self.ratings.append(rating)
        if len(self.ratings) == len(SCALES):
            self._keep()

    def _go_back(self) -> None:
        if self.ratings:
            self.ratings.pop()
        else:
            self.stage = Stage.REVIEW

    def _keep(self) -> None:
        valence, arousal, dominance = self.ratings
        try:
            self.session = self._keeper.keep(
                self.session, self.prompt, self._sound, (valence, arousal, dominance)
            )
        except UsageError as error:
            self.ratings.pop()  # the take is still here: another answer tries again
            self.notice = f"Not kept: {error}. Then answer again."
            return
        self.spent_s.append((self._heard - self._prompted) / SAMPLE_RATE)
        self.notice = "Kept."
        self._next()

    def _save(self) -> None:
        try:
            self._keeper.save(self.session)
        except UsageError as error:
            self.notice = f"Not written down: {error}."

    def _record_skipped(self) -> None:
        self.session = self.session.with_skipped_again()
        self._save()
        self._next()

    def _change_device(self) -> None:
        self.ending = Ending.OTHER_DEVICE

    def _finish(self) -> None:
        self.ending = Ending.COMPLETE
