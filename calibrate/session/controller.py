"""The controller of a guided session: it handles keys and blocks of samples.

It uses no terminal and no device: takes go to a `TakeStore`, and `calibrate.session.views` draws the
state. Time is counted in samples of the stream.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np

from calibrate.quality import Quality, measure, ordinary_refusal, refusal
from calibrate.session.recording import OrdinaryRecorder, Recorder, RecorderState
from calibrate.session.sam_scale import SCALES, rating_of
from calibrate.session.session import Prompt, Session
from calibrate.takes import Ratings
from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import Block, DeviceChange
from edge.errors import UsageError
from edge.features.frontend import FrontEnd
from edge.features.silero_vad import SileroVad, VoiceActivityModel

RECENT_S: Final = 4.0
"""Length of the sound that the microphone check measures."""

CHECK_INTERVAL_S: Final = 0.5
"""Interval of the microphone check."""

METER_S: Final = 0.1
"""Length of the sound that the level meter measures."""


class Stage(Enum):
    """The stages of a session.

    `READY`, `RECORDING` and `REVIEW` are about ordinary speech while that is open, else about a take.
    """

    MICROPHONE_CHECK = auto()
    """Microphone check, before the first take."""
    READY = auto()
    """What to say is shown."""
    RECORDING = auto()
    REVIEW = auto()
    """It was recorded, and accepted or refused."""
    RATING = auto()
    SKIPPED = auto()
    """All prompts were shown, and some were skipped."""


class Ending(Enum):
    """Why the session ended."""

    COMPLETE = auto()
    OTHER_DEVICE = auto()


@dataclass(frozen=True)
class Action:
    """A key that has a meaning in the current stage."""

    key: str
    shown: str
    """Label of the key."""
    does: str
    run: Callable[[], None]


class TakeStore(Protocol):
    """Stores takes and the progress of a session."""

    def keep_ordinary(self, session: Session, sound: Array) -> Session:
        """Write ordinary speech and return the session with it; raise a UsageError if that fails."""

    def keep(self, session: Session, prompt: Prompt, sound: Array, ratings: Ratings) -> Session:
        """Write a take and return the session with it; raise a UsageError if it cannot be written."""

    def save(self, session: Session) -> None:
        """Write the progress; raise a UsageError if it cannot be written."""


class Player(Protocol):
    """Plays takes."""

    def play(self, sound: Array) -> str:
        """Start to play; return why that is impossible, or an empty text."""

    def stop(self) -> None:
        """Stop what is playing."""


class SessionController:
    """Controls one session. Remembers `RECENT_S` of sound, and the take being recorded.

    `calibrate.session.views` reads the public attributes.
    """

    def __init__(
        self,
        session: Session,
        store: TakeStore,
        player: Player,
        voice: Callable[[], VoiceActivityModel] = SileroVad,
    ) -> None:
        """Start with the microphone check.

        Args:
            session: the progress so far.
            store: stores takes.
            player: plays takes.
            voice: makes a voice activity model, one for each use.
        """
        self.session = session
        self.stage = Stage.MICROPHONE_CHECK
        self.ending: Ending | None = None
        self.recorder: Recorder | OrdinaryRecorder | None = None
        self.quality: Quality | None = None
        """Of the newest recording; before the first one, of the last `RECENT_S`."""
        self.refusal = ""
        """Why the newest recording cannot be used."""
        self.ratings: list[float | None] = []
        """Answers so far about the newest take."""
        self.notice = ""
        """Message about the last event; empty: none."""
        self.level_dbfs = -math.inf
        self.spent_s: list[float] = []
        """Seconds spent on each take."""
        self._store, self._player, self._voice = store, player, voice
        self._take: Array = np.zeros(0, np.float32)
        self._recent: deque[Array] = deque()
        self._filter, self._metered = FrontEnd().input_filter(), np.zeros(0, np.float32)
        self._samples_seen = self._checked = self._prompted = 0

    @property
    def asks_ordinary(self) -> bool:
        """Whether ordinary speech is to be recorded now, before the takes."""
        return self.session.ordinary == "open"

    @property
    def prompt(self) -> Prompt:
        """The sentence to say and its manner."""
        prompt = self.session.next
        assert prompt is not None
        return prompt

    @property
    def actions(self) -> list[Action]:
        """The keys of the current stage, in display order."""
        again = Action("r", "r", "record again", self._record)
        retry = Action("space", "Space", "record again", self._record)
        play = Action("p", "p", "play", self._play)
        may_skip = self.session.takes or not self.asks_ordinary
        skip = [Action("s", "s", "skip this one", self._skip)] if may_skip else []
        keep = Action("enter", "Enter", "keep it", self._keep_ordinary if self.asks_ordinary else self._ask)
        finish = Action("enter", "Enter", "finish", self._finish)
        return {
            Stage.MICROPHONE_CHECK: [
                Action("enter", "Enter", "continue", self._next),
                Action("d", "d", "another microphone", self._change_device),
            ],
            Stage.READY: [Action("space", "Space", "record", self._record), *skip],
            Stage.RECORDING: [Action("space", "Space", "stop recording", self._stop), again],
            Stage.REVIEW: [retry, play, *skip] if self.refusal else [keep, again, play, *skip],
            Stage.RATING: [
                Action("s", "s", "skip the question", lambda: self._rate(None)),
                play,
                Action("backspace", "Backspace", "go back", self._go_back),
            ],
            Stage.SKIPPED: [
                *([finish] if self.session.enough else []),
                Action("r", "r", "record the skipped ones", self._record_skipped),
            ],
        }[self.stage]

    def press(self, key: str) -> None:
        """Handle a key; one without a meaning in the current stage is ignored."""
        rating = rating_of(key) if self.stage is Stage.RATING else None
        if rating is not None:
            self._rate(rating)
        for action in self.actions if rating is None else []:
            if action.key == key:
                self.notice = ""
                action.run()
                return

    def feed(self, block: Block) -> None:
        """Handle the next block of samples."""
        self._samples_seen += block.lost + len(block.samples)
        if block.device_change:
            self._report_device(block.device_change)
        if block.lost and self.stage is Stage.RECORDING:
            self._drop("Part of the recording was lost: please say it again.")
        self._remember(block.samples)
        if self.stage is Stage.MICROPHONE_CHECK:
            self._check_microphone()
        elif self.stage is Stage.RECORDING:
            self._feed_recorder(block.samples)

    def _report_device(self, change: DeviceChange) -> None:
        self.notice = {
            "lost": f"{change.name} is disconnected: plug it in again, or press Ctrl-C to stop.",
            "silent": f"{change.name} is silent, {change.explanation}.",
        }.get(change.state, "")
        if self.stage is Stage.RECORDING and change.state in ("lost", "back"):
            self._drop(self.notice)

    def _drop(self, reason: str) -> None:
        """Discard the take being recorded."""
        self.stage, self.notice = Stage.READY, reason

    def _remember(self, samples: Array) -> None:
        self._recent.append(samples)
        while sum(map(len, self._recent)) - len(self._recent[0]) > RECENT_S * SAMPLE_RATE:
            self._recent.popleft()
        metered = np.concatenate([self._metered, self._filter.feed(samples)])
        self._metered = metered[-round(METER_S * SAMPLE_RATE) :]
        power = float(np.square(self._metered, dtype=np.float64).mean()) if len(metered) else 0.0
        self.level_dbfs = 10.0 * math.log10(power) if power > 0.0 else -math.inf

    def _check_microphone(self) -> None:
        if self._samples_seen - self._checked >= CHECK_INTERVAL_S * SAMPLE_RATE:
            self._checked = self._samples_seen
            self.quality = measure(np.concatenate(self._recent), self._voice())

    def _next(self) -> None:
        """Show what to say next, or end the session."""
        self._prompted = self._samples_seen
        if self.asks_ordinary or self.session.next:
            self.stage = Stage.READY
        elif self.session.skipped or not self.session.enough:
            self.stage = Stage.SKIPPED
        else:
            self._finish()

    def _record(self) -> None:
        self._player.stop()
        self.stage = Stage.RECORDING
        self.recorder = OrdinaryRecorder(self._voice()) if self.asks_ordinary else Recorder(self._voice())

    def _feed_recorder(self, samples: Array) -> None:
        assert self.recorder
        if self.recorder.feed(samples) is RecorderState.DONE:
            self._review(self.recorder.sound)

    def _stop(self) -> None:
        assert self.recorder
        self.recorder.stop()
        self._review(self.recorder.sound)

    def _review(self, sound: Array) -> None:
        self._take, self.quality = sound, measure(sound, self._voice())
        self.refusal = ordinary_refusal(self.quality) if self.asks_ordinary else refusal(self.quality)
        self.stage = Stage.REVIEW

    def _play(self) -> None:
        self.notice = self._player.play(self._take) or "Playing ..."

    def _skip(self) -> None:
        self._player.stop()
        if self.asks_ordinary:
            self.session = self.session.with_ordinary("skipped")
        else:
            self.session = self.session.without(self.prompt)
        self._save()
        self._next()

    def _keep_ordinary(self) -> None:
        self._player.stop()
        try:
            self.session = self._store.keep_ordinary(self.session, self._take)
        except UsageError as error:
            self.notice = f"The recording was not saved: {error}. After that, press Enter again."
            return
        self.notice = "Kept."
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
            self.session = self._store.keep(
                self.session, self.prompt, self._take, (valence, arousal, dominance)
            )
        except UsageError as error:
            self.ratings.pop()  # the take is still in memory: the next answer tries again
            self.notice = f"The take was not saved: {error}. After that, answer again."
            return
        self.spent_s.append((self._samples_seen - self._prompted) / SAMPLE_RATE)
        self.notice = "Kept."
        self._next()

    def _save(self) -> None:
        try:
            self._store.save(self.session)
        except UsageError as error:
            self.notice = f"The progress was not saved: {error}."

    def _record_skipped(self) -> None:
        self.session = self.session.with_skipped_again()
        self._save()
        self._next()

    def _change_device(self) -> None:
        self.ending = Ending.OTHER_DEVICE

    def _finish(self) -> None:
        self.ending = Ending.COMPLETE
