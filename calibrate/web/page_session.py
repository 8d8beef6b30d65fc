"""A session whose sound, keys and loudspeaker are a browser's."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from calibrate.session.controller import SessionController
from calibrate.session.session import Session
from calibrate.session.session_folder import SessionFolder
from calibrate.session.stage_text import level_word
from calibrate.web.page_view import may_press, view
from edge.arrays import SAMPLE_RATE, Array
from edge.audio.block import NO_SAMPLES, Block
from edge.audio.dead_input import DeadInput
from edge.audio.pcm_decoder import PcmDecoder
from edge.audio.resampler import AudioConverter
from edge.errors import UsageError
from edge.features.silero_vad import SileroVad, VoiceActivityModel

MICROPHONE: Final = "the browser's microphone"
LEVEL_S: Final = 0.1
"""Time between two levels."""
LEAST_LEVEL_DBFS: Final = -99.0
MOST_LOST_S: Final = 3_600.0
"""Longest gap that a page may report at once."""


class PagePlayer:
    """Holds the take that the page is to play."""

    def __init__(self) -> None:
        self._sound: Array | None = None

    def play(self, sound: Array) -> str:
        """Offer (N,) samples at 16 kHz."""
        self._sound = sound
        return ""

    def stop(self) -> None:
        """Offer nothing; the page stops by itself when something is pressed."""
        self._sound = None

    def offered(self) -> bytes | None:
        """Return the sound to play as a WAV file, once; None if there is none."""
        import soundfile

        if self._sound is None:
            return None
        file = io.BytesIO()
        soundfile.write(file, self._sound, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        self._sound = None
        return file.getvalue()


class PageSession:
    """Feeds a browser's sound and keys to a `SessionController`, and yields what changes on the page."""

    def __init__(
        self,
        session: Session,
        folder: SessionFolder,
        rate: int,
        voice: Callable[[], VoiceActivityModel] = SileroVad,
    ) -> None:
        """Begin with the microphone check.

        Args:
            session: the progress so far.
            folder: stores takes.
            rate: Hz of the browser's sound.
            voice: makes a voice activity model.
        """
        self._player = PagePlayer()
        self.controller = SessionController(session, folder, self._player, voice)
        self._decoder, self._converter = PcmDecoder(), AudioConverter(rate)
        self._dead_input = DeadInput(MICROPHONE)
        self._shown = ""
        self._levelled = 0

    def hear(self, data: bytes) -> None:
        """Take raw sound: s16le, mono.

        Raises:
            SourceError: the data is no raw sound.
        """
        now_s = time.perf_counter()
        samples = self._converter.feed(self._decoder.feed(data), now_s)
        change = self._dead_input.feed(samples, now_s)
        self.controller.feed(Block(samples, now_s, device_change=change))
        self._levelled += len(samples)

    def report_gap(self, seconds: object) -> None:
        """Take the duration of sound that the browser could not send.

        Raises:
            UsageError: it is no duration.
        """
        if not isinstance(seconds, int | float) or not 0.0 <= seconds <= MOST_LOST_S:
            raise UsageError(f"{str(seconds)[:40]} s of lost sound were reported")
        lost = math.ceil(seconds * SAMPLE_RATE)
        self.controller.feed(Block(NO_SAMPLES, time.perf_counter(), lost=lost))

    def press(self, key: object) -> None:
        """Take a key; one without a meaning now is ignored."""
        if may_press(self.controller, key):
            self.controller.press(str(key))

    def changes(self) -> Iterator[str | bytes]:
        """Yield the view if it has changed, the level each `LEVEL_S`, and a take to be played."""
        described = to_line(view(self.controller))
        if described != self._shown:
            self._shown = described
            yield described
        if self._levelled >= LEVEL_S * SAMPLE_RATE:
            self._levelled = 0
            level = max(LEAST_LEVEL_DBFS, self.controller.level_dbfs)
            yield to_line({"page": "level", "level_dbfs": round(level, 1), "word": level_word(level)})
        if played := self._player.offered():
            yield to_line({"page": "sound"})
            yield played


def to_line(message: Mapping[str, Any]) -> str:
    """Write a message to the page."""
    return json.dumps(message, ensure_ascii=False)
