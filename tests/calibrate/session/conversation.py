"""A guided session without a terminal, a microphone or a disk."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calibrate.session.controller import SessionController
from calibrate.session.session import Prompt, Session
from calibrate.takes import Ratings
from edge.arrays import Array
from edge.audio.block import Block, DeviceChange
from edge.errors import UsageError
from edge.events import DeviceState
from tests.calibrate.session.synthetic_voices import LoudVoice, room, tone

BLOCK = 320


@dataclass
class Memory:
    """A `TakeStore` in memory."""

    sounds: dict[int, Array] = field(default_factory=dict)
    ordinary: Array | None = None
    saved: Session | None = None
    refusal: str = ""
    """The error of every write; empty: none."""

    def keep(self, session: Session, prompt: Prompt, sound: Array, ratings: Ratings) -> Session:
        self._require_room()
        self.sounds[prompt.index] = sound
        self.saved = session.with_take(prompt, ratings)
        return self.saved

    def keep_ordinary(self, session: Session, sound: Array) -> Session:
        self._require_room()
        self.ordinary = sound
        self.saved = session.with_ordinary("done")
        return self.saved

    def save(self, session: Session) -> None:
        self._require_room()
        self.saved = session

    def _require_room(self) -> None:
        if self.refusal:
            raise UsageError(self.refusal)


@dataclass
class Silent:
    """A `Player` that only records its calls."""

    reason: str = ""
    played: list[Array] = field(default_factory=list)
    stopped: int = 0

    def play(self, sound: Array) -> str:
        self.played.append(sound)
        return self.reason

    def stop(self) -> None:
        self.stopped += 1


class Talk:
    """A controller and a simulated speaker."""

    def __init__(self, session: Session | None = None) -> None:
        self.memory, self.player = Memory(), Silent()
        self.controller = SessionController(
            session or Session("anna", "en", 2), self.memory, self.player, LoudVoice
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.controller.press(key)

    def hear(self, sound: Array) -> None:
        for start in range(0, len(sound), BLOCK):
            self.controller.feed(Block(sound[start : start + BLOCK], 0.0))

    def hear_of(self, state: DeviceState, reason: str = "") -> None:
        self.controller.feed(
            Block(np.zeros(0, np.float32), 0.0, device_change=DeviceChange("USB", state, reason))
        )

    def say(self, level: float = 0.1) -> None:
        """Record a sentence: from the prompt to the review."""
        self.press("space")
        self.hear(np.concatenate([room(0.6), tone(1.2, level), room(1.5)]))

    def take(self, *ratings: str) -> None:
        """Say a sentence, keep it and rate it."""
        self.say()
        self.press("enter", *(ratings or ("3", "3", "3")))
