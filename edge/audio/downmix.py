"""Downmix: which channels of a recording are heard.

`auto`, the default, by the number of channels:

    1           the channel
    2           their mean; one alone while the other has been digital silence so far, and the louder one
                from where they cancel each other (opposite phase: a wired-up connector, a karaoke filter)
    3 and more  channel 0: an array of microphones, whose processed voice it is (ReSpeaker), and whose last
                channels may be what the loudspeaker plays

`mix` is the mean of all channels, and a number is one channel, counted from 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edge.arrays import Array
from edge.audio.block import InputWarning
from edge.errors import UsageError

Channel = int | str
"""A number from 0, "mix" or "auto"."""
AUTO: Final = "auto"
MIX: Final = "mix"
SEGMENT_S: Final = 0.5
"""What a decision about two channels is made on; and as much is held back until the first."""
MOST_CHANNELS: Final = 64
"""More are a mistake."""
CANCELLED_RATIO: Final = 0.1
"""Power of the mean of two channels, relative to the louder one's, below which they cancel each other."""
SILENT_POWER: Final = 1e-6
"""Power, relative to full scale: a segment with less decides nothing."""
SEGMENTS_IN_A_ROW: Final = 2
"""That must be cancelled where the beginning was not."""
SILENT_S: Final = 3.0
"""Channel 0 of an array silent for so long while another is not: a warning."""


def parse_channel(text: str) -> Channel:
    """Read what a user asks for.

    Raises:
        UsageError: it is something else than a number from 0, mix or auto.
    """
    if text in (AUTO, MIX):
        return text
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    raise UsageError(f"{text!r} is no channel: give a number from 0, mix or auto")


def require_channel(channel: Channel, channels: int) -> None:
    """Refuse a channel that the sound does not have.

    Raises:
        UsageError: there are fewer.
    """
    if isinstance(channel, int) and not 0 <= channel < channels:
        there = "channel 0 only" if channels == 1 else f"channels 0 to {channels - 1}"
        raise UsageError(
            f"channel {channel} was asked for, the sound has {there}: give one of these, mix or auto"
        )


def require_channels(channels: int) -> None:
    """Refuse a number of channels that nobody sends.

    Raises:
        UsageError: it is below 1 or above `MOST_CHANNELS`.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise UsageError(f"{channels} channels were stated, expected 1 to {MOST_CHANNELS}")


class Downmix:
    """Make one channel of several.

    What comes out does not depend on how the sound is divided into blocks. Remembers the decision about
    two channels, and at most one segment of sound; `flush` emits what is held back, and the decision
    stays for what comes after.
    """

    def __init__(self, rate: float, channel: Channel = AUTO) -> None:
        """Prepare for a stream.

        Args:
            rate: Hz.
            channel: what to hear.

        Raises:
            UsageError: this is no channel.
        """
        self._channel = channel if isinstance(channel, int) else parse_channel(channel)
        self._pair = _StereoDownmix(rate)
        self._array = _MultichannelDownmix(rate)

    def feed(self, sound: Array) -> Array:
        """Take the next sound.

        Args:
            sound: (N,) or (N, channels).

        Returns:
            (M,) samples; M differs from N at the beginning of two channels only.

        Raises:
            UsageError: the channel that was asked for is not there.
        """
        sound = sound[:, None] if sound.ndim == 1 else sound
        require_channel(self._channel, sound.shape[1])
        if isinstance(self._channel, int):
            return sound[:, self._channel]
        if self._channel == MIX or sound.shape[1] == 1:
            return mean(sound)
        return self._pair.feed(sound) if sound.shape[1] == 2 else self._array.feed(sound)

    def flush(self) -> Array:
        """Return the samples still held back."""
        return self._pair.flush()

    def take_warning(self) -> InputWarning | None:
        """Return, once, what was noticed about the channels."""
        for channels in (self._pair, self._array):
            if warning := channels.warning:
                channels.warning = None
                return warning
        return None


class _MultichannelDownmix:
    """Three channels or more: the first is heard, and watched for digital silence."""

    def __init__(self, rate: float) -> None:
        self.warning: InputWarning | None = None
        self._patience = round(SILENT_S * rate)
        """Frames of silence until it is said; 0 once the channel has carried sound, or it was said."""
        self._others = False

    def feed(self, sound: Array) -> Array:
        voice = sound[:, 0]
        if self._patience:
            self._watch(sound)
        return voice

    def _watch(self, sound: Array) -> None:
        if sound[:, 0].any():
            self._patience = 0
            return
        self._others = self._others or bool(sound.any())
        self._patience = max(0, self._patience - len(sound))
        if not self._patience and self._others:
            message = (
                f"channel 0 of {sound.shape[1]} is silent and another is not: choose one with --channel N"
            )
            self.warning = InputWarning("channels", message)


class _StereoDownmix:
    """Two channels: their mean, or one of them once they have cancelled each other."""

    def __init__(self, rate: float) -> None:
        self.warning: InputWarning | None = None
        self._rate = rate
        self._size = round(SEGMENT_S * rate)
        self._passed = 0
        """Frames before the segment."""
        self._segment: list[Array] = []
        self._count = 0
        """Frames in it."""
        self._carried = np.zeros(2, bool)
        """Which channels have been other than digital silence."""
        self._decided = False
        self._cancelled = 0
        """Segments in a row."""
        self._chosen: int | None = None

    def feed(self, sound: Array) -> Array:
        heard = [np.zeros(0, np.float32)]
        while len(sound) and self._chosen is None:
            if equal := self._equal_at_first(sound):
                heard.append(self._mixed(sound[:equal]))
                self._passed += equal
                sound = sound[equal:]
                continue
            part = sound[: self._size - self._count].copy()
            heard += self._take(part)
            sound = sound[len(part) :]
        if self._chosen is not None:
            heard.append(sound[:, self._chosen])
        return np.concatenate(heard)

    def flush(self) -> Array:
        held = self._decide() if self._count and not self._decided else []
        self._passed += self._count
        self._segment, self._count = [], 0
        return np.concatenate([np.zeros(0, np.float32), *held])

    def _equal_at_first(self, sound: Array) -> int:
        """Count the frames up to a difference between the channels, while there is nothing to decide."""
        if self._decided or self._count:
            return 0
        different = np.flatnonzero(sound[:, 0] != sound[:, 1])
        return int(different[0]) if len(different) else len(sound)

    def _take(self, part: Array) -> list[Array]:
        """Add to the segment, and return what need not be held back."""
        self._segment.append(part)
        self._count += len(part)
        mixed = [self._mixed(part)] if self._decided else []
        return mixed + self._decide() if self._count == self._size else mixed

    def _decide(self) -> list[Array]:
        """End the segment, look whether its channels cancel each other, and return it if it was held back."""
        segment, began = np.concatenate(self._segment), self._passed
        self._passed += len(segment)
        self._segment, self._count = [], 0
        centred = segment - segment.mean(axis=0, dtype=np.float64)
        powers = np.square(centred).mean(axis=0)
        if powers.max() < SILENT_POWER:
            return [] if self._decided else [self._mixed(segment)]
        cancelled = np.square(centred.mean(axis=1)).mean() < CANCELLED_RATIO * powers.max()
        self._cancelled = self._cancelled + 1 if cancelled else 0
        if self._cancelled >= (SEGMENTS_IN_A_ROW if self._decided else 1):
            self._choose(int(powers.argmax()), self._passed if self._decided else began)
        held = (
            []
            if self._decided
            else [self._mixed(segment) if self._chosen is None else segment[:, self._chosen]]
        )
        self._decided = True
        return held

    def _choose(self, channel: int, since: int) -> None:
        self._chosen = channel
        when = f" from {since / self._rate:.1f} s on" if since else ""
        message = (
            f"the two channels cancel each other (opposite phase): channel {channel} is heard alone{when}"
        )
        self.warning = InputWarning("channels", f"{message}; choose another with --channel")

    def _mixed(self, part: Array) -> Array:
        """Average the channels that have carried sound so far."""
        if self._carried.all():
            return mean(part)
        carried = np.logical_or.accumulate(part != 0.0, axis=0) | self._carried
        self._carried = carried[-1]
        shares = carried / np.maximum(1, carried.sum(axis=1, keepdims=True))
        mixed: Array = (part * shares).sum(axis=1, dtype=np.float32)
        return mixed


def mean(sound: Array) -> Array:
    """Average the channels of (N, channels) sound."""
    averaged: Array = sound.mean(axis=1, dtype=np.float32)
    return averaged
